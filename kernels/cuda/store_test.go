package cuda

import (
	"fmt"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
)

// Bugs of rope_store.
var storeMutations = []mutation{
	{"the sine's sign", "rope_store", `neg\.f32(\s+%f\d+, %f\d+);`, 0, "mov.f32${1};", playStore, otherAnswer},
	{"both halves of a key at one place", "rope_store", `(st\.global\.f32\s+\[%rd\d+\], %f\d+;\s+add\.s64\s+%rd\d+, %rd\d+), %rd\d+;`, 0, "${1}, 0;", playStore, otherAnswer},
	{"a key without a place is stored", "rope_store", `or\.pred(\s+%p\d+), %p\d+, (%p\d+);`, 1, "or.pred${1}, ${2}, ${2};", playStore, bounds},
	{"a value without a place is stored", "rope_store", `or\.pred(\s+%p\d+), (%p\d+), %p\d+;`, 2, "or.pred${1}, ${2}, ${2};", playStore, bounds},
	{"positions have no end", "rope_store", `and\.pred(\s+%p\d+), (%p\d+), %p\d+;`, 1, "and.pred${1}, ${2}, ${2};", playStore, bounds},
	{"the cache has no end", "rope_store", `or\.pred(\s+%p\d+), %p\d+, %p\d+;`, 0, "setp.eq.u32${1}, 0, 0;", playStore, bounds},
	{"a failure names no row", "rope_store", `mul\.wide\.u32(\s+%rd\d+, %r\d+), 256;`, 1, "mul.wide.u32${1}, 0;", playStore, otherAnswer},
}

func TestStoreMutations(t *testing.T) { plantAll(t, 80, storeMutations) }

// playStore stores, and then at a position and a place that there are not.
func playStore(_ *testing.T, d *Device) ([]byte, error) {
	const dim, rows = 6, 5
	g := source()
	qk, v, kc, vc := random(d, g, rows, 3*dim), random(d, g, rows, dim), random(d, g, 4, dim), random(d, g, 4, dim)
	r := k.Rotary{HeadDim: dim, Table: random(d, g, 9, dim)}
	store := func(pos, at []int32) error {
		d.RoPEStore(qk, v, column32(d, pos...), r, kc, vc, column32(d, at...))
		return d.Sync()
	}
	if err := store([]int32{0, 8, 3, 3, 1}, []int32{2, -3, 0, 3, -1}); err != nil {
		return nil, err
	}
	all, err := answer(d, qk, kc, vc)
	for _, at := range [][2]int32{{9, 1}, {2, 4}} {
		if e := store([]int32{0, 0, 0, 0, at[0]}, []int32{2, 0, -1, 3, at[1]}); d.lost != nil {
			return nil, e
		} else {
			all = fmt.Append(all, e)
		}
	}
	return all, err
}
