package drivertest

import (
	"strings"

	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

func launches(b *bench) {
	x := b.words(100, 0xaa)
	b.countUp(x, 70, 1000)
	b.want("what the kernel is to leave alone", x+4*70, same(0xaaaaaaaa, 30))
	b.want("what it counted", x, upFrom(1000, 70))
}

// Shared memory beyond 48 KB, once allowed; its end is used.
func shared(b *bench) {
	most, err := b.Attribute(driver.MaxSharedPerBlock)
	b.ok(err)
	f, x := b.function("turn_round"), b.words(128, 0)
	for _, bytes := range []int{4 * 64, most} {
		b.countUp(x, 128, 0)
		if bytes > 48<<10 {
			b.ok(b.SetFunctionAttribute(f, driver.MaxDynamicShared, bytes))
			if v, err := b.FunctionAttribute(f, driver.MaxDynamicShared); err != nil || v != bytes {
				b.Errorf("%d bytes are allowed, and then it is %d (%v)", bytes, v, err)
			}
		}
		b.args.Reset()
		b.args.Add(x)
		b.ok(b.Launch(f, driver.Launch{Grid: driver.Dim{X: 2, Y: 1, Z: 1}, Block: driver.Dim{X: 64, Y: 1, Z: 1}, Shared: bytes}, &b.args))
		want := make([]uint32, 128)
		for i := range want {
			want[i] = uint32(i/64*64 + 63 - i%64)
		}
		b.want("turned round", x, want)
	}
}

func events(b *bench) {
	var at [3]driver.Event
	for i := range at {
		e, err := b.NewEvent()
		b.ok(err)
		at[i] = e
	}
	x := b.words(4096, 0)
	for _, e := range at {
		b.countUp(x, 4096, 5)
		b.ok(b.Record(e))
	}
	b.ok(b.Wait(at[2]))
	first, err := b.Elapsed(at[0], at[1])
	b.ok(err)
	all, err := b.Elapsed(at[0], at[2])
	b.ok(err)
	if first < 0 || all < first {
		b.Errorf("the time to the second event is %v, to the third %v", first, all)
	}
	for _, e := range at {
		b.ok(b.FreeEvent(e))
	}
}

// record records f and makes it ready.
func (b *bench) record(f func()) driver.Exec {
	g := b.graph(f)
	e, err := b.Instantiate(g)
	b.ok(err)
	b.ok(b.FreeGraph(g))
	b.Cleanup(func() { b.ok(b.FreeExec(e)) })
	return e
}

func (b *bench) graph(f func()) driver.Graph {
	b.Helper()
	b.ok(b.Sync())
	b.ok(b.Begin())
	f()
	g, err := b.End()
	b.ok(err)
	return g
}

// A recording does not run until it is replayed, and again each time, with what memory then holds.
func graphs(b *bench) {
	x, y := b.words(40, 0), b.words(40, 0)
	e := b.record(func() {
		b.countUp(x, 40, 9)
		b.ok(b.Copy(y, x, 160))
		b.ok(b.Set(x, 0xcc, 80))
	})
	b.want("before", x, same(0, 40))
	for range 2 {
		b.ok(b.Set(y, 0, 160))
		b.ok(b.Replay(e))
		b.want("the copy", y, upFrom(9, 40))
		b.want("what was set", x, append(same(0xcccccccc, 20), upFrom(29, 20)...))
	}
}

// A ready graph takes the arguments of another with the same launches, and not another's launches.
func updates(b *bench) {
	x, y := b.words(40, 0), b.words(90, 0)
	e := b.record(func() { b.countUp(x, 40, 1) })
	other := b.graph(func() { b.countUp(y, 90, 2) })
	b.ok(b.Update(e, other))
	b.ok(b.FreeGraph(other))
	b.ok(b.Replay(e))
	b.want("the graph's first memory", x, same(0, 40))
	b.want("the update's", y, upFrom(2, 90))
	longer := b.graph(func() { b.countUp(x, 40, 1); b.countUp(y, 40, 1) })
	if err := b.Update(e, longer); err == nil || !strings.Contains(err.Error(), "cuGraphExecUpdate") {
		b.Errorf("an update with another launch: %v", err)
	}
	b.ok(b.FreeGraph(longer))
}

// Tensor maps of what cannot be are refused with the reason, on every device; what they do is for kernels' tests.
func maps(b *bench) {
	good := driver.Tile{Type: driver.TileBF16, Address: b.words(4096, 0), Dims: []uint64{64, 32}, Strides: []uint64{128}, Box: []uint32{64, 8},
		Swizzle: driver.Swizzle128}
	if major, err := b.Attribute(driver.CapabilityMajor); err != nil || major < 9 {
		b.Skipf("a device of compute capability %d has none (%v)", major, err)
	}
	m, err := b.Encode(good)
	if err != nil && strings.Contains(err.Error(), "not simulated") {
		b.Skip(err)
	}
	b.ok(err)
	if m == (driver.TensorMap{}) {
		b.Error("the map is empty")
	}
	for want, spoil := range map[string]func(*driver.Tile){
		"element type":       func(t *driver.Tile) { t.Type = 77 },
		"address":            func(t *driver.Tile) { t.Address += 2 },
		"strides":            func(t *driver.Tile) { t.Strides = nil },
		"stride of":          func(t *driver.Tile) { t.Strides = []uint64{100} },
		"dimension 1":        func(t *driver.Tile) { t.Box = []uint32{64, 300} },
		"swizzled":           func(t *driver.Tile) { t.Swizzle = driver.Swizzle64 },
		"multiple of 16":     func(t *driver.Tile) { t.Box = []uint32{9, 8} },
		"swizzle 9":          func(t *driver.Tile) { t.Swizzle = 9 },
		"dimension 0 has 0 ": func(t *driver.Tile) { t.Dims = []uint64{0, 32} },
	} {
		bad := good
		spoil(&bad)
		if _, err := b.Encode(bad); err == nil || !strings.Contains(err.Error(), want) {
			b.Errorf("a map with a bad %s: %v", want, err)
		}
	}
}
