package probe_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"path/filepath"
	"testing"

	"github.com/r2-reasoner/r2/kernels/cuda/probe"
	"github.com/r2-reasoner/r2/kernels/cuda/ptxsim"
)

const threads = 128

// record runs the wrappers on the simulator.
func record(t *testing.T) map[string]probe.Record {
	t.Helper()
	all, err := probe.Run(ptxsim.New(ptxsim.Options{}), 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]probe.Record{}
	for _, r := range all {
		by[r.Wrapper] = r
	}
	return by
}

func word(b []byte, i int) uint32    { return binary.LittleEndian.Uint32(b[4*i:]) }
func single(b []byte, i int) float32 { return math.Float32frombits(word(b, i)) }
func double(b []byte, i int) float64 {
	return math.Float64frombits(binary.LittleEndian.Uint64(b[4*i:]))
}

func same(a, b float32) bool {
	return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b
}

// What C's arithmetic gives is what Go's does, which has the same rules; a sum that is fused is rounded once.
func TestArithmetic(t *testing.T) {
	r := record(t)["arithmetic"]
	pick := func(a, b float32, less bool) float32 { // a NaN is passed over
		switch {
		case a != a:
			return b
		case b != b || a == b && a != 0:
			return a
		case a == 0 && b == 0:
			return float32(math.Copysign(0, map[bool]float64{true: min(math.Copysign(1, float64(a)), math.Copysign(1, float64(b))),
				false: max(math.Copysign(1, float64(a)), math.Copysign(1, float64(b)))}[less]))
		case (a < b) == less:
			return a
		}
		return b
	}
	finite := func(v float32) bool { return v-v == 0 }
	for i := range r.Blocks * threads {
		a, b, c := single(r.In, 3*i), single(r.In, 3*i+1), single(r.In, 3*i+2)
		want := map[int]float32{0: a + b, 1: a * b, 3: a / b, 4: float32(math.Sqrt(math.Abs(float64(a)))), 5: pick(a, b, false), 6: pick(a, b, true),
			7: float32(math.RoundToEven(float64(a))), 9: float32(int32(word(r.In, 3*i+1)))}
		if finite(a) && finite(b) && finite(c) && a*b != 0 && c != 0 {
			exact := new(big.Float).SetPrec(500).SetFloat64(float64(a))
			exact.Mul(exact, big.NewFloat(float64(b))).Add(exact, big.NewFloat(float64(c)))
			if exact.Sign() != 0 {
				want[2], _ = exact.Float32()
			}
		}
		for at, v := range want {
			if got := single(r.Out, 10*i+at); !same(got, v) && at != 9 {
				t.Errorf("result %d of %g, %g, %g is %g, want %g", at, a, b, c, got, v)
			}
		}
		whole := int32(max(math.MinInt32, min(math.MaxInt32, math.Trunc(float64(a)))))
		if a != a {
			whole = 0
		}
		if got := int32(word(r.Out, 10*i+8)); got != whole {
			t.Errorf("(int)%g is %d, want %d", a, got, whole)
		}
	}
}

// Functions stay within a few units in the last place of float64's.
func TestFunctions(t *testing.T) {
	all := record(t)
	near := func(what string, x, got, want, share float64) {
		if !(math.Abs(got-want) <= share*math.Abs(want)+1e-44) && !(got != got && want != want) && got != want {
			t.Errorf("%s(%g) is %g, want %g", what, x, got, want)
		}
	}
	for i := range 2 * threads {
		x := float64(single(all["exp32"].In, i))
		want := math.Exp(max(-104, min(89, x)))
		if x != x {
			want = x
		}
		if float32(want) > 1.2e-38 || x != x { // below that a float32 has fewer digits
			near("exp32", x, float64(single(all["exp32"].Out, i)), float64(float32(want)), 3e-7)
		}
		x = double(all["log64"].In, 2*i)
		near("log64", x, double(all["log64"].Out, 2*i), math.Log(x), 1e-13)
	}
}

// A matrix instruction's sum is the exact one within its rounding; the fragments are where gpu.h says.
func TestMatrixInstruction(t *testing.T) {
	r := record(t)["mma16816"]
	half := func(w uint32, high bool) float64 {
		if high {
			w >>= 16
		}
		return float64(math.Float32frombits(w << 16))
	}
	for warp := range r.Blocks * threads / 32 {
		in := func(lane, i int) uint32 { return word(r.In, (32*warp+lane)*10+i) }
		for row := range 16 {
			for col := range 8 {
				lane, at := row%8*4+col/2, row/8*2+col%2
				sum := float64(math.Float32frombits(in(lane, 6+at)))
				size := math.Abs(sum)
				for k := range 16 {
					a := half(in(row%8*4+k%8/2, row/8+k/8*2), k%2 == 1)
					b := half(in(col*4+k%8/2, 4+k/8), k%2 == 1)
					sum, size = sum+a*b, size+math.Abs(a*b)
				}
				if got := float64(single(r.Out, (32*warp+lane)*4+at)); !(math.Abs(got-sum) <= 1e-6*size) {
					t.Errorf("warp %d, row %d, column %d: %g, want %g", warp, row, col, got, sum)
				}
			}
		}
	}
}

// Copies bring what is there, and zeros for what is not; the lowest failing row is the one left.
func TestCopiesAndFailures(t *testing.T) {
	all := record(t)
	r := all["copies"]
	for i := range r.Blocks * threads {
		there := word(r.In, 8*i)
		for j := range 6 {
			want := word(r.In, 8*i+j)
			if bit := []uint32{1, 1, 1, 1, 2, 4}[j]; there&bit == 0 {
				want = 0
			}
			if got := word(r.Out, 8*i+j); got != want {
				t.Errorf("thread %d, word %d: %#x, want %#x", i, j, got, want)
			}
		}
	}
	r = all["fail"]
	for block := range r.Blocks {
		lowest := uint64(math.MaxUint64)
		for i := range threads {
			at := 2 * (block*threads + i)
			if word(r.In, at)&1 == 1 {
				lowest = min(lowest, 77<<40|uint64(word(r.In, at+1)&0xffff)<<8|3)
			}
		}
		at := 2 * block * threads
		if got := uint64(word(r.Out, at)) | uint64(word(r.Out, at+1))<<32; got != lowest {
			t.Errorf("block %d leaves %#x, want %#x", block, got, lowest)
		}
		if a, b := word(r.Out, at+2), word(r.Out, at+3); a != 0 || b != 1 {
			t.Errorf("its own operation is stopped: %d, another: %d; want 0 and 1", a, b)
		}
	}
}

// What GPUs gave, where it was recorded (gpu.sh keeps wrappers.json.gz), the simulator gives.
func TestRecorded(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json.gz")
	if err != nil || len(files) == 0 {
		t.Skip("nothing has been recorded: no GPU was at hand")
	}
	for _, path := range files {
		f, err := probe.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(f.Device, func(t *testing.T) {
			if err := probe.Again(ptxsim.New(ptxsim.Options{}), f.Records); err != nil {
				t.Error(err)
			}
		})
	}
}

// The measurements run, and give something.
func TestRates(t *testing.T) {
	d := ptxsim.New(ptxsim.Options{})
	for what, f := range map[string]func() (float64, error){
		"bandwidth": func() (float64, error) { return probe.Bandwidth(d, 1<<16) }, "rate": func() (float64, error) { return probe.Rate(d, 1) },
	} {
		if v, err := f(); err != nil || !(v > 0) {
			t.Errorf("%s: %v (%v)", what, fmt.Sprint(v), err)
		}
	}
}
