package kerneltest

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/ref"
)

// A matrix is what a tensor holds, as bits. exact is the same in float64 where the device is the oracle.
type matrix struct {
	typ        kernels.DType
	rows, cols int
	bits       []uint32
	exact      []float64
}

// value is element n, rows end to end.
func (m matrix) value(n int) float64 {
	switch {
	case m.exact != nil:
		return m.exact[n]
	case m.typ == kernels.I32:
		return float64(int32(m.bits[n]))
	}
	return float64(math.Float32frombits(m.bits[n]))
}

func (m matrix) row(i int) []uint32 { return m.bits[i*m.cols : (i+1)*m.cols] }

// poison is a NaN, and as an index far out of any range.
const poison = 0x7fc5a5a5

// filled is a matrix of n everywhere.
func filled(typ kernels.DType, rows, cols int, n uint32) matrix {
	m := matrix{typ: typ, rows: rows, cols: cols, bits: make([]uint32, rows*cols)}
	for i := range m.bits {
		m.bits[i] = n
	}
	return m
}

func (m matrix) bytes() []byte {
	b := make([]byte, 0, 4*len(m.bits))
	for _, v := range m.bits {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

// An axis says along which of an operand's axes the rows of the batch lie.
type axis uint8

const (
	shared axis = iota // none: every row of the batch sees all of it
	byRow
	byCol
)

// pick returns the rows or columns of m that belong to rows of the batch.
func (m matrix) pick(a axis, rows []int) matrix {
	switch a {
	case byRow:
		out := filled(m.typ, len(rows), m.cols, 0)
		for i, r := range rows {
			copy(out.row(i), m.row(r))
		}
		return out
	case byCol:
		out := filled(m.typ, m.rows, len(rows), 0)
		for i := range m.rows {
			for j, r := range rows {
				out.bits[i*out.cols+j] = m.bits[i*m.cols+r]
			}
		}
		return out
	}
	return m
}

// A role says what an operation does with an operand.
type role uint8

const (
	input  role = iota
	output      // overwritten: it is poisoned first
	update      // read and written: added to, or changed in place
)

type operand struct {
	matrix
	role  role
	axis  axis
	scale float64 // the size of the terms whose sum an element is: errors are relative to it too
}

// A problem is one call of one operation, with its inputs.
type problem struct {
	rows     int // of the batch
	length   int // of the longest sum
	operands []operand
	weights  []weight
	call     func(be kernels.Backend, t []kernels.Tensor, w []kernels.Weight)
	judged   bool // by a check of its own, not by the oracle
	strict   bool // a NaN is a failure, not a number
}

func (p *problem) in(a axis, m matrix) int { return p.add(operand{matrix: m, role: input, axis: a}) }

func (p *problem) up(a axis, m matrix, scale float64) int {
	return p.add(operand{matrix: m, role: update, axis: a, scale: scale})
}

func (p *problem) out(a axis, rows, cols int, scale float64) int {
	return p.add(operand{matrix: filled(kernels.F32, rows, cols, poison), role: output, axis: a, scale: scale})
}

func (p *problem) add(o operand) int {
	p.operands = append(p.operands, o)
	return len(p.operands) - 1
}

// take is p for some of its rows, in this order.
func (p *problem) take(rows []int) *problem {
	q := *p
	q.rows, q.operands = len(rows), nil
	for _, o := range p.operands {
		o.matrix = o.pick(o.axis, rows)
		q.add(o)
	}
	return &q
}

// A placed operand is a view somewhere in a larger tensor of poison.
type placed struct {
	whole, view kernels.Tensor
	up, left    int
}

func place(be kernels.Backend, g source, m matrix) placed {
	var up, down, left, right int
	if g.IntN(3) > 0 {
		up, down, left, right = g.IntN(3), g.IntN(3), g.IntN(6), g.IntN(6)
	}
	around := filled(m.typ, up+m.rows+down, left+m.cols+right, poison)
	for i := range m.rows {
		copy(around.row(up + i)[left:], m.row(i))
	}
	p := placed{whole: be.New(m.typ, around.rows, around.cols), up: up, left: left}
	be.Write(p.whole, around.bytes())
	p.view = p.whole.Slice(up, m.rows).Columns(left, m.cols)
	if _, ok := be.(*ref.Device); ok && m.exact != nil { // what it gave itself, in full
		for i := range m.rows {
			copy(ref.Row(p.view, i), m.exact[i*m.cols:])
		}
	}
	return p
}

// read returns what the view holds, and fails the test if anything around it has changed.
func (p placed) read(t *testing.T, be kernels.Backend) matrix {
	t.Helper()
	raw := make([]byte, 4*p.whole.Rows*p.whole.Cols)
	if err := be.Read(raw, p.whole); err != nil {
		t.Fatalf("read: %v", err)
	}
	m := filled(p.view.Type, p.view.Rows, p.view.Cols, 0)
	for i := range p.whole.Rows {
		for j := range p.whole.Cols {
			bits := binary.LittleEndian.Uint32(raw[4*(i*p.whole.Cols+j):])
			r, c := i-p.up, j-p.left
			if r >= 0 && r < m.rows && c >= 0 && c < m.cols {
				m.bits[r*m.cols+c] = bits
			} else if bits != poison {
				t.Fatalf("an element outside the view was written: row %d, column %d of a view of %d×%d", r, c, m.rows, m.cols)
			}
		}
	}
	if _, ok := be.(*ref.Device); ok {
		for i := range m.rows {
			m.exact = append(m.exact, ref.Row(p.view, i)...)
		}
	}
	return m
}

// run plays p on be and returns what its operands hold then.
func (p *problem) run(t *testing.T, be kernels.Backend, g source) []matrix {
	t.Helper()
	var at []placed
	var views []kernels.Tensor
	for _, o := range p.operands {
		x := place(be, g, o.matrix)
		at, views = append(at, x), append(views, x.view)
	}
	var ws []kernels.Weight
	for _, w := range p.weights {
		ws = append(ws, be.Load(w.Format, w.rows, w.cols, w.parts...))
	}
	p.call(be, views, ws)
	var out []matrix
	for i, x := range at {
		m := x.read(t, be)
		if p.operands[i].role == input {
			equalBits(t, m, p.operands[i].matrix, "input %d after the call and before", i)
		}
		out = append(out, m)
		be.Free(x.whole)
	}
	for _, w := range ws {
		be.Unload(w)
	}
	return out
}

// values plays p on be and on the oracle, and compares.
func values(t *testing.T, be kernels.Backend, g source, p *problem) {
	t.Helper()
	if p.judged {
		return
	}
	got, want := p.run(t, be, g), p.run(t, oracle(), g)
	for i, o := range p.operands {
		if o.role == input {
			continue
		}
		if o.typ == kernels.I32 {
			equalBits(t, got[i], want[i], "operand %d on %s and on ref", i, be.Name())
			continue
		}
		near(t, got[i], want[i], o.scale, p.length, "operand %d", i)
	}
}

// Tolerance is the largest ‖out − ref‖ / ‖ref‖ of results that are sums of n terms, in elements of type t:
// the rounding errors of a sum of terms of random sign grow as the root of its length.
func tolerance(t kernels.DType, n int) float64 {
	epsilon := map[kernels.DType]float64{kernels.F32: 0x1p-24, kernels.F16: 0x1p-11, kernels.BF16: 0x1p-8}[t]
	return epsilon * (8 + 2*math.Sqrt(float64(n)))
}

// distance is ‖got − want‖ / (‖want‖ + scale·√elements). Infinities must be the same; a NaN is infinitely far.
func distance(got, want matrix, scale float64) float64 {
	var diff, norm float64
	for i := range want.bits {
		x, y := got.value(i), want.value(i)
		if math.IsInf(y, 0) && x == y {
			continue
		}
		diff += (x - y) * (x - y)
		norm += y * y
	}
	d := math.Sqrt(diff) / (math.Sqrt(norm) + scale*math.Sqrt(float64(len(want.bits))))
	switch {
	case diff == 0:
		return 0
	case math.IsNaN(d):
		return math.Inf(1)
	}
	return d
}

// near fails the test unless got is want within the tolerance.
func near(t *testing.T, got, want matrix, scale float64, length int, what string, args ...any) {
	t.Helper()
	if got.rows != want.rows || got.cols != want.cols {
		t.Fatalf("%d×%d does not compare with %d×%d", got.rows, got.cols, want.rows, want.cols)
	}
	d, most := distance(got, want, scale), tolerance(kernels.F32, length)
	if d <= most {
		return
	}
	worst, at := -1.0, 0
	for i := range want.bits {
		if e := math.Abs(got.value(i) - want.value(i)); math.IsNaN(e) || e > worst {
			if worst, at = e, i; math.IsNaN(e) {
				break
			}
		}
	}
	t.Fatalf(what+": %d×%d, sums of %d: relative distance %.3g, at most %.3g; worst at row %d, column %d: %v, want %v",
		append(args, want.rows, want.cols, length, d, most, at/want.cols, at%want.cols, got.value(at), want.value(at))...)
}

// equalBits fails the test unless the two hold the same bits.
func equalBits(t *testing.T, a, b matrix, what string, args ...any) {
	t.Helper()
	if a.rows != b.rows || a.cols != b.cols {
		t.Fatalf("%d×%d does not compare with %d×%d", a.rows, a.cols, b.rows, b.cols)
	}
	for i := range a.bits {
		if a.bits[i] != b.bits[i] {
			t.Fatalf(what+" differ in row %d, column %d of %d×%d: %v (%#x) and %v (%#x)",
				append(args, i/a.cols, i%a.cols, a.rows, a.cols, a.value(i), a.bits[i], b.value(i), b.bits[i])...)
		}
	}
}
