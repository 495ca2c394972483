package cpu

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/r2-reasoner/r2/kernels"
)

// embedTask is the spanTask of Embed, over the rows of out.
type embedTask struct {
	w      *weight
	ids    []int32
	idStep int
	out    []float32
	stride int
}

// Embed sets row i of out to row ids[i] of table. An id without a row is a failure.
func (d *Device) Embed(out kernels.Tensor, table kernels.Weight, ids kernels.Tensor) {
	if out.Rows != ids.Rows || ids.Cols != 1 || out.Cols != table.Cols {
		panic(fmt.Sprintf("cpu: Embed: out %s, table %dx%d, ids %s", shape(out), table.Rows, table.Cols, shape(ids)))
	}
	o, id, w := floats("Embed", out), ints("Embed", ids), weightOf("Embed", table)
	if d.err != nil || len(o) == 0 {
		return
	}
	for i := range ids.Rows {
		if v := id[i*ids.Stride]; v < 0 || int(v) >= w.rows {
			d.fail(fmt.Errorf("cpu: Embed: row %d asks for id %d of a table of %d", i, v, w.rows))
			return
		}
	}
	d.embed = embedTask{w: w, ids: id, idStep: ids.Stride, out: o, stride: out.Stride}
	d.share(out.Rows, 16, &d.embed)
	d.embed = embedTask{}
}

func (t *embedTask) span(lo, hi, _ int) {
	for i := lo; i < hi; i++ {
		t.w.row(t.out[i*t.stride:][:t.w.cols], int(t.ids[i*t.idStep]))
	}
}

// row puts row n of w, widened, into out.
func (w *weight) row(out []float32, n int) {
	p, l := w.at(n/lanes, 0), n%lanes
	if w.blocks != kernels.F32 {
		for k := 0; k < len(out); k += lanes {
			w.lane((*[lanes]float32)(out[k:]), w.at(n/lanes, k), l)
		}
		return
	}
	if w.pairs {
		for k := range out {
			out[k] = math.Float32frombits(uint32(*(*uint16)(unsafe.Add(p, k/2*linePair+4*l+k%2*2))) << 16)
		}
		return
	}
	if w.bf16 {
		p = unsafe.Add(p, l%16*4+l/16*2)
		for k := range out {
			out[k] = math.Float32frombits(uint32(*(*uint16)(unsafe.Add(p, k*lineBF16))) << 16)
		}
		return
	}
	p = unsafe.Add(p, 4*l)
	for k := range out {
		out[k] = *(*float32)(unsafe.Add(p, k*lineF32))
	}
}
