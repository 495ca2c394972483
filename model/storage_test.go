package model_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/kernels/ref"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/batch"
	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/weights"
)

// recoded is a source whose matrices are stored in a type, decoded to float32 again if plain.
type recoded struct {
	model.Source
	typ   weights.DType
	plain bool
}

func (s recoded) Tensor(name string) (weights.Tensor, error) {
	t, err := s.Source.Tensor(name)
	if err != nil || len(t.Shape) != 2 {
		return t, err
	}
	c := weights.Encode(name, s.typ, t.Shape, t.Float32(nil))
	if s.plain {
		return weights.Encode(name, weights.F32, t.Shape, c.Float32(nil)), nil
	}
	return c, nil
}

// A quantised file stays quantised, and gives what its values in float32 give.
func TestQuantisedFileStaysAsItIs(t *testing.T) {
	src := modeltest.Tiny("qwen3", 5)
	src.Config.FFN = 64
	for typ, want := range map[weights.DType]kernels.DType{weights.Q8_0: kernels.Q8_0, weights.Q4_0: kernels.Q4_0} {
		for _, be := range []kernels.Backend{cpu.New(2), ref.New()} {
			kept, err := model.Load(be, src.Config, recoded{src, typ, false}, model.Options{Context: 64})
			if err != nil {
				t.Fatal(err)
			}
			plain, err := model.Load(be, src.Config, recoded{src, typ, true}, model.Options{Context: 64})
			if err != nil {
				t.Fatal(err)
			}
			if kept.Format() != (kernels.Format{Type: want}) || plain.Format() != (kernels.Format{}) {
				t.Errorf("%s: %v is held as %v, in float32 as %v", be.Name(), typ, kept.Format(), plain.Format())
			}
			a, b := logProbs(t, kept), logProbs(t, plain)
			for i := range a {
				if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
					t.Errorf("%s, %v: log-probability %d is %v, of the values in float32 %v", be.Name(), typ, i, a[i], b[i])
				}
			}
		}
	}
}

// What no product exists for is refused with the tensor, the type and a way out.
func TestRefusedFormats(t *testing.T) {
	src := modeltest.Tiny("qwen3", 5) // 40 columns in a layer's last matrix
	for want, o := range map[string]model.Options{
		"40 columns, not whole blocks":                 {Convert: true, DType: weights.Q8_0},
		"rounded to int8 only where":                   {Acts: kernels.I8},
		"rounded to bf16 only where":                   {Acts: kernels.BF16},
		"none is when all weights are trained":         {Acts: kernels.BF16, Train: true},
		"test has no matrices of q8_0":                 {Convert: true, DType: weights.Q8_0, Acts: kernels.I8},
		"test has no matrices of bf16 by bf16: choose": {Convert: true, DType: weights.BF16, Acts: kernels.BF16},
	} {
		var be kernels.Backend = cpu.New(1)
		if strings.HasPrefix(want, "test") {
			be = plainOnly{be}
		}
		if _, err := model.Load(be, src.Config, src, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
	}
}

// plainOnly is a device without weights in blocks and without rounded rows.
type plainOnly struct{ kernels.Backend }

func (plainOnly) Name() string { return "test" }

func (plainOnly) Holds(f kernels.Format) bool { return f.Acts == kernels.F32 && !f.Type.Blocks() }

// logProbs are those of a sequence.
func logProbs(t *testing.T, d *model.Decoder) []float32 {
	t.Helper()
	var b batch.Batch
	s := batch.Sequence{Tokens: []int32{3, 1, 4, 1, 5, 9, 2, 6, 53, 58, 9, 79}}
	for i := 1; i < len(s.Tokens); i++ {
		s.Predict = append(s.Predict, int32(i))
	}
	batch.Pack(&b, []batch.Sequence{s}, 100)
	p := d.NewPass(model.Size{Tokens: 16, Sequences: 1, Wanted: 16, Rank: 1})
	if err := p.Load(&b, nil, nil); err != nil {
		t.Fatal(err)
	}
	p.Forward()
	lp := make([]float32, len(s.Predict))
	if err := p.LogProbs(lp); err != nil {
		t.Fatal(err)
	}
	return lp
}

// mixed stores the keys' matrices in four bits and the others in eight.
type mixed struct{ model.Source }

func (s mixed) Tensor(name string) (weights.Tensor, error) {
	typ := weights.Q8_0
	if strings.Contains(name, "k_proj") {
		typ = weights.Q4_0
	}
	return recoded{s.Source, typ, false}.Tensor(name)
}

// What is held as float32 though the files have something smaller is known by its types.
func TestWidened(t *testing.T) {
	src := modeltest.Tiny("qwen3", 5)
	src.Config.FFN = 64
	for name, c := range map[string]struct {
		src  model.Source
		o    model.Options
		want []weights.DType
	}{
		"float32":      {src, model.Options{}, nil},
		"eight bits":   {recoded{src, weights.Q8_0, false}, model.Options{}, nil},
		"mixed":        {mixed{src}, model.Options{}, []weights.DType{weights.Q4_0, weights.Q8_0}},
		"asked for it": {mixed{src}, model.Options{Convert: true, DType: weights.F32}, nil},
	} {
		d, err := model.Load(cpu.New(1), src.Config, c.src, c.o)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(c.want)
		if !slices.Equal(d.Widened, c.want) {
			t.Errorf("%s: widened %v, want %v", name, d.Widened, c.want)
		}
	}
}
