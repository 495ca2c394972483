package train

import (
	"testing"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/ref"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/weights"
)

// A counting device adds up what is taken of it.
type counting struct {
	kernels.Backend
	bytes int64
}

func (c *counting) New(t kernels.DType, rows, cols int) kernels.Tensor {
	c.bytes += int64(t.Size()) * int64(rows) * int64(cols)
	return c.Backend.New(t, rows, cols)
}

// A scoring device is one that scores without logits too.
type scoring struct {
	*counting
	kernels.Scorer
}

// A rounding device is one that takes keys and values in BF16 too.
type rounding struct {
	*counting
	kernels.KeyRounder
}

// What Needs says is what New takes, to the byte.
func TestNeeds(t *testing.T) {
	count := &counting{Backend: ref.New()}
	t.Run("logits", func(t *testing.T) { needsOn(t, count, count, kernels.F32) })
	count = &counting{Backend: ref.New()}
	t.Run("no logits", func(t *testing.T) { needsOn(t, count, scoring{count, count.Backend.(kernels.Scorer)}, kernels.F32) })
	count = &counting{Backend: ref.New()}
	t.Run("rounded keys", func(t *testing.T) {
		needsOn(t, count, rounding{count, count.Backend.(kernels.KeyRounder)}, kernels.BF16)
	})
}

func needsOn(t *testing.T, count *counting, be kernels.Backend, acts kernels.DType) {
	for _, arch := range []string{"qwen2", "qwen3", "llama"} {
		for _, full := range []bool{false, true} {
			if full && acts != kernels.F32 {
				continue // rows are rounded where they meet frozen matrices
			}
			for _, size := range []model.Size{
				{Tokens: 7, Sequences: 3, Wanted: 5, Slice: 2},
				{Tokens: 100, Sequences: 100, Wanted: 100, Masks: true, Rank: 9},
				{Tokens: 20, Sequences: 5, Wanted: 20, Slice: 20, Keep: 1},
				{Tokens: 20, Sequences: 5, Wanted: 20, Keep: 100},
			} {
				src := modeltest.Tiny(arch, 1)
				dec, err := model.Load(be, src.Config, src, model.Options{Train: full, Acts: acts, DType: weights.BF16, Convert: acts == kernels.BF16})
				if err != nil {
					t.Fatal(err)
				}
				var ad *model.Adapter
				if !full {
					cfg := weights.AdapterConfig{R: 3, Alpha: 6}
					cfg.Targets.Names = []string{"q_proj", "down_proj"}
					a, err := model.RandomAdapter(src.Config, cfg, 2)
					if err != nil {
						t.Fatal(err)
					}
					if ad, err = dec.LoadAdapter(a); err != nil {
						t.Fatal(err)
					}
				}
				needs, err := Needs(dec, ad, size)
				if err != nil {
					t.Fatal(err)
				}
				want := int64(0)
				for _, n := range needs {
					want += n.Bytes
				}
				count.bytes = 0
				l, err := New(dec, ad, nil, size, Optimizer{})
				if err != nil {
					t.Fatal(err)
				}
				if full {
					want += 4 * int64(len(l.params)) // sums of squares
				}
				if count.bytes != want {
					t.Errorf("%s full=%v %+v: New took %d bytes, Needs said %d (%v)", arch, full, size, count.bytes, want, needs)
				}
			}
		}
	}
}

// Spend stays within what it is given, and takes all there is to take when that is enough.
func TestSpend(t *testing.T) {
	src := modeltest.Tiny("qwen3", 1)
	dec, err := model.Load(&counting{Backend: ref.New()}, src.Config, src, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a, err := model.RandomAdapter(src.Config, weights.AdapterConfig{R: 3, Alpha: 6, Targets: weights.Targets{Names: model.Modules()}}, 2)
	if err != nil {
		t.Fatal(err)
	}
	ad, err := dec.LoadAdapter(a)
	if err != nil {
		t.Fatal(err)
	}
	total := func(s model.Size) (n int64) {
		needs, err := Needs(dec, ad, s)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range needs {
			n += x.Bytes
		}
		return n
	}
	size := model.Size{Tokens: 50, Sequences: 50, Wanted: 50, Slice: 4}
	most, least := 0, 1<<30
	for spare := int64(0); spare < 1<<20; spare += 4 << 10 {
		got, err := Spend(dec, ad, size, spare)
		if err != nil || total(got) > total(size)+spare {
			t.Fatalf("with %d bytes to spare: %+v takes %d more (%v)", spare, got, total(got)-total(size), err)
		}
		most, least = max(most, got.Slice+got.Keep), min(least, got.Slice+got.Keep)
	}
	if most != 50+src.Config.Layers || least != 4 {
		t.Errorf("logits and layers kept: %d to %d, want 4 to %d", least, most, 50+src.Config.Layers)
	}
}
