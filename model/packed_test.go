package model_test

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/weights"
)

// rowsOnly is a source that has no matrices.
type rowsOnly struct{ model.Source }

func (s rowsOnly) Tensor(name string) (weights.Tensor, error) {
	t, err := s.Source.Tensor(name)
	if err == nil && len(t.Shape) == 2 {
		err = errors.New("a matrix was read")
	}
	return t, err
}

// A decoder on packed matrices gives the bits of the one they were packed for, and reads no others.
func TestPackedMatricesAreTheMatrices(t *testing.T) {
	src := modeltest.Tiny("qwen3", 5)
	src.Config.FFN = 64
	be := cpu.New(2)
	for _, o := range []model.Options{
		{}, {Convert: true, DType: weights.BF16}, {Convert: true, DType: weights.BF16, Acts: kernels.BF16},
		{Convert: true, DType: weights.Q8_0, Acts: kernels.I8}, {Convert: true, DType: weights.Q4_0},
	} {
		o.Context = 64
		path := filepath.Join(t.TempDir(), "packed")
		var files weights.Model
		o.Packed = files.Packed(path, "a key")
		made, err := model.Load(be, src.Config, src, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.Packed.Save(); err != nil {
			t.Fatal(err)
		}
		o.Packed = files.Packed(path, "a key")
		mapped, err := model.Load(be, src.Config, rowsOnly{src}, o)
		if err != nil {
			t.Fatalf("%+v: %v", o, err)
		}
		if made.Format() != mapped.Format() {
			t.Errorf("%v mapped as %v", made.Format(), mapped.Format())
		}
		a, b := logProbs(t, made), logProbs(t, mapped)
		for i := range a {
			if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
				t.Fatalf("%v: log-probability %d is %v packed, %v mapped", made.Format(), i, a[i], b[i])
			}
		}
		if err := files.Close(); err != nil {
			t.Error(err)
		}
		if err := os.Truncate(path, 100); err != nil {
			t.Fatal(err)
		}
		o.Packed = files.Packed(path, "a key")
		if _, err := model.Load(be, src.Config, src, o); err != nil {
			t.Errorf("%v: a damaged file stopped the model: %v", made.Format(), err)
		}
		files.Close()
	}
}

// Matrices of another shape than the model's are packed anew.
func TestPackedOfAnotherShape(t *testing.T) {
	src := modeltest.Tiny("llama", 5)
	be := cpu.New(1)
	var files weights.Model
	path := filepath.Join(t.TempDir(), "packed")
	o := model.Options{Context: 64, Packed: files.Packed(path, "a key")}
	for _, module := range []string{"model.embed_tokens", "lm_head"} {
		o.Packed.Add(module, "f32", make([]byte, 64))
	}
	if err := o.Packed.Save(); err != nil {
		t.Fatal(err)
	}
	o.Packed = files.Packed(path, "a key")
	got, err := model.Load(be, src.Config, src, o)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := model.Load(be, src.Config, src, model.Options{Context: 64})
	if err != nil {
		t.Fatal(err)
	}
	a, b := logProbs(t, got), logProbs(t, plain)
	for i := range a {
		if a[i] != b[i] {
			t.Fatalf("log-probability %d is %v, want %v", i, a[i], b[i])
		}
	}
}
