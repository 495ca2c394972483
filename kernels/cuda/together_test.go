package cuda

import (
	"math/rand/v2"
	"slices"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/ptxsim"
)

// A crowd is sequences of a decode step: how many queries each has, how many keys, and how many keys, in whole pages, it has in the
// pages of the one before it.
type crowd []struct{ queries, keys, shared int }

// attention is its operands, in pages of so many rows, or where apart those of the same numbers in pages of each sequence's own.
func (c crowd) attention(d *Device, dim, heads, kv, size int, apart bool) (out, lse, q, key, v k.Tensor, a k.Attn) {
	g := rand.New(rand.NewPCG(uint64(size), 3))
	wide, fresh := 0, 0
	for _, s := range c {
		wide = max(wide, ceil(s.keys, size))
	}
	table, starts, lengths := make([]int32, len(c)*wide), []int32{0}, []int32(nil)
	for i, s := range c {
		for p := range ceil(s.keys, size) {
			if at := i*wide + p; i > 0 && (p+1)*size <= s.shared {
				table[at] = table[at-wide]
			} else {
				table[at] = int32(fresh)
				fresh++
			}
		}
		starts, lengths = append(starts, starts[i]+int32(s.queries)), append(lengths, int32(s.keys))
	}
	places := g.Perm(2 * len(table))[:len(table)]
	content := make([][]float32, fresh)
	for i := range content {
		for range 2 * size * kv * dim {
			content[i] = append(content[i], float32(g.NormFloat64()))
		}
	}
	keys, values := make([]float32, 2*len(table)*size*kv*dim), make([]float32, 2*len(table)*size*kv*dim)
	put := func(place int, page int32) {
		half := size * kv * dim
		copy(keys[place*half:], content[page][:half])
		copy(values[place*half:], content[page][half:])
	}
	pages := make([]int32, len(table))
	for at, page := range table {
		place := places[at]
		if !apart {
			place = places[slices.Index(table, page)]
		}
		put(place, page)
		pages[at] = int32(place)
	}
	n := int(starts[len(c)])
	a = k.Attn{Heads: heads, KVHeads: kv, HeadDim: dim, Scale: 0.1, Starts: column32(d, starts...), Lengths: column32(d, lengths...),
		Pages: d.New(k.I32, len(c), wide), PageSize: size}
	for _, s := range c {
		a.MaxQueries = max(a.MaxQueries, s.queries)
	}
	d.Write(a.Pages, intBytes(pages))
	key, v = d.New(k.F32, 2*len(table)*size, kv*dim), d.New(k.F32, 2*len(table)*size, kv*dim)
	d.Write(key, floatBytes(keys))
	d.Write(v, floatBytes(values))
	return d.New(k.F32, n, heads*dim), d.New(k.F32, n, heads), random(d, g, n, heads*dim), key, v, a
}

func (c crowd) play(d *Device, dim, heads, kv, size int, apart bool) ([]byte, error) {
	out, lse, q, key, v, a := c.attention(d, dim, heads, kv, size, apart)
	d.Attention(out, lse, q, key, v, a)
	return answer(d, out, lse)
}

// group is n sequences of one query that share so many keys, of different lengths.
func group(n, shared, keys int) (c crowd) {
	for i := range n {
		c = append(c, struct{ queries, keys, shared int }{1, keys + 3*i, shared})
	}
	c[0].shared = 0
	return c
}

// Sequences whose keys are brought once for all of them have the bits of the first version, and of sequences that share nothing: in
// groups, beyond windows, of few keys and many, of several queries, in pages that fill no segment.
func TestTogether(t *testing.T) {
	two := group(4, 288, 300)
	two[2].queries = 2
	long := append(group(3, 512, 540), group(4, 256, 290)...)
	for _, c := range []struct {
		crowd
		dim, heads, kv, size int
	}{
		{long, 8, 7, 1, 16}, {two, 8, 4, 2, 32}, {group(19, 256, 258), 8, 2, 1, 64}, {group(3, 300, 304), 20, 2, 2, 50}, {group(5, 272, 272), 128, 14, 1, 16},
		{group(3, 240, 290), 8, 2, 1, 16}, {group(3, 256, 256), 8, 2, 1, 256},
	} {
		want, err := c.play(pieced(t, 3, true), c.dim, c.heads, c.kv, c.size, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, apart := range []bool{false, true} {
			got, err := c.play(pieced(t, 3, false), c.dim, c.heads, c.kv, c.size, apart)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%v in pages of %d, apart %v: other bits than the first version's (%v)", c.crowd, c.size, apart, err)
			}
		}
	}
}

// Bugs of what finds out who goes together.
var togetherMutations = []mutation{
	{"bits are cleared before they are set", "attention90_64_3", barrier, 0, "", playTogether, race},
	{"bits are read before they are cleared", "attention90_64_3", barrier, 1, "", playTogether, race},
	{"all go together", "attention90_64_3", `red\.shared\.and\.b32[^;]*;`, 0, "", playTogether, "outside the keys"},
	{"pages are not compared", "attention90_64_3", `(ld\.global\.u32\s+)(%r\d+)(, \[%rd\d+\];\s+ld\.global\.u32\s+)(%r\d+)(, \[%rd\d+\];\s+setp\.eq\.s32\s+%p\d+, )%r\d+, %r\d+;`, 0,
		"${1}${2}${3}${4}${5}${2}, ${2};", playTogether, otherAnswer},
	{"one that sees a part goes too", "attention90_64_3", `add\.s32(\s+%r\d+, %r\d+), 256;`, 0, "add.s32${1}, 200;", playTogether, otherAnswer},
	{"rows see a part", "attention90_64_3", `add\.s32(\s+%r\d+, %r\d+), 256;`, 1, "add.s32${1}, 200;", playTogether, otherAnswer},
	{"the last one is left out", "attention90_64_3", `(popc\.b32\s+%r\d+, %r\d+;\s+add\.s32\s+%r\d+, %r\d+, )1;`, 0, "${1}0;", playTogether, otherAnswer},
	{"the bits are not the sequence's own", "attention90_64_3", `shr\.u32(\s+%r\d+, %r\d+), %r\d+;`, 0, "shr.u32${1}, 0;", playTogether, "which block 4 of the launch writes"},
}

func TestTogetherMutations(t *testing.T) { plantAll(t, 90, togetherMutations) }

// playTogether has sequences that leave a group for every reason there is.
func playTogether(_ *testing.T, d *Device) ([]byte, error) {
	c := crowd{{1, 300, 0}, {1, 303, 256}, {1, 250, 256}, {1, 306, 256}, {1, 309, 256}, {1, 290, 128}, {2, 300, 256}, {1, 293, 256}}
	return c.play(d, 8, 2, 1, 16, false)
}

// Five sequences that share two segments of three bring 7 segments, and not 15.
func TestTogetherBringsOnce(t *testing.T) {
	brought := map[bool]int{}
	for _, apart := range []bool{true, false} {
		var all []ptxsim.Counts
		sim := ptxsim.New(ptxsim.Options{Capability: 90, Count: func(c ptxsim.Counts) { all = append(all, c) }})
		d, err := On(sim, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := group(5, 512, 700).play(d, 64, 7, 1, 16, apart); err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			if c.Kernel == "attention90_64_3" {
				brought[apart] += c.Read.Useful
			}
		}
	}
	const key = 2 * 64 * 4 // and its value
	saved, want := brought[true]-brought[false], 4*512*key
	if off := saved - want; off < -want/20 || off > want/20 {
		t.Errorf("%d bytes are read where nothing is shared, and %d: %d less, want about %d", brought[true], brought[false], saved, want)
	}
}
