package cuda

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/ptxsim"
)

// A product's bits depend on no plan: tiles of any number of tokens, whole, in parts of one segment and of two, by as many
// blocks as there are parts and by few. K is three segments, the last of two steps, or two.
func TestPlansChangeNoBit(t *testing.T) {
	const n = 150
	for _, tokens := range tokens90 {
		for _, pieces := range []int{1, 3} {
			if tokens > 32 && pieces == 3 != (tokens == 64) {
				continue // slow to simulate: of the large tiles each once
			}
			t.Run(fmt.Sprint(tokens, " tokens, ", pieces, " pieces"), func(t *testing.T) {
				rows, in, segments := tokens+5, 1100, 3
				if tokens > 32 {
					in, segments = 600, 2
				}
				g := rand.New(rand.NewPCG(uint64(tokens), 2))
				d := simulatedAs(t, ptxsim.Options{Order: ptxsim.Orders[g.IntN(len(ptxsim.Orders))]})
				d.pieces = pieces
				raw := make([]byte, 0, 2*n*in)
				for range n * in {
					raw = append(raw, floatBytes([]float32{float32(g.NormFloat64())})[2:]...)
				}
				w, x, bias, out := d.Load(k.Format{Type: k.BF16}, n, in, raw), random(d, g, rows, in), random(d, g, 1, n), d.New(k.F32, rows, n)
				d.naive = true
				d.Linear(out, x, w, bias)
				want := bits(t, d, out)
				all := 2 * 2 * segments // of tiles of 128 outputs × tokens
				parts := 4 * 128 * tokens * all
				plans := []clusters90{{plan90{tokens, segments, 3, 0}, alone}, {plan90{tokens, 5, ceil(all, 5), parts}, alone}, {plan90{tokens, 1, all, parts}, alone}, {plan90{tokens, 2, all / 2, parts}, alone}}
				if tokens > 32 {
					plans = plans[:2]
				}
				plans = append(plans, sharedPlans(tokens, segments)...)
				for _, p := range plans {
					d.Fill(out, 7)
					d.linear90By(p, out, x, w, bias, k.Ending{})
					if !slices.Equal(bits(t, d, out), want) {
						t.Errorf("%+v: other bits than the first version's", p)
					}
				}
			})
		}
	}
}

// sharedPlans are of clusters for 2 × 2 tiles, some of whose blocks have none: whole tiles by as many clusters as there are and by fewer,
// and parts.
func sharedPlans(tokens, segments int) (all []clusters90) {
	for i, of := range shares[1:] {
		if tokens/tileRows%of.wide != 0 {
			continue
		}
		tiles := ceil(2, of.wide) * ceil(2, of.high)
		all = append(all, clusters90{plan90{tokens, segments, 1, 0}, of})
		if tokens <= 32 || i == 0 {
			each := []int{2, 1, 2}[i]
			all = append(all, clusters90{plan90{tokens, each, ceil(tiles*segments, each), 4 * 128 * tokens * tiles * of.blocks() * segments}, of})
		}
	}
	return all
}

// Rows are packed by as few times as there is room for, nearly as many each.
func TestRowsPacked(t *testing.T) {
	for _, pieces := range []int{1, 3} {
		d := &Device{pieces: pieces}
		most := 6144 / pieces
		for _, rows := range []int{0, 1, 128, 129, 2048, 2049, 6142, 6144, 6145, 8192, 100_000} {
			n := d.rowsPacked(rows)
			if n%128 != 0 || n > most || rows > 0 && (ceil(rows, n) != ceil(rows, most) || n*ceil(rows, n) >= rows+128*ceil(rows, n)) {
				t.Errorf("%d rows of %d pieces: %d at a time", rows, pieces, n)
			}
		}
	}
}

// The products of a decoder of 7B parameters: hidden 3584, 4608 of queries, keys and values, 18944 of gate and of up,
// a vocabulary of 152064.
var shapes7B = [][2]int{{4608, 3584}, {3584, 3584}, {37888, 3584}, {3584, 18944}, {152064, 3584}}

// On 132 multiprocessors no plan of these products leaves many without work for long, for few tokens and for many: what
// the busiest does is at most twice its share, and the parts of tiles fit where they meet.
func TestPlans(t *testing.T) {
	for _, pieces := range []int{1, 3} {
		d := &Device{processors: 132, clusters: [mostShare + 1]int{1: 132, 2: 66, 4: 32}, pieces: pieces}
		for _, s := range shapes7B {
			for _, rows := range []int{1, 2, 8, 9, 44, 64, 100, 256, 1000, 2048, 4096} {
				outputs, wide := s[0], ceil(s[1], tileCols)
				p := d.plan90(rows, outputs, wide, tokens90[:])
				segments := ceil(ceil(wide, stepTiles), segmentSteps)
				all := ceil(outputs, 128) * ceil(rows, p.tokens) * segments
				together := ceil(outputs, 128*p.of.wide) * ceil(rows, p.tokens*p.of.high) * segments // of clusters
				busiest := ceil(together, p.each*p.blocks) * p.each
				if p.each%segments != 0 && p.each*p.blocks < together || p.each%segments != 0 && p.parts != 4*128*p.tokens*together*p.of.blocks() {
					t.Errorf("%v, %d tokens: %+v leaves work undone", s, rows, p)
				}
				if 132*busiest > 2*all || p.blocks > d.clusters[p.of.blocks()] || p.parts > mostParts || p.parts > 0 && together/segments*p.of.blocks() > mostMeetings {
					t.Errorf("%v, %d tokens, %d pieces: %+v: the busiest has %d of %d segments", s, rows, pieces, p, busiest, all)
				}
			}
		}
	}
}
