package cpu

import (
	"math"
	"math/rand/v2"
	"testing"
)

// A tile of one k is one fused multiply-add a lane: fma32 gives its bits.
func TestFMA32IsTheInstruction(t *testing.T) {
	eachForm(t, func(t *testing.T) {
		n, differ := 0, 0
		var x, y, out [1]float32
		hardFMA(rand.New(rand.NewPCG(3, 4)), 1_000_000, func(a, b, c float32) {
			x[0], y[0], out[0] = a, b, c
			tileOf(out[:], 1, x[:], 1, y[:], lanes, 1, 1, 1, true)
			n++
			if got := fma32(a, b, c); !same(got, out[0]) {
				if differ++; differ < 10 {
					t.Errorf("fma32(%x, %x, %x) = %x, the instruction gives %x", math.Float32bits(a), math.Float32bits(b), math.Float32bits(c), math.Float32bits(got), math.Float32bits(out[0]))
				}
			}
		})
		t.Logf("%d cases, %d differ", n, differ)
	})
}

func FuzzFMA32(f *testing.F) {
	f.Add(uint32(0x3f800001), uint32(0x3f800001), uint32(0x33800000))
	f.Fuzz(func(t *testing.T, a, b, c uint32) {
		x, y, z := math.Float32frombits(a), math.Float32frombits(b), math.Float32frombits(c)
		eachForm(t, func(t *testing.T) {
			out := []float32{z}
			tileOf(out, 1, []float32{x}, 1, []float32{y}, lanes, 1, 1, 1, true)
			if got := fma32(x, y, z); !same(got, out[0]) {
				t.Errorf("fma32(%x, %x, %x) = %x, the instruction gives %x", a, b, c, got, out[0])
			}
		})
	})
}

// Tiles of every height, width and start give the twin's bits and touch nothing else.
func TestTileIsItsTwin(t *testing.T) { eachForm(t, tileIsItsTwin) }

func tileIsItsTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for rows := 1; rows <= tileRows; rows++ {
		for _, width := range []int{1, 7, 15, 16, 17, 31, 32} {
			for _, k := range []int{0, 1, 2, 5, 33, 200} {
				xs, os, line := k+r.IntN(3), width+r.IntN(3), width+r.IntN(9)
				x := normals(r, rows*xs+1)
				panel := normals(r, k*line+1)
				out := normals(r, rows*os+1)
				for _, acc := range []bool{false, true} {
					a, b := append([]float32(nil), out...), append([]float32(nil), out...)
					tileOf(a, os, x, xs, panel, line, k, rows, width, acc)
					inGo(func() { tileOf(b, os, x, xs, panel, line, k, rows, width, acc) })
					for i := range a {
						if !same(a[i], b[i]) {
							t.Fatalf("%d x %d x %d, accumulate %v: element %d: assembly %v, Go %v", rows, width, k, acc, i, a[i], b[i])
						}
						if i%os >= width && !same(a[i], out[i]) {
							t.Fatalf("%d x %d x %d: element %d beyond the width was written", rows, width, k, i)
						}
					}
				}
			}
		}
	}
}

// packRows gives the twin's bits: rows as lanes, zeros in the rest.
func TestPackRows(t *testing.T) { both(t, packsRows) }

func packsRows(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, k := range []int{1, 8, 15, 16, 17, 64, 100} {
		for _, rows := range []int{1, 2, 15, 16, 17, 31, 32} {
			stride := k + r.IntN(4)
			src := normals(r, (rows-1)*stride+k)
			got, twin := normals(r, panelLines(k)*lanes), normals(r, panelLines(k)*lanes)
			packRows(got, src, stride, k, rows)
			inGo(func() { packRows(twin, src, stride, k, rows) })
			for i := range got {
				want := float32(0)
				if c, l := i/lanes, i%lanes; c < k && l < rows {
					want = src[l*stride+c]
				}
				if got[i] != want || twin[i] != want {
					t.Fatalf("k %d, %d rows: line %d lane %d: %v, Go %v, want %v", k, rows, i/lanes, i%lanes, got[i], twin[i], want)
				}
			}
		}
	}
}
