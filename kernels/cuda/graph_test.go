package cuda

import (
	"math/rand/v2"
	"slices"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
)

// A decode step recorded once and launched on other inputs, at other positions, gives the bits of its
// operations called one by one; scratch memory may have grown in between.
func TestGraphReplays(t *testing.T) {
	d := simulated(t)
	if err := d.Attach(); err != nil {
		t.Fatal(err)
	}
	defer d.Detach()
	g := rand.New(rand.NewPCG(3, 4))
	const sequences, hidden, keys = 3, 32, 700
	weight := make([]float32, 48*hidden)
	for i := range weight {
		weight[i] = float32(g.NormFloat64())
	}
	w, norm := d.Load(k.Format{Type: k.F32}, 48, hidden, floatBytes(weight)), random(d, g, 1, hidden)
	half := make([]byte, 0, 2*96*hidden)
	for range 96 * hidden {
		half = append(half, floatBytes([]float32{float32(g.NormFloat64())})[2:]...)
	}
	head := d.Load(k.Format{Type: k.BF16}, 96, hidden, half)
	kc, vc := random(d, g, keys, 16), random(d, g, keys, 16)
	starts, lengths, slots := column32(d, 0, 1, 2, 3), column32(d, 1, 1, 1), column32(d, 0, 0, 0)
	pages := d.New(k.I32, sequences, keys/sequences/7)
	table := make([]int32, pages.Rows*pages.Cols)
	for i := range table {
		table[i] = int32(i)
	}
	d.Write(pages, intBytes(table))
	x, xn, qkv, att := d.New(k.F32, sequences, hidden), d.New(k.F32, sequences, hidden), d.New(k.F32, sequences, 48), d.New(k.F32, sequences, 16)
	logits, u := d.New(k.F32, sequences, 96), random(d, g, sequences, 1)
	ids, lp := d.New(k.I32, sequences, 1), d.New(k.F32, sequences, 1)
	d.Fill(u, 0.4)
	step := func() {
		d.RMSNorm(xn, x, norm, 1e-6)
		d.Linear(qkv, xn, w, k.Tensor{})
		d.Scatter(kc, qkv.Columns(16, 16), slots)
		d.Scatter(vc, qkv.Columns(32, 16), slots)
		d.Attention(att, k.Tensor{}, qkv.Columns(0, 16), kc, vc, k.Attn{Heads: 2, KVHeads: 2, HeadDim: 8, Scale: 0.3, Starts: starts,
			Lengths: lengths, Pages: pages, PageSize: 7, MaxQueries: 1})
		d.Copy(xn.Columns(0, 16), att)
		d.Linear(logits, xn, head, k.Tensor{})
		d.Sample(ids, lp, logits, u, k.Dist{})
	}
	graph, err := d.Capture(step)
	if err != nil {
		t.Fatal(err)
	}
	defer graph.Free()
	for n := range 3 {
		at := []int32{int32(1 + n), int32(30 + n), int32(200 + 13*n)}
		var rows []int32
		for s, l := range at {
			rows = append(rows, table[s*pages.Cols+int(l-1)/7]*7+(l-1)%7)
		}
		input := random(d, g, sequences, hidden)
		d.Write(lengths, intBytes(at))
		d.Write(slots, intBytes(rows))
		var got [2][]byte
		for i, play := range []func(){graph.Launch, step} {
			d.Copy(x, input)
			d.Fill(logits, 0)
			play()
			got[i] = bits(t, d, att, logits, ids, lp)
		}
		if !slices.Equal(got[0], got[1]) {
			t.Errorf("step %d: the recording and its operations differ", n)
		}
		d.SumSquares(d.New(k.F32, 1, 1), d.New(k.F32, 1000, 100<<n)) // scratch grows
	}
}
