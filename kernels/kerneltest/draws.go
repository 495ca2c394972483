package kerneltest

import (
	"fmt"
	"math"
	"strings"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
)

var distChecks = []check{
	{"Sample/definition", sampleDefinition},
	{"Sample/frequencies", sampleFrequencies},
	{"Sample/greedy", sampleGreedy},
	{"Sample/log-probability", sampleLogProb},
	{"Sample/impossible ids", sampleImpossible},
	{"LogProb/one allowed id", oneAllowed},
	{"LogProb/temperature 0", zeroTemperature},
	{"failures", failures},
}

// sampleDefinition: the uniform number lies between the cumulative probabilities before and at the drawn id.
func sampleDefinition(t *testing.T, be k.Backend, g source) {
	for range 8 {
		d := draw(g, 60)
		ids := d.run(t, be, g)[d.ids]
		for i := range d.rows {
			w, total := d.weightsOf(d.logits, d.choice, i), 0.0
			for _, v := range w {
				total += v
			}
			u, id, before := d.operands[d.uniform].value(i), int(int32(ids.bits[i])), 0.0
			if id < 0 || id >= len(w) || w[id] == 0 {
				t.Fatalf("row %d: drew id %d of %d, which has no probability", i, id, len(w))
			}
			if d.choice.temperature >= 0 && d.operands[d.choice.temperature].value(i) == 0 {
				continue // sampleGreedy
			}
			for _, v := range w[:id] {
				before += v / total
			}
			after, slack := before+w[id]/total, 60*tolerance(k.F32, len(w))
			if u < before-slack || u > after+slack {
				t.Fatalf("row %d: uniform %v drew id %d, whose share is %v … %v", i, u, id, before, after)
			}
		}
	}
}

// sampleFrequencies: many draws of one distribution have its frequencies (Pearson's chi-squared).
func sampleFrequencies(t *testing.T, be k.Backend, g source) {
	const rows, vocab = 20000, 7
	one, temperature := g.floats(1, vocab, 1), 0.5+g.Float64()
	p := &problem{rows: rows}
	logits, temps, mask := filled(k.F32, rows, vocab, 0), make([]float64, rows), filled(k.I32, rows, 1, 0b1011011)
	u := filled(k.F32, rows, 1, 0)
	for i := range rows {
		copy(logits.row(i), one.bits)
		temps[i], u.bits[i] = temperature, math.Float32bits(g.Float32())
	}
	c := choice{temperature: p.in(byRow, of(1, temps...)), mask: p.in(byRow, mask)}
	d := p.drawing(p.in(byRow, logits), u, c)
	ids := d.run(t, be, g)[d.ids]

	seen, w, total := make([]float64, vocab), d.weightsOf(d.logits, c, 0), 0.0
	for i := range rows {
		seen[ids.bits[i]]++
	}
	for _, v := range w {
		total += v
	}
	chi, freedom := 0.0, -1.0
	for id, v := range w {
		if v == 0 {
			if seen[id] > 0 {
				t.Fatalf("forbidden id %d was drawn", id)
			}
			continue
		}
		want := rows * v / total
		chi, freedom = chi+(seen[id]-want)*(seen[id]-want)/want, freedom+1
	}
	if chi > freedom+6*math.Sqrt(2*freedom)+20 { // about one run in 10⁸
		t.Fatalf("drawn %v times, probabilities %v: chi-squared %v with %v degrees of freedom", seen, w, chi, freedom)
	}
}

// sampleGreedy: temperature 0 takes the largest allowed logit, the lowest id among equals.
func sampleGreedy(t *testing.T, be k.Backend, g source) {
	for _, vocab := range []int{1, 2, 31, 33, 100, 1000} {
		const rows = 40
		p := &problem{rows: rows}
		logits, u := g.floats(rows, vocab, 1), filled(k.F32, rows, 1, math.Float32bits(0.999))
		for i := range logits.bits { // few values, so that there are ties
			logits.bits[i] = math.Float32bits(float32(g.IntN(5) - 2))
		}
		c, _ := choose(g, p, vocab)
		c.temperature = p.in(byRow, of(1, make([]float64, rows)...))
		d := p.drawing(p.in(byRow, logits), u, c)
		ids := d.run(t, be, g)[d.ids]
		for i := range rows {
			best := -1
			for id, w := range d.weightsOf(d.logits, c, i) {
				if w > 0 && (best < 0 || logits.value(i*vocab+id) > logits.value(i*vocab+best)) {
					best = id
				}
			}
			if int(ids.bits[i]) != best {
				t.Fatalf("row %d: drew %d, want %d", i, int32(ids.bits[i]), best)
			}
		}
	}
}

// sampleLogProb: Sample's log-probability is LogProb's of the drawn ids, to the bit.
func sampleLogProb(t *testing.T, be k.Backend, g source) {
	for range 8 {
		d := draw(g, 60)
		drawn := d.run(t, be, g)
		p := &problem{rows: d.rows}
		for _, o := range d.operands[:d.uniform] {
			p.add(o)
		}
		ids, lp, lse := p.in(byRow, drawn[d.ids]), p.out(byRow, d.rows, 1, 0), p.out(byRow, d.rows, 1, 0)
		p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) {
			be.LogProb(t[lp], t[lse], t[d.logits], t[ids], d.dist(t))
		}
		equalBits(t, drawn[d.lp], p.run(t, be, g)[lp], "Sample's log-probabilities and LogProb's")
	}
}

// sampleImpossible: an id without probability is never drawn, however near 0 or 1 the uniform number is.
func sampleImpossible(t *testing.T, be k.Backend, g source) {
	for _, vocab := range []int{3, 40, 70, 1000} {
		const rows = 30
		possible := 1 + g.IntN(vocab-2)
		logits, u, mask := g.floats(rows, vocab, 1), filled(k.F32, rows, 1, 0), filled(k.I32, rows, (vocab+31)/32, 1<<32-1)
		for i := range rows {
			u.bits[i] = math.Float32bits([]float32{0, 0x1p-30, 1 - 0x1p-24}[i%3])
			for id := range vocab {
				switch {
				case id == possible:
				case i%2 == 0:
					mask.row(i)[id/32] &^= 1 << (id % 32)
				case id%2 == 0:
					logits.row(i)[id] = math.Float32bits(float32(math.Inf(-1)))
				default:
					logits.row(i)[id] = math.Float32bits(-3000)
				}
			}
		}
		p := &problem{rows: rows}
		c := choice{temperature: -1, mask: p.in(byRow, mask)}
		d := p.drawing(p.in(byRow, logits), u, c)
		ids := d.run(t, be, g)[d.ids]
		for i, id := range ids.bits {
			if int(id) != possible {
				t.Fatalf("row %d: uniform %v drew id %d; only %d of %d is possible", i, u.value(i), int32(id), possible, vocab)
			}
		}
	}
}

// scored plays LogProb and returns lp and lse. A zero matrix is none.
func scored(t *testing.T, be k.Backend, g source, logits, ids, temperature, mask matrix) (lp, lse matrix) {
	t.Helper()
	p, c := &problem{rows: logits.rows}, choice{-1, -1}
	o, target := p.in(byRow, logits), p.in(byRow, ids)
	if temperature.bits != nil {
		c.temperature = p.in(byRow, temperature)
	}
	if mask.bits != nil {
		c.mask = p.in(byRow, mask)
	}
	l, s := p.out(byRow, p.rows, 1, 0), p.out(byRow, p.rows, 1, 0)
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) { be.LogProb(t[l], t[s], t[o], t[target], c.dist(t)) }
	all := p.run(t, be, g)
	return all[l], all[s]
}

// oneAllowed: the only id a mask allows has probability 1.
func oneAllowed(t *testing.T, be k.Backend, g source) {
	const rows, vocab = 10, 100
	logits, ids, mask := g.floats(rows, vocab, 3), g.ints(rows, 0, vocab), filled(k.I32, rows, 4, 0)
	want := filled(k.F32, rows, 1, 0)
	for i, id := range ids.bits {
		mask.row(i)[id/32] = 1 << (id % 32)
		want.bits[i] = logits.row(i)[id]
	}
	lp, lse := scored(t, be, g, logits, ids, matrix{}, mask)
	near(t, lse, want, 1, 1, "the log-sum-exp of one logit")
	near(t, lp, filled(k.F32, rows, 1, 0), 3, 1, "the log-probability of the only id")
}

// zeroTemperature: 0 scores as 1, and so does no temperature.
func zeroTemperature(t *testing.T, be k.Backend, g source) {
	const rows, vocab = 20, 150
	logits, ids := g.floats(rows, vocab, 3), g.ints(rows, 0, vocab)
	one, ones := scored(t, be, g, logits, ids, filled(k.F32, rows, 1, math.Float32bits(1)), matrix{})
	zero, zeros := scored(t, be, g, logits, ids, filled(k.F32, rows, 1, 0), matrix{})
	none, nones := scored(t, be, g, logits, ids, matrix{}, matrix{})
	equalBits(t, zero, one, "log-probabilities at temperatures 0 and 1")
	equalBits(t, zeros, ones, "log-sum-exps at temperatures 0 and 1")
	equalBits(t, none, one, "log-probabilities at no temperature and 1")
	equalBits(t, nones, ones, "log-sum-exps at no temperature and 1")
}

// failures: what has no answer is kept as a failure that names the operation and the row, stops what is
// queued after it, and is reported and cleared once.
func failures(t *testing.T, be k.Backend, g source) {
	const rows, vocab, bad = 50, 45, 37
	inf := math.Inf(1)
	for _, c := range []struct {
		name  string
		logit float64 // of all ids of the bad row; 0: as they are
		mask  uint32  // of the bad row
		draw  bool    // Sample fails too
	}{
		{"forbidden id", 0, 1<<32 - 2, false},
		{"empty mask", 0, 0, true},
		{"NaN", math.NaN(), 1<<32 - 1, true},
		{"+Inf", inf, 1<<32 - 1, true},
		{"all -Inf", -inf, 1<<32 - 1, true},
	} {
		logits, mask := g.floats(rows, vocab, 1), filled(k.I32, rows, 2, 1<<32-1)
		mask.row(bad)[0], mask.row(bad)[1] = c.mask, c.mask
		for id := range vocab {
			if c.logit != 0 {
				logits.row(bad)[id] = math.Float32bits(float32(c.logit))
			}
		}
		put := func(m matrix) k.Tensor {
			x := be.New(m.typ, m.rows, m.cols)
			be.Write(x, m.bytes())
			return x
		}
		l, ids, m := put(logits), put(filled(k.I32, rows, 1, 0)), put(mask)
		lp, lse, u := put(filled(k.F32, rows, 1, 0)), put(filled(k.F32, rows, 1, 0)), put(filled(k.F32, rows, 1, 0))
		be.LogProb(lp, lse, l, ids, k.Dist{Mask: m})
		failed(t, be, c.name, "LogProb", bad)
		if c.draw {
			be.Sample(ids, lp, l, u, k.Dist{Mask: m})
			failed(t, be, c.name, "Sample", bad)
		}
		for _, x := range []k.Tensor{l, ids, m, lp, lse, u} {
			be.Free(x)
		}
	}
}

// failed checks that a failure of op at a row waits on be, and clears it.
func failed(t *testing.T, be k.Backend, name, op string, row int) {
	t.Helper()
	after := be.New(k.F32, 1, 1)
	defer be.Free(after)
	be.Fill(after, 1)
	raw := make([]byte, 4)
	err := be.Read(raw, after)
	switch {
	case err == nil:
		t.Fatalf("%s in %s: no failure", name, op)
	case !strings.Contains(err.Error(), op) || !strings.Contains(err.Error(), fmt.Sprintf("row %d", row)):
		t.Fatalf("%s in %s: the failure reads %q; it must name %s and row %d", name, op, err, op, row)
	}
	if err := be.Read(raw, after); err != nil || raw[3] != 0 {
		t.Fatalf("%s in %s: the failure came back, or the operation after it was done: %v, % x", name, op, err, raw)
	}
	be.Fill(after, 1)
	if err := be.Read(raw, after); err != nil || raw[3] != 0x3f {
		t.Fatalf("%s in %s: the device does not work on: %v, % x", name, op, err, raw)
	}
}
