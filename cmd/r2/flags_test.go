package main

import (
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/weights"
)

// --dtype and --activations are the loading options that they say; what does not go together is told so.
func TestLoadingFlags(t *testing.T) {
	for _, c := range []struct {
		dtype, acts string
		want        model.Options
		says        string
	}{
		{"auto", "auto", model.Options{}, ""},
		{"auto", "int8", model.Options{Acts: kernels.I8}, ""},
		{"auto", "bf16", model.Options{Acts: kernels.BF16}, ""},
		{"f32", "auto", model.Options{Convert: true, DType: weights.F32}, ""},
		{"bf16", "auto", model.Options{Convert: true, DType: weights.BF16}, ""},
		{"bf16", "bf16", model.Options{Convert: true, DType: weights.BF16, Acts: kernels.BF16}, ""},
		{"int8", "auto", model.Options{Convert: true, DType: weights.Q8_0, Acts: kernels.I8}, ""},
		{"int8", "f32", model.Options{Convert: true, DType: weights.Q8_0}, ""},
		{"int4", "auto", model.Options{Convert: true, DType: weights.Q4_0, Acts: kernels.I8}, ""},
		{"int4", "bf16", model.Options{}, "go with --dtype bf16"},
		{"f32", "bf16", model.Options{}, "go with --dtype bf16"},
		{"bf16", "int8", model.Options{}, "go with --dtype int8 or int4"},
		{"f16", "auto", model.Options{}, "--dtype f16: want"},
		{"auto", "int4", model.Options{}, "--activations int4: want"},
	} {
		got, err := deviceFlags{DType: c.dtype, Acts: c.acts}.options()
		switch {
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s, %s: %v does not say %q", c.dtype, c.acts, err, c.says)
		case c.says == "" && (err != nil || got != c.want):
			t.Errorf("%s, %s: %+v, %v; want %+v", c.dtype, c.acts, got, err, c.want)
		}
	}
}
