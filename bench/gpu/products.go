package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/r2-reasoner/r2/bench"
	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda"
	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// A square is a matrix product out = x·wᵀ of rows rows and a weight of n × n, on a device.
type square struct {
	rows, n int
	raw     []byte // n × n random bf16
}

// products times Linear with a bf16 weight, with activations rounded to bf16 and exact, and cuBLAS.
func products(o options, _ []string) error {
	var sizes []int
	for _, s := range strings.Split(o.sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return fmt.Errorf("-sizes %s: want numbers", o.sizes)
		}
		sizes = append(sizes, n)
	}
	d, err := o.open()
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Bind(); err != nil {
		return err
	}
	yard, err := openBLAS(o.cublas)
	if err != nil || o.simulated() {
		yard = nil
		fmt.Fprintln(os.Stderr, "without cuBLAS:", err)
	}
	for _, n := range sizes {
		p := square{n: n, raw: halves(n * n)}
		for _, rows := range slices.Compact([]int{1, min(8, n), min(64, n), min(256, n), n}) {
			p.rows = rows
			if err := p.measure(o, d, yard); err != nil {
				return fmt.Errorf("%d rows, %d x %d: %w", rows, n, n, err)
			}
		}
	}
	return nil
}

// halves are n random bf16.
func halves(n int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 0, 2*n)
	for range n {
		b = binary.LittleEndian.AppendUint16(b, uint16(math.Float32bits(float32(rng.NormFloat64()))>>16))
	}
	return b
}

func (p square) measure(o options, d driver.Device, yard *blas) error {
	row := func(of string, took time.Duration) bench.Row {
		return bench.Row{Bench: "product", Case: fmt.Sprintf("%s, %d rows, %d x %d", of, p.rows, p.n, p.n), DType: "bf16", Device: d.Name(),
			Unit: "TFLOP/s", Reached: 2e-12 * float64(p.rows) * float64(p.n) * float64(p.n) / took.Seconds(), Seconds: took.Seconds()}
	}
	for _, a := range []kernels.DType{kernels.BF16, kernels.F32} {
		took, err := p.ours(d, a)
		if err != nil {
			return err
		}
		if err := o.add(row(fmt.Sprintf("r2, activations %v", a), took)); err != nil {
			return err
		}
	}
	if yard == nil {
		return nil
	}
	took, err := p.theirs(d, yard)
	if err != nil {
		return err
	}
	return o.add(row("cuBLAS", took))
}

func (p square) ours(d driver.Device, activations kernels.DType) (time.Duration, error) {
	be, err := cuda.On(d, cuda.Options{Activations: activations})
	if err != nil {
		return 0, err
	}
	return p.on(be)
}

// on times the product on a backend.
func (p square) on(be *cuda.Device) (time.Duration, error) {
	w := be.Load(kernels.Format{Type: kernels.BF16}, p.n, p.n, p.raw)
	x, out := be.New(kernels.F32, p.rows, p.n), be.New(kernels.F32, p.rows, p.n)
	defer func() { be.Unload(w); be.Free(x); be.Free(out) }()
	wide := make([]byte, 0, 4*p.rows*p.n)
	for i := range p.rows * p.n {
		wide = append(wide, 0, 0, p.raw[2*i], p.raw[2*i+1])
	}
	be.Write(x, wide)
	return timed(func() error { be.Linear(out, x, w, kernels.Tensor{}); return nil }, be.Sync)
}

func (p square) theirs(d driver.Device, yard *blas) (time.Duration, error) {
	var at [3]uint64
	for i, bytes := range []int{4 * p.rows * p.n, 2 * p.rows * p.n, 2 * p.n * p.n} {
		a, err := d.Alloc(bytes)
		if err != nil {
			return 0, err
		}
		defer d.Free(a)
		at[i] = a
	}
	if err := errors.Join(d.Upload(at[1], p.raw[:2*p.rows*p.n]), d.Upload(at[2], p.raw), d.Sync()); err != nil {
		return 0, err
	}
	return timed(func() error { return yard.product(at[0], at[1], at[2], p.rows, p.n, p.n) }, yard.sync)
}

// timed is the time of one call among so many that they take a twentieth of a second: the median of five.
func timed(call, sync func() error) (time.Duration, error) {
	calls := 1
	var all []time.Duration
	for len(all) < 5 {
		start := time.Now()
		for range calls {
			if err := call(); err != nil {
				return 0, err
			}
		}
		if err := sync(); err != nil {
			return 0, err
		}
		took := time.Since(start)
		if took < 50*time.Millisecond {
			calls *= 2
			all = all[:0]
			continue
		}
		all = append(all, took/time.Duration(calls))
	}
	slices.Sort(all)
	return all[2], nil
}
