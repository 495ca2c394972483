package predict

import (
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/weights"
)

// tiny is a model of three layers.
func tiny() *Model {
	c := Qwen7B().Config
	c.Layers, c.Hidden, c.Heads, c.KVHeads, c.HeadDim, c.FFN, c.Vocab, c.Context = 3, 64, 4, 2, 16, 96, 512, 512
	return &Model{Config: c}
}

// What two layers are extended to is what three do.
func TestDeep(t *testing.T) {
	m := tiny()
	got, err := m.deep(func(rec *Recorder, dec *model.Decoder, mark func()) error {
		dec.NewCache(4, pageSize)
		passed(rec, dec)
		mark()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	rec := NewRecorder(nil)
	dec, err := model.Load(rec, m.Config, newBlank(m.Config), model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	clear(rec.Calls)
	dec.NewCache(4, pageSize)
	passed(rec, dec)
	if len(got) != 1 || got[0].Bytes != rec.Bytes || !maps.Equal(got[0].Calls, rec.Calls) {
		t.Errorf("%v, want %d bytes and %v", got, rec.Bytes, rec.Calls)
	}
}

// passed lets a decoder do something that each layer has a part in.
func passed(rec *Recorder, dec *model.Decoder) {
	for range dec.Config.Layers {
		rec.Add(k.Tensor{Rows: 2, Cols: 8}, k.Tensor{}, k.Tensor{})
	}
	rec.Fill(k.Tensor{Rows: 1, Cols: 1}, 0)
}

// A step asks for each matrix once, for attention of all sequences in each layer, and draws; its memory is the weights, which a
// configuration says, the cache and little else.
func TestStep(t *testing.T) {
	m := tiny()
	s, err := m.Step(5, 1, 100, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for c, want := range map[Call]int{
		{"Linear", [7]int{5, (4 + 2 + 2) * 16, 64}}:      3,
		{"Linear", [7]int{5, 64, 4 * 16}}:                3,
		{"Linear", [7]int{5, 2 * 96, 64}}:                3,
		{"Linear", [7]int{5, 64, 96}}:                    3,
		{"Linear", [7]int{5, 512, 64}}:                   1,
		{"Attention", [7]int{5, 1, 99, 4, 2, 16, 1}}:     3,
		{"Sample", [7]int{5, 512}}:                       1,
		{"AttentionGrad", [7]int{5, 1, 99, 4, 2, 16, 1}}: 0,
	} {
		if s.Calls[c] != want {
			t.Errorf("%v: %d times, want %d, of %v", c, s.Calls[c], want, s.Calls)
		}
	}
	least := 0
	for _, p := range m.Parameters() {
		if len(p.Shape) == 2 {
			least += 2 * weights.Tensor{Shape: p.Shape}.Len()
		}
	}
	least += 5 * 7 * pageSize * 3 * 2 * 2 * 16 * 4 // pages of keys and values
	if s.Bytes < least || s.Bytes > least+200_000 {
		t.Errorf("%d bytes, want a little over %d", s.Bytes, least)
	}
}

// Sequences that share 40 tokens share two whole pages, of which each group of five must bring one copy.
func TestShared(t *testing.T) {
	s, err := tiny().Step(10, 1, 100, 40, 0)
	if err != nil {
		t.Fatal(err)
	}
	own, shared := [7]int{10, 1, 99, 4, 2, 16, 1}, [7]int{10, 1, 99, 4, 2, 16, 3}
	if s.Calls[Call{"Attention", shared}] != 3 || s.Calls[Call{"Attention", own}] != 0 {
		t.Errorf("asked for are %v", s.Calls)
	}
	if saved, want := attended(own)-attended(shared), 8.0*2*16*2*2*16*4; saved != want { // eight sequences, pages, rows, keys and values, heads, columns
		t.Errorf("%g bytes are saved, want %g", saved, want)
	}
	b, _ := Steps(10, 1, 100, 40)
	if same := func(i, j int) (n int) {
		for p, page := range b.Pages[i] {
			if page == b.Pages[j][p] {
				n++
			}
		}
		return n
	}; same(0, 4) != 2 || same(4, 5) != 0 || same(5, 6) != 2 {
		t.Errorf("pages are %v", b.Pages)
	}
}

// A group of five in training is two parts of one prompt: three and two.
func TestGroup(t *testing.T) {
	g := Group(PromptLen, DrawLen, Samples)
	var shared []int
	for _, s := range g {
		shared = append(shared, s.Shared)
	}
	if !slices.Equal(shared, []int{0, 511, 511, 0, 511}) {
		t.Errorf("shared are %v", shared)
	}
	tr, err := tiny().Train(8, 4, 3, 2)
	if err != nil {
		t.Fatal(err)
	}
	grads := 0
	for c, n := range tr.Backward.Calls {
		if c.Op == "AttentionGrad" {
			grads += n * c.Dims[0]
		}
	}
	if grads != 3*3 {
		t.Errorf("%d gradients of attention, want 3 sequences in 3 layers", grads)
	}
	if tr.Update.Calls[Call{"AdamW", [7]int{2, 64}}] == 0 || tr.Forward.Calls[Call{"AdamW", [7]int{2, 64}}] != 0 {
		t.Errorf("the update asks for %v", tr.Update.Calls)
	}
}

// What launches cost, by hand: sums of long rows read eight bytes and write four for each number, and multiply nothing; a product of whole
// tiles has two operations for each term and piece, and reads its weight from memory once.
func TestCosts(t *testing.T) {
	near := func(what string, got, want, by float64) {
		t.Helper()
		if !(math.Abs(got-want) <= by*want) {
			t.Errorf("%s is %g, want %g", what, got, want)
		}
	}
	for acts, pieces := range map[k.DType]float64{k.F32: 3, k.BF16: 1} {
		s, err := NewSurvey(132, acts)
		if err != nil {
			t.Fatal(err)
		}
		all, err := s.Costs(Call{"Add", [7]int{512, 1024}})
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		near("what a sum moves", all[0].Moved, 12*512*1024+32*512*1024/32, 0) // and the word of failures, a sector a warp
		near("what a sum must move", all[0].Memory, 12*512*1024, 0.01)
		near("its operations", all[0].Flops, 512*1024, 0)
		all, err = s.Costs(Call{"Linear", [7]int{64, 256, 1024}})
		if err != nil || len(all) != 2 {
			t.Fatal(all, err)
		}
		near("a product's operations", all[1].Group, 2*64*256*1024*pieces, 0)
		near("what a product must move", all[1].Memory, 2*256*1024+4*64*(256+1024), 0.01)
		if all[1].Moved < 2*256*1024 || all[1].Operands == 0 || all[1].Conflicts != 0 {
			t.Errorf("a product costs %+v", all[1])
		}
		// Tiles that blocks share come to each from the cache or from another: 32 × 1536/n of 8 steps.
		all, err = s.Costs(Call{"Linear", [7]int{1536, 4096, 512}})
		var n int
		if err != nil || len(all) != 2 || all[1].Sent == 0 {
			t.Fatal(all, err)
		} else if _, err = fmt.Sscanf(all[1].Kernel, "linear90_%d_", &n); err != nil {
			t.Fatal(err)
		}
		near("what comes to the blocks", all[1].Sent+all[1].Moved-4*1536*4096, float64(32*1536/n*8)*(16384+128*float64(n)*pieces), 0.05) // of some blocks
		if _, err := s.Costs(Call{"Divine", [7]int{}}); err == nil {
			t.Error("an operation that there is not")
		}
	}
}

// The time of a launch is that of what it needs the longest.
func TestTime(t *testing.T) {
	g := H100
	for by, c := range map[string]Cost{
		"memory":        {Blocks: 1000, Threads: 256, Memory: 3.05e9, Moved: 3.05e9},
		"L2":            {Blocks: 1000, Threads: 256, Memory: 1e9, Moved: 5.6e9},
		"matrix units":  {Blocks: 132, Threads: 384, Group: 132 * 4096 * 1.83e6},
		"instructions":  {Blocks: 1000, Threads: 128, Issued: 4 * 132 * 1.83e6},
		"shared memory": {Blocks: 1000, Threads: 128, Waves: 132 * 1.83e6},
	} {
		if s, got := g.Time(c); got != by || math.Abs(s-1e-3) > 1e-9 {
			t.Errorf("%s: %g s by %s, want 1 ms", by, s, got)
		}
	}
	// What one block of a cluster brings for others goes through their ports, and not again through the cache.
	if s, by := g.Time(Cost{Blocks: 132, Threads: 384, Moved: 1e9, Sent: 132*64*1.83e6 - 1e9}); by != "L2" || math.Abs(s-1e-3) > 1e-9 {
		t.Errorf("what is sent takes %g s by %s", s, by)
	}
	// A quarter of the multiprocessors takes four times as long; 133 blocks of the whole of one each, nearly twice.
	if s, _ := g.Time(Cost{Blocks: 33, Threads: 384, Group: 132 * 4096 * 1.83e6}); math.Abs(s-4e-3) > 1e-9 {
		t.Errorf("33 blocks: %g", s)
	}
	if s, _ := g.Time(Cost{Blocks: 133, Threads: 384, Group: 133 * 4096 * 1.83e6}); math.Abs(s-2e-3) > 1e-9 {
		t.Errorf("133 blocks: %g", s)
	}
}

// The model's least, by hand: 28 layers of 233,046,016 numbers in matrices and a head of 544,997,376, in bf16.
func TestRoof(t *testing.T) {
	m, w := Qwen7B(), Works[0]
	const matrices = 28*233_046_016 + 544_997_376
	flops, bytes := m.need(w)
	cached := 1023.0 * 28 * 2 * 512 * 4
	if bytes != 2*matrices+cached || math.Abs(flops-(2*matrices+28*4*1023.5*3584)) > 1 {
		t.Errorf("%g operations and %g bytes", flops, bytes)
	}
	if got, want := m.Rate(w, H100, 2*m.Roof(w, H100)), 50.0; math.Abs(got-want) > 1e-9 {
		t.Errorf("twice the roof's time is %g %% of it", got)
	}
}

// The page is what the numbers beside it say.
func TestPage(t *testing.T) {
	all, err := Committed()
	if err != nil || len(all) == 0 {
		t.Fatalf("%d predictions, %v", len(all), err)
	}
	page, err := os.ReadFile("../predicted.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(page) != Text(Qwen7B(), H100, all) {
		t.Error("bench/predicted.md is not what predicted.json says: run `make predicted`")
	}
	if len(find(all, Works[0].Case, "f32").Kernels) == 0 {
		t.Errorf("%s is not predicted", Works[0].Case)
	}
}

// Products of few tokens with weights in blocks of bytes take the time that 17 bytes do of the 32 of bf16: both wait for memory. The
// log has the times of a matrix of Qwen2.5-7B.
func TestStored(t *testing.T) {
	for _, rows := range []int{1, 8} {
		var took [2]float64
		for i, typ := range []k.DType{k.BF16, k.Q8_0} {
			s, err := NewSurvey(H100.Multiprocessors, k.F32)
			if err != nil {
				t.Fatal(err)
			}
			s.Stored = typ
			costs, err := s.Costs(Call{Op: "Linear", Dims: [7]int{rows, 4608, 3584}})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range costs {
				one, by := H100.Time(c)
				took[i] += one
				t.Logf("%d tokens, %v: %s takes %.1f µs, by its %s", rows, typ, c.Kernel, one*1e6, by)
			}
		}
		if share := took[1] / took[0]; !(share > 17.0/32 && share < 0.65) {
			t.Errorf("%d tokens: %.3f of bf16's time", rows, share)
		}
	}
}
