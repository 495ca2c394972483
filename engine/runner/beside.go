package runner

import (
	"encoding/binary"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/model/batch"
)

// A beside finds what rows ask for besides their token: its log-probability and rank under the unmodified
// distribution, and the most likely ids of that and of the one drawn from. Which ids those are is found on
// the host. Their log-probabilities are the device's LogProb, so that they are the bits a scorer gives.
type beside struct {
	ids, lp kernels.Tensor // a column for a slice of rows
	own     []int32        // the rows' tokens
	column  []int32
	best    []int32
	arena   []sample.Scored // what the tokens' lists are cut from
}

func newBeside(be kernels.Backend, wanted int) beside {
	return beside{
		ids: be.New(kernels.I32, wanted, 1), lp: be.New(kernels.F32, wanted, 1),
		own: make([]int32, 0, wanted), column: make([]int32, wanted),
		best: make([]int32, 0, sample.MaxTop), arena: make([]sample.Scored, 0, 2*sample.MaxTop*wanted),
	}
}

// raw reports whether d asks for something of the unmodified distribution.
func raw(d *sample.Draw) bool { return d.Raw || d.RawTop > 0 }

// looked reports whether d's row of logits must be looked at after its token is known.
func looked(d *sample.Draw) bool { return raw(d) || d.Top > 0 && kindOf(d) != onHost }

// look adds to the tokens of wanted rows i … i+n-1 what they ask for, once the tokens have been drawn.
func (r *Runner) look(i, n int, logits kernels.Tensor, dist kernels.Dist, b *batch.Batch, draws []sample.Draw) error {
	draws, tokens := draws[i:i+n], r.tokens[i:i+n]
	any := false
	for j := range draws {
		any = any || looked(&draws[j])
	}
	if !any {
		return nil
	}
	if err := r.own(i, n, b, draws); err != nil {
		return err
	}
	s, tops, rawTops := &r.beside, 0, 0
	for j := range draws {
		d, t := &draws[j], &tokens[j]
		if !looked(d) {
			continue
		}
		if err := r.readLogits(logits.Slice(j, 1)); err != nil {
			return err
		}
		if kindOf(d) != onHost {
			t.Top = s.list(sample.Best(s.best[:0], r.logits, mask(b, i+j, logits.Cols), d.Top))
			tops = max(tops, len(t.Top))
		}
		if raw(d) {
			t.Rank = sample.Rank(r.logits, s.own[j])
			t.RawTop = s.list(sample.Best(s.best[:0], r.logits, nil, d.RawTop))
			rawTops = max(rawTops, len(t.RawTop))
		}
	}
	for p := range tops {
		if err := r.place(logits, dist, draws, tokens, drawnList, p); err != nil {
			return err
		}
	}
	for p := range rawTops {
		if err := r.place(logits, kernels.Dist{}, draws, tokens, rawList, p); err != nil {
			return err
		}
	}
	lp, err := r.score(logits, s.own, kernels.Dist{})
	for j := range draws {
		if err == nil && raw(&draws[j]) {
			tokens[j].Raw = float32At(lp, j)
		}
	}
	return err
}

// own brings the ids of the tokens of wanted rows i … i+n-1 to the host.
func (r *Runner) own(i, n int, b *batch.Batch, draws []sample.Draw) error {
	drawn := r.raw[:4*n]
	if err := r.dec.Backend().Read(drawn, r.ids.Slice(i, n)); err != nil {
		return err
	}
	r.beside.own = r.beside.own[:n]
	for j := range draws {
		id := int32(binary.LittleEndian.Uint32(drawn[4*j:]))
		switch kindOf(&draws[j]) {
		case scored:
			id = b.Targets[i+j]
		case onHost:
			id = r.tokens[i+j].ID
		}
		r.beside.own[j] = id
	}
	return nil
}

// list is the list of ids, without log-probabilities yet.
func (s *beside) list(ids []int32) []sample.Scored {
	at := len(s.arena)
	for _, id := range ids {
		s.arena = append(s.arena, sample.Scored{ID: id})
	}
	return s.arena[at:len(s.arena):len(s.arena)]
}

// drawnList and rawList are the lists whose log-probabilities the device must find.
func drawnList(d *sample.Draw, t *engine.Token) []sample.Scored {
	if kindOf(d) == onHost {
		return nil // Choose has
	}
	return t.Top
}

func rawList(_ *sample.Draw, t *engine.Token) []sample.Scored { return t.RawTop }

// place fills in the log-probabilities of place p of the rows' lists. For a row without one its own token
// is scored, which every distribution has.
func (r *Runner) place(logits kernels.Tensor, dist kernels.Dist, draws []sample.Draw, tokens []engine.Token,
	list func(*sample.Draw, *engine.Token) []sample.Scored, p int) error {
	ids := r.beside.column[:len(tokens)]
	copy(ids, r.beside.own)
	for j := range tokens {
		if l := list(&draws[j], &tokens[j]); p < len(l) {
			ids[j] = l[p].ID
		}
	}
	lp, err := r.score(logits, ids, dist)
	for j := range tokens {
		if l := list(&draws[j], &tokens[j]); err == nil && p < len(l) {
			l[p].LogProb = float32At(lp, j)
		}
	}
	return err
}

// score gives the log-probability of one id a row, as float32 bytes that hold until the next call.
func (r *Runner) score(logits kernels.Tensor, ids []int32, dist kernels.Dist) ([]byte, error) {
	be, n := r.dec.Backend(), len(ids)
	b := r.raw[:0]
	for _, id := range ids {
		b = binary.LittleEndian.AppendUint32(b, uint32(id))
	}
	be.Write(r.beside.ids.Slice(0, n), b)
	be.LogProb(r.beside.lp.Slice(0, n), r.lse.Slice(0, n), logits, r.beside.ids.Slice(0, n), dist)
	return b, be.Read(b, r.beside.lp.Slice(0, n))
}
