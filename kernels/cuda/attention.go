package cuda

import k "github.com/r2-reasoner/r2/kernels"

const (
	mostHeadDim = 256
	keySegment  = 256      // keys whose sums are joined in order: SEGMENT of attention.cu
	splitRows   = 8        // query rows, heads counted, of a block of attention_split
	mostSplit   = 64 << 20 // bytes of what segments leave to be joined
)

// A headKernel is the kernels for heads of at most so many columns, and the rows of their blocks; one of
// split has splitRows.
type headKernel struct {
	most                int
	split               string
	rows, gradQ, gradKV rowKernel
}

type rowKernel struct {
	name   string
	height int
}

var headKernels = [...]headKernel{
	{32, "attention_split32", rowKernel{"attention_rows32", 32}, rowKernel{"attention_grad_q32", 32}, rowKernel{"attention_grad_kv32", 32}},
	{64, "attention_split64", rowKernel{"attention_rows64", 32}, rowKernel{"attention_grad_q64", 32}, rowKernel{"attention_grad_kv64", 32}},
	{128, "attention_split128", rowKernel{"attention_rows128", 32}, rowKernel{"attention_grad_q128", 32}, rowKernel{"attention_grad_kv128", 16}},
	{mostHeadDim, "attention_split256", rowKernel{"attention_rows256", 16}, rowKernel{"attention_grad_q256", 16}, rowKernel{"attention_grad_kv256", 16}},
}

func headKernelOf(dim int) headKernel {
	i := 0
	for headKernels[i].most < dim {
		i++
	}
	return headKernels[i]
}

// attentionSpace is the shared memory of a block with so many rows of its own: theirs, and two stages of 32
// rows of two operands.
func attentionSpace(rows, dim int) int { return 4 * (rows + 128) * (ceil(dim, 4)*4 + 4) }

func (d *Device) Attention(out, lse, q, key, v k.Tensor, a k.Attn) {
	need(attends(q, key, v, a) && like(out, q) && (lse.Zero() || like(lse) && lse.Rows == q.Rows && lse.Cols == a.Heads),
		"Attention", out, lse, q, key, v, a.Starts, a.Lengths, a.Pages)
	sequences, group := a.Lengths.Rows, a.Heads/a.KVHeads
	kernel := headKernelOf(a.HeadDim)
	segments := 1
	if !a.Pages.Zero() {
		segments = ceil(a.Pages.Cols*a.PageSize, keySegment)
	}
	hopper := d.hopper && a.HeadDim <= mostHeadDim90
	few := a.MaxQueries <= 4 && segments > 1 && 4*q.Rows*a.Heads*segments*(a.HeadDim+2) <= mostSplit
	switch {
	case hopper && (d.naive || !few):
		d.attention90(out, lse, q, key, v, a, 0, 1)
	case d.naive || attentionSpace(kernel.rows.height, a.HeadDim) > d.mostShared:
		d.op(opAttention, "attention_v1").out(out).out(lse).in(q).in(key).in(v).attn(a, q.Rows, key.Rows).
			run(plane(a.MaxQueries*a.Heads, sequences), 32)
	case few:
		parts := d.space(4 * q.Rows * a.Heads * segments * (a.HeadDim + 2))
		if hopper {
			d.attention90(k.Tensor{}, k.Tensor{}, q, key, v, a, parts, segments)
		} else {
			d.op(opAttention, kernel.split).address(parts).ints(segments).in(q).in(key).in(v).attn(a, q.Rows, key.Rows).
				shared(attentionSpace(splitRows, a.HeadDim)).
				run(cube(ceil(a.MaxQueries*group, splitRows)*segments, a.KVHeads, sequences), 128)
		}
		d.op(opAttention, "attention_join").out(out).out(lse).address(parts).ints(segments).attn(a, q.Rows, key.Rows).
			run(plane(a.MaxQueries*a.Heads, sequences), 32)
	default:
		d.op(opAttention, kernel.rows.name).out(out).out(lse).in(q).in(key).in(v).attn(a, q.Rows, key.Rows).
			shared(attentionSpace(kernel.rows.height, a.HeadDim)).
			run(cube(ceil(a.MaxQueries*group, kernel.rows.height), a.KVHeads, sequences), 128)
	}
}

// attn puts the Shape of attention.cu.
func (c *call) attn(a k.Attn, rows, keys int) *call {
	return c.in(a.Starts).in(a.Lengths).in(a.Pages).ints(max(a.PageSize, 1), a.Pages.Cols, rows, keys,
		a.Heads, a.KVHeads, a.HeadDim, a.MaxQueries).float(a.Scale)
}

func (d *Device) AttentionGrad(dq, dk, dv, dout, out, lse, q, key, v k.Tensor, a k.Attn) {
	need(a.Pages.Zero() && attends(q, key, v, a) && like(q, dq, dout, out) && like(key, dk, dv) &&
		like(lse) && lse.Rows == q.Rows && lse.Cols == a.Heads,
		"AttentionGrad", dq, dk, dv, dout, out, lse, q, key, v, a.Starts, a.Lengths, a.Pages)
	sequences := a.Lengths.Rows
	hopper, deltas := d.hopper && a.HeadDim <= mostHeadDim90, 4*q.Rows*a.Heads
	bytes := deltas
	if hopper {
		bytes = ceil(deltas, 16)*16 + partBytes90(q.Rows, a)
	}
	delta := d.space(bytes)
	d.op(opAttentionGrad, "attention_delta").address(delta).in(dout).in(out).ints(a.Heads, a.HeadDim).
		run(line(q.Rows*a.Heads), 32)
	if hopper {
		d.attentionGrad90(dq, dk, dv, dout, lse, q, key, v, a, delta, delta+uint64(ceil(deltas, 16)*16))
		return
	}
	kernel, group := headKernelOf(a.HeadDim), a.Heads/a.KVHeads
	byQ, byKV := kernel.gradQ, kernel.gradKV
	spaceQ, spaceKV := attentionSpace(2*byQ.height, a.HeadDim), attentionSpace(2*byKV.height, a.HeadDim)
	gridQ := cube(ceil(a.MaxQueries*group, byQ.height), a.KVHeads, sequences)
	gridKV, threads := cube(ceil(a.MaxQueries, byKV.height), a.KVHeads, sequences), 128
	if d.naive || max(spaceQ, spaceKV) > d.mostShared {
		byQ.name, byKV.name, spaceQ, spaceKV, threads = "attention_grad_q_v1", "attention_grad_kv_v1", 0, 0, 32
		gridQ, gridKV = plane(a.MaxQueries*a.Heads, sequences), plane(a.MaxQueries*a.KVHeads, sequences)
	}
	d.op(opAttentionGrad, byQ.name).out(dq).address(delta).in(dout).in(lse).in(q).in(key).in(v).whole(a, q.Rows).
		shared(spaceQ).run(gridQ, threads)
	d.op(opAttentionGrad, byKV.name).out(dk).out(dv).address(delta).in(dout).in(lse).in(q).in(key).in(v).whole(a, q.Rows).
		shared(spaceKV).run(gridKV, threads)
}

// whole puts the SHAPE of attentiongrad.cu.
func (c *call) whole(a k.Attn, rows int) *call {
	return c.in(a.Starts).in(a.Lengths).ints(rows, a.Heads, a.KVHeads, a.HeadDim, a.MaxQueries).float(a.Scale)
}
