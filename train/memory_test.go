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

// What Needs says is what New takes, to the byte.
func TestNeeds(t *testing.T) {
	for _, arch := range []string{"qwen2", "qwen3", "llama"} {
		for _, full := range []bool{false, true} {
			for _, size := range []model.Size{
				{Tokens: 7, Sequences: 3, Wanted: 5, Slice: 2},
				{Tokens: 100, Sequences: 100, Wanted: 100, Masks: true, Rank: 9},
				{Tokens: 20, Sequences: 5, Wanted: 20, Slice: 20, Keep: 1},
				{Tokens: 20, Sequences: 5, Wanted: 20, Keep: 100},
			} {
				be := &counting{Backend: ref.New()}
				src := modeltest.Tiny(arch, 1)
				dec, err := model.Load(be, src.Config, src, model.Options{Train: full})
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
				be.bytes = 0
				l, err := New(dec, ad, nil, size, Optimizer{})
				if err != nil {
					t.Fatal(err)
				}
				if full {
					want += 4 * int64(len(l.params)) // sums of squares
				}
				if be.bytes != want {
					t.Errorf("%s full=%v %+v: New took %d bytes, Needs said %d (%v)", arch, full, size, be.bytes, want, needs)
				}
			}
		}
	}
}
