package bench_test

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"testing"

	"github.com/r2-reasoner/r2/bench"
	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/weights"
)

// tiny is the random model of the tests on two threads, with a roof that is given, not measured.
func tiny(t testing.TB, repeat int) *bench.Subject {
	t.Helper()
	be := cpu.New(2)
	src := modeltest.Tiny("llama", 1)
	dec, err := model.Load(be, src.Config, src, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return &bench.Subject{Name: "tiny", Decoder: dec, Threads: 2, Roof: bench.Roof{Flops: 1e11, Bytes: 1e10}, Repeat: repeat}
}

var small = bench.Load{Prompt: 24, Tokens: 4, Samples: 3, Prompts: 2}

// measure runs every benchmark of a subject.
func measure(t *testing.T, s *bench.Subject) (rows []bench.Row) {
	t.Helper()
	ctx := context.Background()
	for _, f := range []func() ([]bench.Row, error){
		func() ([]bench.Row, error) { return s.Kernels(ctx) },
		func() ([]bench.Row, error) { r, err := s.Prefill(ctx, small); return []bench.Row{r}, err },
		func() ([]bench.Row, error) { r, err := s.Decode(ctx, small); return []bench.Row{r}, err },
		func() ([]bench.Row, error) { r, err := s.Group(ctx, small); return []bench.Row{r}, err },
		func() ([]bench.Row, error) { return s.GRPO(ctx, small) },
	} {
		r, err := f()
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, r...)
	}
	return rows
}

// Every row says what was measured, and its numbers belong together.
func TestRows(t *testing.T) {
	const repeat = 3
	count := map[string]int{}
	for _, r := range measure(t, tiny(t, repeat)) {
		count[r.Bench]++
		if r.Case == "" || r.Model != "tiny" || r.DType != "f32" || r.Device == "" || r.Threads != 2 || r.Unit == "" {
			t.Errorf("a row does not say what it is: %+v", r)
		}
		if len(r.Each) != repeat {
			t.Fatalf("%s %s: %d runs, want %d", r.Bench, r.Case, len(r.Each), repeat)
		}
		above, below := 0, 0
		for _, s := range r.Each {
			if s >= r.Seconds {
				above++
			}
			if s <= r.Seconds {
				below++
			}
		}
		if !(r.Seconds > 0) || above < 2 || below < 2 {
			t.Errorf("%s %s: %v is not the median of %v", r.Bench, r.Case, r.Seconds, r.Each)
		}
		if !(r.Reached > 0) || r.Bound < 0 || r.Bound > 0 && math.Abs(r.Share*r.Bound/r.Reached-1) > 1e-9 {
			t.Errorf("%s %s: reached %v of %v is a share of %v", r.Bench, r.Case, r.Reached, r.Bound, r.Share)
		}
		if _, err := json.Marshal(r); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"prefill", "decode", "group"} {
		if count[name] != 1 {
			t.Errorf("%d rows of %s, want 1", count[name], name)
		}
	}
	if count["grpo"] != 6 || count["kernels"] < 20 {
		t.Errorf("%d rows of grpo, want 6; %d of kernels, want at least 20", count["grpo"], count["kernels"])
	}
}

// The bound of a model computed by hand: two layers of 32, 4 and 2 heads of 8, 40 wide, 96 ids.
func TestBounds(t *testing.T) {
	s := tiny(t, 1)
	const layer = 32*32 + 2*32*16 + 32*32 + 3*32*40 // q, k and v, o, and gate, up, down
	const bytes = 4 * (2*layer + 96*32)             // with the head
	ctx := context.Background()

	s.Roof = bench.Roof{Flops: math.Inf(1), Bytes: bytes} // one second to read all weights
	row, err := s.Prefill(ctx, small)
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(row.Bound-24) > 1e-9 {
		t.Errorf("prefill of 24 in the time the weights take to read: bound %v tokens/s, want 24", row.Bound)
	}

	const flops = 2*2*layer*24 + 2*96*32 + 4*32*2*(24*25/2) // matrices, one row of logits, scores and sums
	s.Roof = bench.Roof{Flops: flops, Bytes: math.Inf(1)}
	if row, err = s.Prefill(ctx, small); err != nil {
		t.Fatal(err)
	}
	if math.Abs(row.Bound-24) > 1e-9 {
		t.Errorf("prefill of 24 in the time of its arithmetic: bound %v tokens/s, want 24", row.Bound)
	}

	cache := 0.0 // four steps of three samples read the prompt once and what each drew
	for i := 1; i <= 4; i++ {
		cache += float64((24 + 3*i) * 2 * 2 * 16 * 4)
	}
	s.Roof = bench.Roof{Flops: math.Inf(1), Bytes: 5*bytes + cache}
	if row, err = s.Group(ctx, small); err != nil {
		t.Fatal(err)
	}
	if math.Abs(row.Bound-12) > 1e-9 {
		t.Errorf("a group of 3 × 4 tokens: bound %v tokens/s, want 12", row.Bound)
	}
}

// What cannot run is refused before anything runs.
func TestRefuses(t *testing.T) {
	s := tiny(t, 1)
	ctx := context.Background()
	if _, err := s.Prefill(ctx, bench.Load{Prompt: 512}); err == nil {
		t.Error("a prompt as long as the context: no error")
	}
	if _, err := s.Group(ctx, bench.Load{Prompt: 8, Tokens: 4}); err == nil {
		t.Error("no samples: no error")
	}
	if _, err := s.GRPO(ctx, bench.Load{Prompt: 8, Tokens: 4, Samples: 1, Prompts: 1}); err == nil {
		t.Error("a group of one: no error")
	}
	s.Repeat = 0
	if _, err := s.Decode(ctx, small); err == nil {
		t.Error("no runs: no error")
	}
}

func TestShapes(t *testing.T) {
	want := map[string]int{"smollm2-135m": 134515008, "qwen2.5-0.5b": 494032768, "qwen2.5-1.5b": 1543714304,
		"qwen2.5-3b": 3085938688, "qwen2.5-7b": 7615616512} // parameters, as their publishers count them
	for name, c := range bench.Shapes() {
		n := 0
		for _, p := range c.Parameters() {
			size := 1
			for _, d := range p.Shape {
				size *= d
			}
			n += size
		}
		if n != want[name] {
			t.Errorf("%s has %d parameters, want %d", name, n, want[name])
		}
	}
}

func BenchmarkPrefill(b *testing.B) {
	run(b, "prefill", bench.Load{Prompt: 256}, func(s *bench.Subject, l bench.Load) ([]bench.Row, error) {
		r, err := s.Prefill(context.Background(), l)
		return []bench.Row{r}, err
	})
}

func BenchmarkDecode(b *testing.B) {
	run(b, "decode", bench.Load{Prompt: 16, Tokens: 64}, func(s *bench.Subject, l bench.Load) ([]bench.Row, error) {
		r, err := s.Decode(context.Background(), l)
		return []bench.Row{r}, err
	})
}

func BenchmarkGroup(b *testing.B) {
	run(b, "group", bench.Load{Prompt: 64, Tokens: 32, Samples: 16}, func(s *bench.Subject, l bench.Load) ([]bench.Row, error) {
		r, err := s.Group(context.Background(), l)
		return []bench.Row{r}, err
	})
}

func BenchmarkGRPO(b *testing.B) {
	run(b, "grpo", bench.Load{Prompt: 32, Tokens: 16, Samples: 4, Prompts: 2}, func(s *bench.Subject, l bench.Load) ([]bench.Row, error) {
		return s.GRPO(context.Background(), l)
	})
}

// run has a measurement repeat itself b.N times and reports the median of its last row. The model is
// tiny, or $R2_BENCH_MODEL in $R2_BENCH_DTYPE (f32 or bf16) under the default load, to be profiled.
func run(b *testing.B, name string, l bench.Load, f func(*bench.Subject, bench.Load) ([]bench.Row, error)) {
	s := tiny(b, b.N)
	if path := os.Getenv("R2_BENCH_MODEL"); path != "" {
		s, l = opened(b, path), bench.Default(name)
		s.Repeat = b.N
	}
	b.ResetTimer()
	rows, err := f(s, l)
	if err != nil {
		b.Fatal(err)
	}
	row := rows[len(rows)-1]
	b.ReportMetric(row.Seconds*1e9, "ns/op") // without what it takes to set up
	b.ReportMetric(row.Reached, row.Unit)
}

// opened opens a model.
func opened(b *testing.B, path string) *bench.Subject {
	m, err := weights.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { m.Close() })
	o := model.Options{Convert: true, DType: weights.F32}
	if os.Getenv("R2_BENCH_DTYPE") == "bf16" {
		o.DType = weights.BF16
	}
	if os.Getenv("R2_BENCH_ACTIVATIONS") == "bf16" {
		o.Acts = kernels.BF16
	}
	dec, err := model.Load(cpu.New(2), m.Config, m, o)
	if err != nil {
		b.Fatal(err)
	}
	return &bench.Subject{Name: path, Decoder: dec, Threads: 2, Roof: bench.Roof{Flops: 1e11, Bytes: 1e10}}
}
