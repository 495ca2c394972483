package ptxsim

import (
	"encoding/binary"
	"math"

	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// Launch runs a kernel, or records that.
func (d *Device) Launch(f driver.Function, l driver.Launch, args *driver.Args) error {
	const call = "cuLaunchKernel"
	if d.lost != nil {
		return d.lost
	}
	fn, err := d.function(call, f)
	if err != nil {
		return err
	}
	if err := d.checkLaunch(fn, l); err != nil {
		return err
	}
	params, err := fn.pack(args)
	if err != nil {
		return err
	}
	grid, size := [3]int{l.Grid.X, l.Grid.Y, l.Grid.Z}, [3]int{l.Block.X, l.Block.Y, l.Block.Z}
	return d.queue(work{call: call, kernel: fn.name, run: func() error { return d.runGrid(fn.kernel, grid, size, l, params) }})
}

// checkLaunch checks the sizes of a launch against the device's and the kernel's limits.
func (d *Device) checkLaunch(fn *function, l driver.Launch) error {
	bad := func(code int, format string, args ...any) error {
		return refuse("cuLaunchKernel", code, "kernel "+fn.name+": "+format, args...)
	}
	g, b, threads := l.Grid, l.Block, l.Block.X*l.Block.Y*l.Block.Z
	most, exact := fn.most[0]*fn.most[1]*fn.most[2], fn.exactly
	switch {
	case g.X < 1 || g.Y < 1 || g.Z < 1 || g.X > 1<<31-1 || g.Y > 65535 || g.Z > 65535:
		return bad(codeInvalid, "a grid of %d × %d × %d: at most 2³¹-1, 65535 and 65535", g.X, g.Y, g.Z)
	case b.X < 1 || b.Y < 1 || b.Z < 1 || b.X > 1024 || b.Y > 1024 || b.Z > 64 || threads > 1024:
		return bad(codeInvalid, "a block of %d × %d × %d: at most 1024 threads", b.X, b.Y, b.Z)
	case most > 0 && threads > most:
		return bad(codeInvalid, "a block of %d threads: the kernel is for at most %d", threads, most)
	case exact != [3]int{} && exact != [3]int{b.X, b.Y, b.Z}:
		return bad(codeInvalid, "a block of %d × %d × %d: the kernel is for %v", b.X, b.Y, b.Z, exact)
	case l.Shared < 0 || l.Shared > fn.allowed:
		return bad(codeInvalid, "%d bytes of dynamic shared memory: it has been allowed %d", l.Shared, fn.allowed)
	case fn.static > usualShared || l.Shared+fn.static > d.mostShared():
		return bad(codeResources, "%d bytes of dynamic and %d of other shared memory: a block has %d", l.Shared, fn.static, d.mostShared())
	}
	return d.checkCluster(fn, l)
}

// clusterOf is the blocks of a launch's clusters.
func clusterOf(k *kernel, l driver.Launch) [3]int {
	if c := (driver.Dim{}); l.Cluster != c {
		return [3]int{l.Cluster.X, l.Cluster.Y, l.Cluster.Z}
	}
	if k.cluster != [3]int{} {
		return k.cluster
	}
	return [3]int{1, 1, 1}
}

// Clusters is what a GPU has room for, of one block a multiprocessor: the blocks of a cluster are in one part of the GPU, of about
// 16 multiprocessors, which stand there in pairs.
func (d *Device) Clusters(f driver.Function, l driver.Launch) (int, error) {
	fn, err := d.function("cuOccupancyMaxActiveClusters", f)
	if err == nil {
		err = d.checkCluster(fn, l)
	}
	if err != nil || d.capability < 90 {
		return 0, err
	}
	c, parts, n := clusterOf(fn.kernel, l), max(d.multiprocessors/16, 1), 0
	pairs := d.multiprocessors / 2 / parts
	more := d.multiprocessors/2 - pairs*parts // parts with a pair more
	for i := range parts {
		all := 2 * pairs
		if i < more {
			all += 2
		}
		if parts == 1 {
			all = d.multiprocessors
		}
		n += all / (c[0] * c[1] * c[2])
	}
	return n, d.lost
}

// mostCluster is how many blocks every device of capability 9.0 can have in a cluster.
const mostCluster = 8

func (d *Device) checkCluster(fn *function, l driver.Launch) error {
	bad := func(format string, args ...any) error {
		return refuse("cuLaunchKernelEx", codeCluster, "kernel "+fn.name+": "+format, args...)
	}
	c, g := clusterOf(fn.kernel, l), [3]int{l.Grid.X, l.Grid.Y, l.Grid.Z}
	switch {
	case c == [3]int{1, 1, 1}:
		return nil
	case d.capability < 90:
		return bad("clusters of blocks: a simulated sm_%d has none", d.capability)
	case c[0] < 1 || c[1] < 1 || c[2] < 1 || c[0]*c[1]*c[2] > mostCluster:
		return bad("a cluster of %d × %d × %d: at most %d blocks", c[0], c[1], c[2], mostCluster)
	case fn.cluster != [3]int{} && fn.cluster != c:
		return bad("a cluster of %v: the kernel is for %v", c, fn.cluster)
	case g[0]%c[0] != 0 || g[1]%c[1] != 0 || g[2]%c[2] != 0:
		return bad("a grid of %v, which clusters of %v do not divide", g, c)
	}
	return nil
}

// pack lays the arguments out as the kernel's parameters. A value must fit its parameter, without or with a sign.
func (k *kernel) pack(args *driver.Args) ([]byte, error) {
	n := 0
	if args != nil {
		n = len(args.Starts)
	}
	if n != len(k.params) {
		return nil, refuse("cuLaunchKernel", codeInvalid, "kernel %s has %d parameters, and is given %d arguments", k.name, len(k.params), n)
	}
	b := make([]byte, k.paramSize)
	for i, p := range k.params {
		end := len(args.Words)
		if i+1 < n {
			end = args.Starts[i+1]
		}
		words := args.Words[args.Starts[i]:end]
		if len(words) != (p.size+7)/8 {
			return nil, refuse("cuLaunchKernel", codeInvalid, "kernel %s: argument %d is %d bytes, and its parameter %d", k.name, i, 8*len(words), p.size)
		}
		if p.size < 8 {
			if high := int64(words[0]) >> (8*p.size - 1); high != 0 && high != 1 && high != -1 {
				return nil, refuse("cuLaunchKernel", codeInvalid, "kernel %s: argument %d is %#x, and its parameter has %d bytes", k.name, i, words[0], p.size)
			}
			putElement(b[p.offset:], p.size, words[0])
			continue
		}
		for j, w := range words {
			binary.LittleEndian.PutUint64(b[p.offset+8*j:], w)
		}
	}
	return b, nil
}

// runGrid runs the clusters of a launch one after another. A fault ends it, and the device.
func (d *Device) runGrid(k *kernel, grid, size [3]int, l driver.Launch, params []byte) error {
	d.launchCount++
	d.messages = nil
	c := d.assemble(k, clusterOf(k, l), grid, size, l.Shared, params)
	var t *tally
	if d.count != nil {
		t = newTally(k, l)
	}
	for _, b := range c.blocks {
		b.early, b.tally = l.Early, t
	}
	n := grid[0] * grid[1] * grid[2] / len(c.blocks)
	run := n
	if d.survey && d.surveyed > 0 {
		run = min(n, (d.surveyed+len(c.blocks)-1)/len(c.blocks))
	}
	for i := range run {
		if run < n {
			_, part := math.Modf(float64(i+1) * math.Phi) // not always the same place, which grids of several dimensions would repeat
			i = int((float64(i) + part) * float64(n) / float64(run))
		}
		if d.order == LastFirst {
			i = n - 1 - i
		}
		c.begin(i)
		if err := c.run(d.order); err != nil {
			d.lost = err
			return err
		}
	}
	if t != nil {
		t.Blocks = run * len(c.blocks)
		d.count(t.sum(k))
	}
	return nil
}
