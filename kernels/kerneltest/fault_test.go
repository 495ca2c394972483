package kerneltest_test

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
	"os/exec"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/kernels/kerneltest"
)

// faults are devices with one thing wrong each, and the check that must see it.
var faults = []struct {
	name, check string
	device      func(k.Backend) k.Backend
}{
	{"New leaves what was there", "New/zeros", func(b k.Backend) k.Backend { return newDirty{b} }},
	{"Attach does not wait", "Attach/waits", func(b k.Backend) k.Backend { return everybodys{b} }},
	{"Fill leaves its view", "Fill/values", func(b k.Backend) k.Backend { return fillWide{b} }},
	{"failures are lost", "failures", func(b k.Backend) k.Backend { return lost{b} }},
	{"failures do not say where", "failures", func(b k.Backend) k.Backend { return vague{b} }},
	{"an answer depends on the number of rows", "Linear/laws", func(b k.Backend) k.Backend { return linearByRows{b} }},
	{"a row's NaN reaches others", "RMSNorm/laws", func(b k.Backend) k.Backend { return leaks{b} }},
	{"eps is forgotten", "RMSNorm/special", func(b k.Backend) k.Backend { return noEps{b} }},
	{"a sum misses its last term", "MatMul/values", func(b k.Backend) k.Backend { return shortSum{b} }},
	{"Accumulate is forgotten", "MatMul/continued", func(b k.Backend) k.Backend { return overwrites{b} }},
	{"Inverse is forgotten", "RoPE/values", func(b k.Backend) k.Backend { return forward{b} }},
	{"the scale is wrong by 10⁻⁴", "Attention/values", func(b k.Backend) k.Backend { return scaled{b} }},
	{"a sequence depends on others", "Attention/one_answer", func(b k.Backend) k.Backend { return attentionByCompany{b} }},
	{"shared pages change an answer", "Attention/group", func(b k.Backend) k.Backend { return attentionByPages{b} }},
	{"Scatter does not skip", "Scatter/values", func(b k.Backend) k.Backend { return allRows{b} }},
	{"the temperature is forgotten", "LogProb/values", func(b k.Backend) k.Backend { return lukewarm{b} }},
	{"what the mask forbids counts", "Entropy/values", func(b k.Backend) k.Backend { return unmasked{b} }},
	{"0 samples", "Sample/greedy", func(b k.Backend) k.Backend { return lukewarm{b} }},
	{"the mask is forgotten", "Sample/definition", func(b k.Backend) k.Backend { return unmasked{b} }},
	{"the uniform number is off by 1 %", "Sample/definition", func(b k.Backend) k.Backend { return skewed{b} }},
	{"the uniform number is not", "Sample/frequencies", func(b k.Backend) k.Backend { return squared{b} }},
	{"a log-probability is off by one ulp", "Sample/log-probability", func(b k.Backend) k.Backend { return lpOff{b} }},
	{"a gradient overwrites", "SwiGLUGrad/values", func(b k.Backend) k.Backend { return sets{b} }},
	{"dw is forgotten", "RMSNormGrad/values", func(b k.Backend) k.Backend { return noDW{b} }},
	{"dk and dv are exchanged", "AttentionGrad/values", func(b k.Backend) k.Backend { return exchanged{b} }},
	{"shared keys get no gradient from others", "AttentionGrad/shared_keys", func(b k.Backend) k.Backend { return selfish{b} }},
	{"rows are summed from the last", "SumRows/laws", func(b k.Backend) k.Backend { return backwards{b} }},
	{"an input is changed", "SumSquares/values", func(b k.Backend) k.Backend { return eats{b} }},
	{"every step is the first", "AdamW/steps", func(b k.Backend) k.Backend { return firstStep{b} }},
}

// The suite fails each faulty device. It runs in a process of its own, since its failure is the success.
func TestSeesFaults(t *testing.T) {
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestFaulty$/^"+f.check, "-test.count=1")
			cmd.Env = append(os.Environ(), "R2_FAULT="+f.name, "R2_SEED=1")
			out, err := cmd.CombinedOutput()
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
				t.Errorf("%s passes a device where %s (%v):\n%s", f.check, f.name, err, out)
			}
		})
	}
}

// TestFaulty is what TestSeesFaults runs.
func TestFaulty(t *testing.T) {
	name, ok := os.LookupEnv("R2_FAULT")
	if !ok {
		t.Skip("run by TestSeesFaults")
	}
	for _, f := range faults {
		if f.name == name {
			kerneltest.Run(t, func(t *testing.T) k.Backend {
				d := cpu.New(1)
				t.Cleanup(d.Close)
				return f.device(d)
			})
		}
	}
}

// edit changes the floats of t through the host.
func edit(be k.Backend, t k.Tensor, f func(v float32) float32) {
	raw := make([]byte, 4*t.Rows*t.Cols)
	if err := be.Read(raw, t); err != nil {
		panic(err)
	}
	for i := 0; i < len(raw); i += 4 {
		v := math.Float32frombits(binary.LittleEndian.Uint32(raw[i:]))
		binary.LittleEndian.PutUint32(raw[i:], math.Float32bits(f(v)))
	}
	be.Write(t, raw)
}

func ulp(v float32) float32 { return math.Nextafter32(v, 10) }

type newDirty struct{ k.Backend }

func (d newDirty) New(typ k.DType, rows, cols int) k.Tensor {
	t := d.Backend.New(typ, rows, cols)
	d.Fill(t, 1)
	return t
}

type everybodys struct{ k.Backend }

func (everybodys) Attach() error { return nil }
func (everybodys) Detach()       {}

type fillWide struct{ k.Backend }

func (d fillWide) Fill(t k.Tensor, v float32) {
	t.Cols = t.Stride - t.Off%t.Stride
	d.Backend.Fill(t, v)
}

type lost struct{ k.Backend }

func (d lost) Read(dst []byte, src k.Tensor) error {
	_ = d.Backend.Sync()
	return d.Backend.Read(dst, src)
}

type vague struct{ k.Backend }

func (d vague) Read(dst []byte, src k.Tensor) error {
	if d.Backend.Read(dst, src) != nil {
		return errors.New("LogProb or Sample: not finite")
	}
	return nil
}

type linearByRows struct{ k.Backend }

func (d linearByRows) Linear(out, x k.Tensor, w k.Weight, bias k.Tensor) {
	if d.Backend.Linear(out, x, w, bias); out.Rows > 16 {
		edit(d, out.Slice(out.Rows-1, 1), ulp)
	}
}

type leaks struct{ k.Backend }

func (d leaks) RMSNorm(out, x, w k.Tensor, eps float32) {
	sum := float32(0)
	edit(d, x, func(v float32) float32 { sum += 0 * v; return v })
	d.Backend.RMSNorm(out, x, w, eps)
	edit(d, out, func(v float32) float32 { return v + sum })
}

type noEps struct{ k.Backend }

func (d noEps) RMSNorm(out, x, w k.Tensor, _ float32) { d.Backend.RMSNorm(out, x, w, 0) }

type shortSum struct{ k.Backend }

func (d shortSum) MatMul(c, a, b k.Tensor, g k.Gemm) {
	if n := a.Cols - 1; !g.TransA && !g.TransB && n > 0 {
		a, b = a.Columns(0, n), b.Slice(0, n)
	}
	d.Backend.MatMul(c, a, b, g)
}

type overwrites struct{ k.Backend }

func (d overwrites) MatMul(c, a, b k.Tensor, g k.Gemm) {
	g.Accumulate = false
	d.Backend.MatMul(c, a, b, g)
}

type forward struct{ k.Backend }

func (d forward) RoPE(x, pos k.Tensor, r k.Rotary) {
	r.Inverse = false
	d.Backend.RoPE(x, pos, r)
}

type scaled struct{ k.Backend }

func (d scaled) Attention(out, lse, q, key, v k.Tensor, a k.Attn) {
	a.Scale *= 1.0001
	d.Backend.Attention(out, lse, q, key, v, a)
}

type attentionByCompany struct{ k.Backend }

func (d attentionByCompany) Attention(out, lse, q, key, v k.Tensor, a k.Attn) {
	if d.Backend.Attention(out, lse, q, key, v, a); a.Lengths.Rows > 1 {
		edit(d, out.Slice(0, 1), ulp)
	}
}

type attentionByPages struct{ k.Backend }

func (d attentionByPages) Attention(out, lse, q, key, v k.Tensor, a k.Attn) {
	d.Backend.Attention(out, lse, q, key, v, a)
	if a.Pages.Zero() || a.Pages.Rows < 2 {
		return
	}
	raw := make([]byte, 4*a.Pages.Rows*a.Pages.Cols)
	if err := d.Read(raw, a.Pages); err != nil {
		panic(err)
	}
	if row := 4 * a.Pages.Cols; string(raw[row:row+4]) == string(raw[:4]) {
		edit(d, out, ulp)
	}
}

type allRows struct{ k.Backend }

func (d allRows) Scatter(out, x, rows k.Tensor) {
	raw := make([]byte, 4*rows.Rows)
	if err := d.Read(raw, rows); err != nil {
		panic(err)
	}
	for i := 3; i < len(raw); i += 4 {
		if raw[i] >= 0x80 {
			copy(raw[i-3:], []byte{0, 0, 0, 0})
		}
	}
	all := d.New(k.I32, rows.Rows, 1)
	d.Write(all, raw)
	d.Backend.Scatter(out, x, all)
}

type lukewarm struct{ k.Backend }

func (d lukewarm) LogProb(lp, lse, logits, ids k.Tensor, dist k.Dist) {
	dist.Temperature = k.Tensor{}
	d.Backend.LogProb(lp, lse, logits, ids, dist)
}

func (d unmasked) Entropy(h, logits, lse k.Tensor, dist k.Dist) {
	dist.Mask = k.Tensor{}
	d.Backend.Entropy(h, logits, lse, dist)
}

func (d lukewarm) Sample(ids, lp, logits, uniform k.Tensor, dist k.Dist) {
	dist.Temperature = k.Tensor{}
	d.Backend.Sample(ids, lp, logits, uniform, dist)
}

type unmasked struct{ k.Backend }

func (d unmasked) Sample(ids, lp, logits, uniform k.Tensor, dist k.Dist) {
	dist.Mask = k.Tensor{}
	d.Backend.Sample(ids, lp, logits, uniform, dist)
}

type skewed struct{ k.Backend }

func (d skewed) Sample(ids, lp, logits, uniform k.Tensor, dist k.Dist) {
	other := d.New(k.F32, uniform.Rows, 1)
	d.Copy(other, uniform)
	edit(d, other, func(u float32) float32 { return u * (0.98 + 0.02*u) })
	d.Backend.Sample(ids, lp, logits, other, dist)
}

type squared struct{ k.Backend }

func (d squared) Sample(ids, lp, logits, uniform k.Tensor, dist k.Dist) {
	other := d.New(k.F32, uniform.Rows, 1)
	d.Copy(other, uniform)
	edit(d, other, func(u float32) float32 { return u * u })
	d.Backend.Sample(ids, lp, logits, other, dist)
}

type lpOff struct{ k.Backend }

func (d lpOff) Sample(ids, lp, logits, uniform k.Tensor, dist k.Dist) {
	d.Backend.Sample(ids, lp, logits, uniform, dist)
	edit(d, lp.Slice(7, 1), ulp)
}

type sets struct{ k.Backend }

func (d sets) SwiGLUGrad(dgate, dup, dy, gate, up k.Tensor) {
	d.Fill(dup, 0)
	d.Backend.SwiGLUGrad(dgate, dup, dy, gate, up)
}

type noDW struct{ k.Backend }

func (d noDW) RMSNormGrad(dx, _, dy, x, w k.Tensor, eps float32) {
	d.Backend.RMSNormGrad(dx, k.Tensor{}, dy, x, w, eps)
}

type exchanged struct{ k.Backend }

func (d exchanged) AttentionGrad(dq, dk, dv, dout, out, lse, q, key, v k.Tensor, a k.Attn) {
	d.Backend.AttentionGrad(dq, dv, dk, dout, out, lse, q, key, v, a)
}

type backwards struct{ k.Backend }

func (d backwards) SumRows(out, x k.Tensor) {
	for i := x.Rows - 1; i >= 0; i-- {
		d.Backend.SumRows(out, x.Slice(i, 1))
	}
}

type eats struct{ k.Backend }

func (d eats) SumSquares(out, x k.Tensor) {
	d.Backend.SumSquares(out, x)
	d.Fill(x, 0)
}

type firstStep struct{ k.Backend }

func (d firstStep) AdamW(w, m, v, g k.Tensor, o k.Adam) {
	o.Step = 1
	d.Backend.AdamW(w, m, v, g, o)
}

type selfish struct{ k.Backend }

func (d selfish) AttentionGrad(dq, dk, dv, dout, out, lse, q, key, v k.Tensor, a k.Attn) {
	none, own := d.New(k.F32, key.Rows, key.Cols), d.New(k.F32, q.Rows, q.Cols)
	d.Backend.AttentionGrad(dq, none, none, dout, out, lse, q, key, v, a)
	d.Copy(own, dout)
	starts, lengths := d.ints(a.Starts), d.ints(a.Lengths)
	for s, n := range lengths {
		if rows := starts[s+1] - starts[s]; n > rows {
			d.Fill(own.Slice(starts[s], rows), 0)
		}
	}
	d.Backend.AttentionGrad(d.New(k.F32, q.Rows, q.Cols), dk, dv, own, out, lse, q, key, v, a)
}

// ints are the elements of a column.
func (d selfish) ints(t k.Tensor) (out []int) {
	raw := make([]byte, 4*t.Rows)
	if err := d.Read(raw, t); err != nil {
		panic(err)
	}
	for i := range t.Rows {
		out = append(out, int(int32(binary.LittleEndian.Uint32(raw[4*i:]))))
	}
	return out
}
