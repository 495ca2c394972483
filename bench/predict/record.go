// Package predict says how long the CUDA backend should take on a GPU that is not there. A model of a real shape runs on
// a recorder, which keeps the operations and computes nothing. Each operation is played at small shapes on the
// simulator, which counts what its kernels move and compute (ptxsim.Counts); the counts are extended to the real
// shape; and a launch takes as long as the resource of the GPU that it needs the longest (Williams, Waterman and
// Patterson 2009). So a prediction is what the kernels' own traffic and arithmetic allow if all of it overlaps: hardware
// confirms it where it comes near, and where it does not, something other than counts holds the kernel up.
package predict

import (
	k "github.com/r2-reasoner/r2/kernels"
)

// A Call is an operation and the sizes that its cost depends on: see operations.
type Call struct {
	Op   string
	Dims [7]int
}

// A Sequence is a part of a batch: its query rows, the keys that the last of them sees, and how many of these are in pages that
// each Samples sequences share.
type Sequence struct{ Queries, Keys, Shared int }

// A Recorder is a backend that keeps which operations it is asked for, how often, and how many bytes of memory.
type Recorder struct {
	k.Backend // nil: an operation that is not recorded is a bug, and panics
	Calls     map[Call]int
	Bytes     int
	Sequences []Sequence // of the batches that come, for attention

	ends func(c Call) bool // whether the device that is recorded for can end a product so; nil: it cannot
}

var (
	_ k.Backend = (*Recorder)(nil)
	_ k.Fuser   = (*Recorder)(nil)
	_ k.Scorer  = (*Recorder)(nil)
	_ k.Storer  = (*Recorder)(nil)
)

// NewRecorder returns one that has recorded nothing, for the device of a survey; nil: for one that fuses nothing.
func NewRecorder(s *Survey) *Recorder {
	r := &Recorder{Calls: map[Call]int{}}
	if s != nil {
		r.ends = s.ends
	}
	return r
}

// A size is a buffer without memory.
type size int

func (s size) Size() int { return int(s) }

func (r *Recorder) add(op string, dims ...int) {
	c := Call{Op: op}
	copy(c.Dims[:], dims)
	for _, d := range dims {
		if d < 0 {
			return
		}
	}
	r.Calls[c]++
}

func (r *Recorder) Name() string                      { return "recorder" }
func (r *Recorder) Attach() error                     { return nil }
func (r *Recorder) Detach()                           {}
func (r *Recorder) Sync() error                       { return nil }
func (r *Recorder) Holds(f k.Format) bool             { return f.Type == k.BF16 || f.Type == k.F32 }
func (r *Recorder) Write(k.Tensor, []byte)            {}
func (r *Recorder) Read(dst []byte, _ k.Tensor) error { clear(dst); return nil }
func (r *Recorder) Free(t k.Tensor)                   { r.Bytes -= t.Buf.Size() }
func (r *Recorder) Unload(w k.Weight)                 { r.Bytes -= w.Buf.Size() }

func (r *Recorder) New(t k.DType, rows, cols int) k.Tensor {
	n := 4 * rows * cols
	r.Bytes += n
	return k.Tensor{Buf: size(n), Rows: rows, Cols: cols, Stride: cols, Type: t}
}

func (r *Recorder) Load(f k.Format, rows, cols int, _ ...[]byte) k.Weight {
	n := (rows + 31) / 32 * 32 * f.Type.Bytes((cols+31)/32*32)
	r.Bytes += n
	return k.Weight{Buf: size(n), Rows: rows, Cols: cols, Format: f}
}

func (r *Recorder) Copy(dst, _ k.Tensor)                       { r.add("Copy", dst.Rows, dst.Cols) }
func (r *Recorder) Fill(t k.Tensor, _ float32)                 { r.add("Fill", t.Rows, t.Cols) }
func (r *Recorder) Embed(out k.Tensor, _ k.Weight, _ k.Tensor) { r.add("Embed", out.Rows, out.Cols) }
func (r *Recorder) RMSNorm(out, _, w k.Tensor, _ float32) {
	r.add("RMSNorm", out.Rows, out.Cols, w.Cols)
}
func (r *Recorder) Linear(out, x k.Tensor, w k.Weight, _ k.Tensor) {
	r.add("Linear", x.Rows, w.Rows, w.Cols)
}
func (r *Recorder) LinearGrad(dx, _ k.Tensor, w k.Weight) {
	r.add("LinearGrad", dx.Rows, w.Rows, w.Cols)
}

// MatMul's dims are the product's rows, columns and common length, and how it is asked for, in bits.
func (r *Recorder) MatMul(c, a, _ k.Tensor, g k.Gemm) {
	n, how := a.Cols, 0
	for i, b := range []bool{g.TransA, g.TransB, g.Accumulate} {
		if b {
			how |= 1 << i
		}
	}
	if g.TransA {
		n = a.Rows
	}
	r.add("MatMul", c.Rows, c.Cols, n, how)
}

func (r *Recorder) RoPE(x, _ k.Tensor, o k.Rotary) { r.add("RoPE", x.Rows, x.Cols, o.HeadDim) }

// RoPEStore's dims are the rows, the columns of queries and keys, those of keys, and a head's.
func (r *Recorder) RoPEStore(qk, v, _ k.Tensor, o k.Rotary, _, _, _ k.Tensor) {
	r.add("RoPEStore", qk.Rows, qk.Cols, v.Cols, o.HeadDim)
}
func (r *Recorder) SwiGLU(out, _, _ k.Tensor) { r.add("SwiGLU", out.Rows, out.Cols) }
func (r *Recorder) SwiGLUGrad(dgate, _, _, _, _ k.Tensor) {
	r.add("SwiGLUGrad", dgate.Rows, dgate.Cols)
}
func (r *Recorder) Add(out, _, _ k.Tensor)                { r.add("Add", out.Rows, out.Cols) }
func (r *Recorder) Gather(out, _, _ k.Tensor)             { r.add("Gather", out.Rows, out.Cols) }
func (r *Recorder) Scatter(_, x, _ k.Tensor)              { r.add("Scatter", x.Rows, x.Cols) }
func (r *Recorder) ScatterAdd(_, x, _ k.Tensor)           { r.add("ScatterAdd", x.Rows, x.Cols) }
func (r *Recorder) LogProb(_, _, x, _ k.Tensor, _ k.Dist) { r.add("LogProb", x.Rows, x.Cols) }
func (r *Recorder) Entropy(_, x, _ k.Tensor, _ k.Dist)    { r.add("Entropy", x.Rows, x.Cols) }
func (r *Recorder) Sample(_, _, x, _ k.Tensor, _ k.Dist)  { r.add("Sample", x.Rows, x.Cols) }
func (r *Recorder) SumRows(_, x k.Tensor)                 { r.add("SumRows", x.Rows, x.Cols) }
func (r *Recorder) SumSquares(_, x k.Tensor)              { r.add("SumSquares", x.Rows, x.Cols) }
func (r *Recorder) AdamW(w, _, _, _ k.Tensor, _ k.Adam)   { r.add("AdamW", w.Rows, w.Cols) }
func (r *Recorder) LogProbGrad(d, _, _, _, _ k.Tensor, _ k.Dist) {
	r.add("LogProbGrad", d.Rows, d.Cols)
}
func (r *Recorder) RMSNormGrad(dx, _, _, _, w k.Tensor, _ float32) {
	r.add("RMSNormGrad", dx.Rows, dx.Cols, w.Cols)
}

// Fused's dims are the product's, whether it is gated and whether there is a sum, in bits, and how many adapters' parts of
// which rank there are.
func (r *Recorder) Fused(_, x k.Tensor, w k.Weight, _ k.Tensor, e k.Ending) bool {
	c := Call{"Fused", [7]int{x.Rows, w.Rows, w.Cols, 0, len(e.Expands)}}
	if e.Gated {
		c.Dims[3] |= 1
	}
	if !e.Plus.Zero() {
		c.Dims[3] |= 2
	}
	for _, a := range e.Expands {
		c.Dims[5] = a.B.Cols
	}
	if r.ends == nil || !r.ends(c) {
		return false
	}
	r.Calls[c]++
	return true
}

// Score's dims are the rows, the ids, the columns, and 1 where the entropy is wanted.
func (r *Recorder) Score(_, _, h, x k.Tensor, w k.Weight, _ k.Tensor, _ k.Dist) {
	wanted := 1
	if h.Zero() {
		wanted = 0
	}
	r.add("Score", x.Rows, w.Rows, w.Cols, wanted)
}

func (r *Recorder) ScoreGrad(_, x k.Tensor, w k.Weight, _, _, _ k.Tensor, _ k.Dist) {
	r.add("ScoreGrad", x.Rows, w.Rows, w.Cols)
}

func (r *Recorder) Attention(_, _, _, _, _ k.Tensor, a k.Attn) { r.attend("Attention", a) }
func (r *Recorder) AttentionGrad(_, _, _, _, _, _, _, _, _ k.Tensor, a k.Attn) {
	r.attend("AttentionGrad", a)
}

// attend records a call for the sequences of each size: how many, their queries, the keys before those, heads, key heads, the
// columns of a head, and where keys are in pages 1 and how many pages each Samples sequences share.
func (r *Recorder) attend(op string, a k.Attn) {
	of := map[Sequence]int{}
	for _, s := range r.Sequences {
		of[s]++
	}
	paged := 0
	if !a.Pages.Zero() {
		paged = 1
	}
	for s, n := range of {
		r.add(op, n, s.Queries, s.Keys-s.Queries, a.Heads, a.KVHeads, a.HeadDim, paged*(1+s.Shared/pageSize))
	}
}
