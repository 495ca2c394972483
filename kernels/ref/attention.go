package ref

import (
	"math"

	k "github.com/r2-reasoner/r2/kernels"
)

// attends reports whether q, k and v fit a.
func attends(q, key, v k.Tensor, a k.Attn) bool {
	n := a.Lengths.Rows
	return a.HeadDim > 0 && a.KVHeads > 0 && a.Heads%a.KVHeads == 0 &&
		like(q) && holdsKeys(key, v, a.HeadDim) && q.Cols == a.Heads*a.HeadDim && key.Cols == a.KVHeads*a.HeadDim &&
		column(a.Lengths, k.I32, n) && column(a.Starts, k.I32, n+1) &&
		(a.Pages.Zero() && key.Rows == q.Rows ||
			!a.Pages.Zero() && a.Pages.Type == k.I32 && a.Pages.Rows == n && a.PageSize > 0)
}

// holdsKeys reports whether keys and values can be attended to by heads of so many elements.
func holdsKeys(key, v k.Tensor, headDim int) bool {
	if key.Type == k.BF16 {
		return v.Type == k.BF16 && key.Rows == v.Rows && key.Cols == v.Cols && headDim%2 == 0
	}
	return like(key, v)
}

// eachRow calls f for each query row of each sequence with the rows of the keys it sees.
func (d *Device) eachRow(op string, q, key k.Tensor, a k.Attn, f func(row int, keys []int)) {
	leader, leads := 0, 0 // the first row of the last sequence that sees its own alone, and how many they are
	for s := range a.Lengths.Rows {
		lo, hi, n := at(a.Starts, s), at(a.Starts, s+1), at(a.Lengths, s)
		shared := 0
		if a.Pages.Zero() {
			if shared = n - (hi - lo); shared == 0 {
				leader, leads = lo, n
			}
		}
		if lo < 0 || hi < lo || hi > q.Rows || n < hi-lo || shared > leads {
			d.fail(op, lo, "sequence %d has query rows %d … %d of %d and sees %d keys", s, lo, hi-1, q.Rows, n)
			return
		}
		if lo == hi {
			continue
		}
		if hi-lo > a.MaxQueries {
			d.fail(op, lo, "sequence %d has %d query rows, more than the MaxQueries of %d", s, hi-lo, a.MaxQueries)
			return
		}
		keys := make([]int, n)
		for j := range keys {
			switch {
			case j < shared:
				keys[j] = leader + j
			case a.Pages.Zero():
				keys[j] = lo + j - shared
			default:
				if !d.index(op, lo, j/a.PageSize, a.Pages.Cols) {
					return
				}
				keys[j] = int(Row(a.Pages, s)[j/a.PageSize])*a.PageSize + j%a.PageSize
			}
			if !d.index(op, lo, keys[j], key.Rows) {
				return
			}
		}
		for row := lo; row < hi; row++ {
			f(row, keys[:n-(hi-1-row)])
		}
	}
}

// heads returns the columns of query head h and of its key head.
func heads(a k.Attn, h int) (qo, ko int) {
	return h * a.HeadDim, h * a.KVHeads / a.Heads * a.HeadDim
}

func (d *Device) Attention(out, lse, q, key, v k.Tensor, a k.Attn) {
	need(attends(q, key, v, a) && like(out, q) && (lse.Zero() || like(lse) && lse.Rows == q.Rows && lse.Cols == a.Heads),
		"Attention", out, lse, q, key, v, a.Starts, a.Lengths, a.Pages)
	if d.err != nil {
		return
	}
	n, narrow := a.HeadDim, func(v float64) float64 { return v }
	if key.Type == k.BF16 {
		q, narrow = rounded(q, k.Format{Acts: k.BF16}), nearestBF16
	}
	d.eachRow("Attention", q, key, a, func(row int, keys []int) {
		for h := range a.Heads {
			qo, ko := heads(a, h)
			p, largest := make([]float64, len(keys)), math.Inf(-1)
			for j, r := range keys {
				p[j] = dot(Row(q, row)[qo:qo+n], Row(key, r)[ko:ko+n]) * float64(a.Scale)
				largest = max(largest, p[j])
			}
			sum := 0.0
			for j := range p {
				p[j] = math.Exp(p[j] - largest)
				sum += p[j]
			}
			if !lse.Zero() {
				Row(lse, row)[h] = largest + math.Log(sum)
			}
			o := Row(out, row)[qo : qo+n]
			clear(o)
			for j, r := range keys {
				for c := range o {
					o[c] += narrow(p[j]) / sum * Row(v, r)[ko+c]
				}
			}
		}
	})
}

func (d *Device) AttentionGrad(dq, dk, dv, dout, out, lse, q, key, v k.Tensor, a k.Attn) {
	need(a.Pages.Zero() && attends(q, key, v, a) && like(q, dq, dout, out) && like(key, dk, dv) &&
		like(lse) && lse.Rows == q.Rows && lse.Cols == a.Heads,
		"AttentionGrad", dq, dk, dv, dout, out, lse, q, key, v, a.Starts, a.Lengths, a.Pages)
	if d.err != nil {
		return
	}
	n := a.HeadDim
	d.eachRow("AttentionGrad", q, key, a, func(row int, keys []int) {
		for h := range a.Heads {
			qo, ko := heads(a, h)
			qh, do := Row(q, row)[qo:qo+n], Row(dout, row)[qo:qo+n]
			delta := dot(do, Row(out, row)[qo:qo+n]) // Σ p·dp, by which softmax's gradient is centred
			for _, r := range keys {
				kh, vh := Row(key, r)[ko:ko+n], Row(v, r)[ko:ko+n]
				p := math.Exp(dot(qh, kh)*float64(a.Scale) - Row(lse, row)[h])
				ds := p * (dot(do, vh) - delta) * float64(a.Scale)
				for c := range n {
					Row(dv, r)[ko+c] += p * do[c]
					Row(dq, row)[qo+c] += ds * kh[c]
					Row(dk, r)[ko+c] += ds * qh[c]
				}
			}
		}
	})
}
