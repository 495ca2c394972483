package cpu

import (
	"unsafe"

	"github.com/r2-reasoner/r2/kernels"
)

var _ kernels.Fuser = (*Device)(nil)

// An ending is what a product's sums go through on their way to out: a row of a bias or the rows of another
// tensor are added, or SwiGLU takes them and those of the panel that comes half of all panels later.
type ending struct {
	plus    unsafe.Pointer // nil: nothing
	plusRow int            // bytes from one row to the next, 0 for a bias
	gated   bool
}

// Fused is for products that have one of bias, Plus and Gated. Rounded to blocks of integers there are no Expands. out is
// neither x nor Plus: it holds sums that are under way.
func (d *Device) Fused(out, x kernels.Tensor, w kernels.Weight, bias kernels.Tensor, e kernels.Ending) bool {
	cols := w.Rows
	if e.Gated {
		cols /= 2
	}
	need(like(out) && out.Rows == x.Rows && out.Cols == cols && (e.Plus.Zero() || like(out, e.Plus)), "Fused", out, x, bias, e.Plus)
	for _, a := range e.Expands {
		need(like(a.Low) && like(a.B) && a.Low.Cols == a.B.Cols && a.Row >= 0 && a.Row+a.Low.Rows <= x.Rows &&
			a.Col >= 0 && a.Col+a.B.Rows <= w.Rows, "Fused", out, a.Low, a.B)
	}
	t := weightOf("Fused", w)
	switch {
	case !e.Gated && e.Plus.Zero() && len(e.Expands) == 0, (e.Gated || !bias.Zero()) && !e.Plus.Zero(), e.Gated && !bias.Zero(),
		t.rounds && len(e.Expands) > 0:
		return false
	case e.Gated && (w.Rows%(2*lanes) != 0 || !t.rounds && (t.blocks != kernels.F32 || cutTerms(x.Rows, t.terms()) < t.terms())):
		return false
	}
	var end ending
	end.gated = e.Gated
	switch {
	case d.err != nil || x.Rows == 0:
	case !e.Plus.Zero():
		v := viewOf("Fused", e.Plus)
		end.plus, end.plusRow = unsafe.Pointer(unsafe.SliceData(v.s)), 4*v.stride
	case !bias.Zero():
		end.plus = unsafe.Pointer(unsafe.SliceData(floats("Fused", bias)))
	}
	d.product("Fused", out, x, w, end, e.Expands)
	return true
}

// at is where the ending's part for row r and panel p is.
func (e *ending) at(r, p int) unsafe.Pointer {
	if e.plus == nil {
		return nil
	}
	return unsafe.Add(e.plus, r*e.plusRow+4*lanes*p)
}

// panels is how many panels of w make columns of out.
func (e *ending) panels(w *weight) int {
	if e.gated {
		return w.panels() / 2
	}
	return w.panels()
}
