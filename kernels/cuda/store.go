package cuda

import k "github.com/r2-reasoner/r2/kernels"

// RoPEStore is RoPE and two Scatters: see kernels.Storer.
func (d *Device) RoPEStore(qk, v, pos k.Tensor, r k.Rotary, kc, vc, slots k.Tensor) {
	need(like(qk) && like(v) && like(kc) && like(vc) && qk.Rows == v.Rows && kc.Rows == vc.Rows && v.Cols == kc.Cols && v.Cols == vc.Cols &&
		column(pos, k.I32, qk.Rows) && column(slots, k.I32, qk.Rows) && r.HeadDim > 0 && r.HeadDim%2 == 0 && qk.Cols%r.HeadDim == 0 &&
		v.Cols%r.HeadDim == 0 && v.Cols <= qk.Cols && r.Table.Type == k.F32 && r.Table.Cols == r.HeadDim && !r.Inverse,
		"RoPEStore", qk, v, pos, r.Table, kc, vc, slots)
	if d.naive {
		d.RoPE(qk, pos, r)
		d.Scatter(kc, qk.Columns(qk.Cols-kc.Cols, kc.Cols), slots)
		d.Scatter(vc, v, slots)
		return
	}
	d.op(opRoPEStore, "rope_store").out(qk).in(v).in(pos).in(r.Table).ints(r.Table.Rows).out(kc).out(vc).ints(kc.Rows).in(slots).
		ints(qk.Rows, qk.Cols/r.HeadDim, r.HeadDim/2, kc.Cols).run(rowsAndColumns(qk.Rows, qk.Cols/2+kc.Cols), 256)
}
