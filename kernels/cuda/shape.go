package cuda

import (
	"fmt"

	k "github.com/r2-reasoner/r2/kernels"
)

// need panics with the operation and the shapes of its operands unless they fit.
func need(fit bool, op string, operands ...k.Tensor) {
	if fit {
		return
	}
	msg := "cuda: " + op + ": shapes do not fit:"
	for _, t := range operands {
		msg += " " + shape(t)
	}
	panic(msg)
}

func shape(t k.Tensor) string {
	if t.Zero() {
		return "none"
	}
	return fmt.Sprintf("%dx%d %v", t.Rows, t.Cols, t.Type)
}

// ofWeight is the shape of w, for a message.
func ofWeight(w k.Weight) k.Tensor {
	return k.Tensor{Buf: w.Buf, Rows: w.Rows, Cols: w.Cols, Type: w.Type}
}

// like reports whether all of ts are F32 of one shape.
func like(t k.Tensor, ts ...k.Tensor) bool {
	ok := t.Type == k.F32
	for _, u := range ts {
		ok = ok && u.Type == k.F32 && u.Rows == t.Rows && u.Cols == t.Cols
	}
	return ok
}

// column reports whether t is one column of n elements of a type.
func column(t k.Tensor, typ k.DType, n int) bool {
	return t.Type == typ && t.Rows == n && t.Cols == 1
}

// rowOrNone reports whether t is absent or one row of n.
func rowOrNone(t k.Tensor, n int) bool {
	return t.Zero() || t.Type == k.F32 && t.Rows == 1 && t.Cols == n
}

// norms reports whether w is one row whose length divides the columns of x.
func norms(x, w k.Tensor) bool {
	return w.Type == k.F32 && w.Rows == 1 && w.Cols > 0 && x.Cols%w.Cols == 0
}

// scores reports whether dist and the columns beside the logits fit them.
func scores(logits k.Tensor, dist k.Dist, columns ...k.Tensor) bool {
	n := logits.Rows
	ok := like(logits) && logits.Cols > 0 && (dist.Temperature.Zero() || column(dist.Temperature, k.F32, n)) &&
		(dist.Mask.Zero() || dist.Mask.Type == k.I32 && dist.Mask.Rows == n && dist.Mask.Cols == (logits.Cols+31)/32)
	for _, t := range columns {
		ok = ok && column(t, k.F32, n)
	}
	return ok
}

// attends reports whether q, k and v fit a.
func attends(q, key, v k.Tensor, a k.Attn) bool {
	n := a.Lengths.Rows
	return a.HeadDim > 0 && a.HeadDim <= mostHeadDim && a.KVHeads > 0 && a.Heads%a.KVHeads == 0 &&
		like(q) && like(key, v) && q.Cols == a.Heads*a.HeadDim && key.Cols == a.KVHeads*a.HeadDim &&
		column(a.Lengths, k.I32, n) && column(a.Starts, k.I32, n+1) &&
		(a.Pages.Zero() && key.Rows == q.Rows ||
			!a.Pages.Zero() && a.Pages.Type == k.I32 && a.Pages.Rows == n && a.PageSize > 0)
}

// ceil is n / d, rounded up.
func ceil(n, d int) int { return (n + d - 1) / d }
