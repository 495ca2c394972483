// Package kernels defines the tensor, the frozen weight and the operations a device must provide.
package kernels

import "errors"

// A DType is the type of stored elements.
type DType uint8

const (
	F32 DType = iota
	BF16
	F16
	I32
	// Blocks of 32 neighbours in a row, as ggml stores weights.
	Q8_0 // a half d, then 32 signed bytes q: the elements are d·q
	Q4_0 // a half d, then 16 bytes, low nibbles q first: d·(q-8)
	Q4_1 // halves d and m, then nibbles as in Q4_0: d·q + m
	// I8 is what activations alone are rounded to: see Format.
	I8
)

// BlockLen is the number of neighbours that share a scale.
const BlockLen = 32

// Blocks reports whether elements of type t come in blocks of BlockLen.
func (t DType) Blocks() bool { return t == Q8_0 || t == Q4_0 || t == Q4_1 }

// Size is the bytes of one element of a type without blocks.
func (t DType) Size() int {
	if t == BF16 || t == F16 {
		return 2
	}
	return 4
}

// Bytes is what n elements take: whole blocks, where there are blocks.
func (t DType) Bytes(n int) int {
	switch t {
	case Q8_0:
		return n / BlockLen * (2 + 32)
	case Q4_0:
		return n / BlockLen * (2 + 16)
	case Q4_1:
		return n / BlockLen * (4 + 16)
	}
	return n * t.Size()
}

func (t DType) String() string {
	return [...]string{"f32", "bf16", "f16", "i32", "q8_0", "q4_0", "q4_1", "int8"}[t]
}

// A Format says how a frozen weight is stored, and what Linear rounds the rows that it multiplies to.
// Everything else that is done with a weight is exact.
//
// Acts F32 rounds nothing. Acts BF16 rounds x to nearest, ties to even, and takes numbers below 2⁻¹²⁶
// as zero, in x, in the weight (for all operations) and in the running sum: what processors and GPUs
// that multiply bf16 do. A sum takes the inputs in pairs, the odd one of a pair first.
//
// Acts I8, for weights in blocks, rounds x in the same blocks. With m the largest |x| of a block, each x
// becomes the integer nearest to x·(127/m), ties to even, and stands for it times m/127; quotients and
// product are rounded to float32. A block with m < 2⁻¹⁰⁰ is zeros, and one with an m that is not finite is NaN. The integers of a
// block are multiplied and added exactly, and the blocks are added up in float32 in their order.
type Format struct {
	Type DType // F32, BF16, F16, or one of blocks
	Acts DType
}

func (f Format) String() string {
	if f.Acts == F32 {
		return f.Type.String()
	}
	return f.Type.String() + " by " + f.Acts.String()
}

// A Buffer is a block of device memory, made and understood by one Backend.
type Buffer interface{ Size() int }

// A Tensor is a view of rows × cols elements of a Buffer. Copying it copies the view.
// The zero Tensor stands for an operand that is absent.
type Tensor struct {
	Buf        Buffer
	Off        int // of the first element
	Rows, Cols int
	Stride     int // elements from one row to the next, so that columns can be viewed too
	Type       DType
}

// Columns returns the view of n columns of t from column j on.
func (t Tensor) Columns(j, n int) Tensor { t.Off += j; t.Cols = n; return t }

// Slice returns the view of n rows of t from row i on.
func (t Tensor) Slice(i, n int) Tensor { t.Off += i * t.Stride; t.Rows = n; return t }

// Zero reports whether t is the zero Tensor.
func (t Tensor) Zero() bool { return t.Buf == nil }

// A Weight is a frozen matrix of Rows outputs × Cols inputs, packed as its Backend likes and
// made by Load. It has no strides and is never written again.
type Weight struct {
	Buf        Buffer
	Rows, Cols int
	Format
}

// Zero reports whether w is the zero Weight.
func (w Weight) Zero() bool { return w.Buf == nil }

// A Backend is one device. Operations are queued in order and none returns an error: the first
// failure is kept, the operations after it do nothing, and the next Read or Sync reports and clears
// it. Shapes that do not fit are bugs, and panic with the operation and both shapes. A Backend is
// used by one goroutine at a time, between Attach and Detach.
//
// One row, one answer: what an operation computes for a row (of a sequence, in attention) depends on
// that row (that sequence) alone and is summed in an order fixed by the length of the sum alone,
// never by the number of rows, their place, the page numbers or the number of threads.
type Backend interface {
	Name() string
	// Attach waits until no other goroutine has the device, and binds it to the calling one's thread.
	// The same goroutine must Detach before it, or another, can Attach again.
	Attach() error
	Detach()
	Memory
	Forward
	Backward
}

// Memory makes, fills and reads tensors and weights. Bytes are little-endian, rows end to end.
type Memory interface {
	// New returns a tensor of zeros.
	New(t DType, rows, cols int) Tensor
	Free(t Tensor)
	// Load packs a frozen weight. The parts of src are stacked by rows: each holds whole rows of cols
	// elements (whole blocks, where there are blocks), together rows of them. A format that the device
	// does not have is a failure that names both.
	Load(f Format, rows, cols int, src ...[]byte) Weight
	// Holds reports whether Load takes weights of a format.
	Holds(f Format) bool
	Unload(w Weight)
	Write(dst Tensor, src []byte)
	Read(dst []byte, src Tensor) error
	Copy(dst, src Tensor)
	Fill(dst Tensor, v float32)
	Sync() error
}

// A Mapper is a Backend whose packed weights can be kept in a file and be used where a file is mapped.
type Mapper interface {
	// Layout names the way weights are packed: bytes of another layout mean nothing.
	Layout() string
	// Packed is w's memory, whole cache lines. It is not to be written.
	Packed(w Weight) []byte
	// Map makes a weight of what Packed returned for one of the same format and shape. It uses the bytes where
	// they are: they must stay until Unload, and begin at a cache line to be read fast. ok is false if their number is wrong.
	Map(f Format, rows, cols int, packed []byte) (w Weight, ok bool)
}

// Forward is what a forward pass needs. Each operation overwrites its first operands.
// Whatever changes from step to step is a Tensor, not a Go value, so that a recording can be replayed.
// ids, pos and rows are I32 tensors of one column; everything else is F32 unless it says otherwise.
type Forward interface {
	// Embed sets row i of out to row ids[i] of table.
	Embed(out Tensor, table Weight, ids Tensor)
	// RMSNorm normalizes each run of w.Cols columns of x: out = x / sqrt(mean(x²) + eps) · w.
	// out may be x. (Zhang and Sennrich 2019)
	RMSNorm(out, x, w Tensor, eps float32)
	// Linear sets out = x·wᵀ + bias, of x as w's Format rounds it. bias is one row, or zero.
	Linear(out, x Tensor, w Weight, bias Tensor)
	// MatMul sets c = α·op(a)·op(b) + bias, or c += op(a)·op(b): see Gemm.
	MatMul(c, a, b Tensor, g Gemm)
	// RoPE rotates, in place, the pairs (j, j+HeadDim/2) of each head of x. (Su et al. 2021, in the
	// half-split layout of Llama and Qwen checkpoints)
	RoPE(x, pos Tensor, r Rotary)
	// Attention sets out to causal softmax attention and lse, rows × Heads, to the log-sum-exp of
	// each row's scaled scores; lse may be zero.
	Attention(out, lse, q, k, v Tensor, a Attn)
	// SwiGLU sets out = silu(gate)·up. out may be gate or up.
	SwiGLU(out, gate, up Tensor)
	Add(out, a, b Tensor)
	// Gather sets row i of out to row rows[i] of x.
	Gather(out, x, rows Tensor)
	// Scatter sets row rows[i] of out to row i of x. A negative row is skipped.
	Scatter(out, x, rows Tensor)
	// LogProb sets lp to the log-probability of ids under d and lse to its log-sum-exp, both of one
	// column. A row without a finite lse, or an id the mask forbids, is a failure that names the row.
	LogProb(lp, lse, logits, ids Tensor, d Dist)
	// Entropy sets h, one column, to -Σ p·log p over the allowed ids of each row, in nats; lse is LogProb's.
	Entropy(h, logits, lse Tensor, d Dist)
	// Sample draws ids by the inverse of the distribution function at uniform (one column, in [0, 1)):
	// the first allowed id whose cumulative probability, ids ascending, exceeds it. lp is LogProb's of
	// the drawn ids, to the bit. A temperature of 0 takes the largest logit, the lowest id among equals.
	Sample(ids, lp, logits, uniform Tensor, d Dist)
}

// Backward is what training needs besides. A Grad operation adds to its d-operands: the caller
// clears them. Sums over rows start from what is there and take the rows in order, so a sum may be
// cut between rows and continued in another call with equal bits.
type Backward interface {
	// RMSNormGrad adds to dx and, unless it is zero, to dw (one row).
	RMSNormGrad(dx, dw, dy, x, w Tensor, eps float32)
	// LinearGrad adds dout·w to dx: nothing is rounded, as if x had not been.
	LinearGrad(dx, dout Tensor, w Weight)
	// AttentionGrad needs Attention's out and lse; keys are rows of k (no pages). What a shared key gets
	// from the sequences that see it is added in their order.
	AttentionGrad(dq, dk, dv, dout, out, lse, q, k, v Tensor, a Attn)
	SwiGLUGrad(dgate, dup, dy, gate, up Tensor)
	// LogProbGrad sets (it does not add) dlogits to coef·∂lp/∂logits; dlogits may be logits.
	LogProbGrad(dlogits, logits, lse, ids, coef Tensor, d Dist)
	// SumRows adds the sum of x's rows to out, one row: the gradient of a bias.
	SumRows(out, x Tensor)
	// ScatterAdd adds row i of x to row rows[i] of out, in order: the gradient of Gather.
	ScatterAdd(out, x, rows Tensor)
	// SumSquares sets out, 1 × 1, to Σx².
	SumSquares(out, x Tensor)
	// AdamW takes one step of w. (Loshchilov and Hutter 2019)
	AdamW(w, m, v, g Tensor, o Adam)
}

// ErrLost is what a Backend wraps in an error after which the device is of no more use to this process: every
// Read and Sync after it gives that error again.
var ErrLost = errors.New("the device is lost to this process")

// A Capturer can record the operations f queues, to launch them again as one.
type Capturer interface {
	Capture(f func()) (Graph, error)
}

// A Graph is a recording.
type Graph interface {
	Launch()
	Free()
}

// A BothReader can Read two tensors, one after the other into dst, for the price of one.
type BothReader interface {
	ReadBoth(dst []byte, a, b Tensor) error
}

// A Deferrer is a Backend that can go on while the host waits for what it has computed so far.
type Deferrer interface {
	// Defer queues a Read of two tensors. At most two wait to be taken.
	Defer(a, b Tensor)
	// Take waits for the first Read that waits, and not for what was queued after it, and gives what ReadBoth would have
	// given in its place. A failure is Read's, and ends all Reads that wait.
	Take(dst []byte) error
}

// A Sharer is a Backend whose threads can be lent, between two operations, to work of the host's.
type Sharer interface {
	Threads() int
	// Share calls f once for each of 0 … n-1, several at the same time, and returns when all have returned.
	Share(n int, f func(i int))
}

// A KeyRounder is a Backend that holds keys and values in half the memory: New makes tensors of BF16, Copy and Scatter round
// F32 to them as Format says of Acts BF16, and Gather and Scatter copy rows between them. Attention, where HeadDim is even, takes k and v so and rounds
// q and the exponentials of the scores to bf16 too, whose sum stays exact; sums over elements and over keys take pairs, the odd one first.
type KeyRounder interface {
	RoundsKeys() bool
}

// A Scorer is a Backend that scores ids, forward and backward, without the logits of all ids in memory.
type Scorer interface {
	// Score sets lp and lse to the bits of LogProb of the logits that Linear makes of x and w, and h, unless it is
	// zero, to the entropy of each row's distribution, in nats (not to Entropy's bits). A row fails as in LogProb.
	Score(lp, lse, h, x Tensor, w Weight, ids Tensor, d Dist)
	// ScoreGrad adds coef·∂lp/∂x to dx; lse is Score's.
	ScoreGrad(dx, x Tensor, w Weight, lse, ids, coef Tensor, d Dist)
}

// A Fuser is a Backend that can end a product with what follows it, so that the product is not written and read
// again between the two.
type Fuser interface {
	// Fused sets out to what e makes of x·wᵀ + bias, with the bits of the operations one after another. It is false,
	// and has done nothing, for a product that the device cannot end so.
	Fused(out, x Tensor, w Weight, bias Tensor, e Ending) bool
}

// A Storer is a Backend that turns queries and keys, and stores keys and values, in one operation.
type Storer interface {
	// RoPEStore is RoPE of qk, whose last columns are keys; then Scatter of these to kc and of v to vc, all as wide as
	// each other. Their bits are those of the three one after another.
	RoPEStore(qk, v, pos Tensor, r Rotary, kc, vc, slots Tensor)
}

// An Ending is what follows a product, in this order.
type Ending struct {
	Expands []Expand // what adapters add
	Gated   bool     // the product's columns are gates, and then as many ups: SwiGLU of the two
	Plus    Tensor   // of out's shape: it is added; zero: nothing is
}

// An Expand is what MatMul with Accumulate does to a part of a product: Low·Bᵀ is added to the rows from Row on and to
// the columns from Col on. (Hu et al. 2021)
type Expand struct {
	Row, Col int
	Low, B   Tensor
}

// A Param is what AdamW steps: a tensor, its moments and its gradient, all of one shape.
type Param struct {
	W, M, V, G Tensor
	Decay      float32
}

// A Grouper is a Backend that takes many tensors at once, with the bits of one after another. They lie end to end:
// their rows have no gaps.
type Grouper interface {
	// AdamWAll is AdamW of each, with its own Decay.
	AdamWAll(ps []Param, o Adam)
	// SumSquaresAll sets element i of out, one row, to SumSquares of xs[i].
	SumSquaresAll(out Tensor, xs []Tensor)
}

// Gemm says how MatMul multiplies: op(a) is a or, with TransA, aᵀ. Each element is one sum over the
// common length, in an order fixed by that length. Without Accumulate it starts from 0, is multiplied by
// Alpha, and Bias, one row, is added. With Accumulate it starts from what c holds; Alpha must be 1 and Bias
// zero. With TransA, where the sum goes over rows, the order is the rows', so that it may be cut and continued.
type Gemm struct {
	TransA, TransB bool
	Alpha          float32
	Accumulate     bool
	Bias           Tensor
}

// Rotary says how RoPE rotates. Row p of Table holds the HeadDim/2 cosines of position p, then its
// HeadDim/2 sines (of float64 angles, rounded once).
type Rotary struct {
	HeadDim int
	Table   Tensor
	Inverse bool // the gradient's rotation
}

// Attn describes causal attention with grouped heads over sequences packed end to end. Sequence s
// has query rows Starts[s] … Starts[s+1]-1; its last query sees its first Lengths[s] keys, the one
// before it one less, and so on. Query head h uses key head h·KVHeads/Heads.
//
// Without Pages keys are rows of k as queries are of q: a sequence's own. One that sees more keys than it
// has rows shares those it lacks: they come first, and are the first rows of its leader, the last sequence
// before it that sees its own alone. So the rows of a prompt serve all its completions.
type Attn struct {
	Heads, KVHeads, HeadDim int
	Scale                   float32
	Starts, Lengths         Tensor // I32, one column: sequences + 1 rows, sequences rows
	Pages                   Tensor // I32, a row a sequence: its pages of k and v; zero: its own rows, after those it shares
	PageSize                int    // rows of k and v in a page; page p is rows p·PageSize …
	MaxQueries              int    // of any one sequence: it sets the launch's shape
}

// Dist says which distribution a row of logits stands for: softmax(logits / Temperature) over the
// allowed ids. A temperature of 0 scores as 1.
type Dist struct {
	Temperature Tensor // one column; zero: 1 for all
	Mask        Tensor // I32, ⌈vocab/32⌉ columns, bit j%32 of word j/32 allows id j; zero: all allowed
}

// Adam is one AdamW step: w -= LR·Decay·w, then the bias-corrected moment step. Scale multiplies the
// gradient first, to clip it. Step counts from 1.
type Adam struct {
	LR, Beta1, Beta2, Eps, Decay, Scale float32
	Step                                int
}
