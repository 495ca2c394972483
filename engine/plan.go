package engine

import (
	"cmp"
	"slices"
	"time"

	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/model/batch"
)

// A plan is one batch and the draws of its wanted rows, and whose they are.
type plan struct {
	parts []part
	batch batch.Batch
	draws []sample.Draw
	rows  int // that are wanted
}

// A part is the next n tokens of a sequence.
type part struct {
	seq    *sequence
	n      int
	scores int         // wanted rows that score the prompt
	draws  bool        // the last row is drawn from
	ahead  bool        // it was planned before the sequence's last token was known
	forks  []*sequence // whose first tokens are drawn from the same row
}

func (p *plan) reset() {
	p.parts, p.draws, p.rows = p.parts[:0], p.draws[:0], 0
	p.batch.Reset()
}

// begin notes how long the requests waited of which this is the first batch.
func (p *plan) begin() {
	for i := range p.parts {
		if j := p.parts[i].seq.job; !j.submitted.IsZero() {
			j.start.Queued, j.submitted = time.Since(j.submitted), time.Time{}
		}
	}
}

// fill writes the parts into the batch, those of one adapter together.
func (p *plan) fill(size, vocab int) {
	slices.SortStableFunc(p.parts, func(a, b part) int { return cmp.Compare(a.seq.job.slot, b.seq.job.slot) })
	scores, masks := false, false
	for i := range p.parts {
		t := &p.parts[i]
		scores = scores || t.scores > 0
		masks = masks || t.draws && t.seq.bound()
	}
	p.batch.Starts = append(p.batch.Starts, 0)
	for i := range p.parts {
		p.tokens(&p.parts[i], size)
		p.copies(&p.parts[i], size)
		p.wanted(&p.parts[i], scores)
		if masks {
			p.masks(&p.parts[i], vocab)
		}
	}
}

// want finds which rows of t are wanted: those that predict a prompt token still to be scored, and
// the last if it predicts a token that nobody knows.
func (t *part) want() {
	q := t.seq
	end := q.cached + t.n
	if q.sample == 0 && q.job.scoring() {
		t.scores = max(0, min(end, len(q.job.Prompt)-1)-len(q.job.scores))
	}
	t.draws = end == len(q.tokens)
}

// tokens appends t's tokens and where their keys and values are.
func (p *plan) tokens(t *part, size int) {
	q, b := t.seq, &p.batch
	end := q.cached + t.n
	b.Tokens = append(b.Tokens, q.tokens[q.cached:end]...)
	for i := q.cached; i < end; i++ {
		b.Positions = append(b.Positions, int32(i))
		b.Slots = append(b.Slots, q.pages[i/size]*int32(size)+int32(i%size))
	}
	b.Starts = append(b.Starts, int32(len(b.Tokens)))
	b.Lengths = append(b.Lengths, int32(end))
	b.Pages = append(b.Pages, q.pages[:(end+size-1)/size])
	b.Adapters = append(b.Adapters, int32(q.job.slot))
}

// copies appends where t's forks have the tokens of the page that t's prompt does not fill.
func (p *plan) copies(t *part, size int) {
	for _, f := range t.forks {
		for i := f.cached; i < f.known(); i++ {
			p.batch.From = append(p.batch.From, t.seq.pages[i/size]*int32(size)+int32(i%size))
			p.batch.To = append(p.batch.To, f.pages[i/size]*int32(size)+int32(i%size))
		}
	}
}

// wanted appends t's wanted rows and their draws.
func (p *plan) wanted(t *part, targets bool) {
	q, b := t.seq, &p.batch
	row := len(b.Tokens) - t.n - q.cached // of position 0, were it in the batch
	for i := range t.scores {
		at := len(q.job.scores) + i
		b.Want = append(b.Want, int32(row+at))
		b.Targets = append(b.Targets, q.tokens[at+1])
		b.Temperatures = append(b.Temperatures, 1)
		p.draws = append(p.draws, sample.Draw{Params: sample.Params{Temperature: 1}, Score: true, Raw: q.job.ranks != nil, RawTop: q.job.PromptTop})
	}
	if !t.draws {
		return
	}
	p.drawn(q, targets)
	for _, f := range t.forks {
		p.drawn(f, targets)
	}
}

// drawn appends the last row so far as one that q draws from.
func (p *plan) drawn(q *sequence, targets bool) {
	j, b := q.job, &p.batch
	b.Want = append(b.Want, int32(len(b.Tokens)-1))
	if targets {
		b.Targets = append(b.Targets, -1)
	}
	b.Temperatures = append(b.Temperatures, j.Sampling.Temperature)
	p.draws = append(p.draws, q.draw(q.drawn()))
}

// draw is that of token n of q's completion.
func (q *sequence) draw(n int) sample.Draw {
	j := q.job
	return sample.Draw{
		Params: j.Sampling, Sample: uint32(q.sample), Step: uint32(n), Prompt: j.Prompt, Drawn: q.tokens[len(j.Prompt):],
		Top: j.Top, Raw: j.Raw || j.RawTop > 0, RawTop: j.RawTop,
	}
}

// masks appends the masks of t's wanted rows: every id for those that nothing binds.
func (p *plan) masks(t *part, vocab int) {
	for range t.scores {
		p.mask(nil, vocab)
	}
	if t.draws {
		p.mask(t.seq, vocab)
	}
	for _, f := range t.forks {
		p.mask(f, vocab)
	}
}

// mask appends what q may draw next; nil may draw every id.
func (p *plan) mask(q *sequence, vocab int) {
	if q != nil && q.bound() {
		p.batch.Masks = append(p.batch.Masks, q.mask...)
		return
	}
	n, words := len(p.batch.Masks), (vocab+31)/32
	p.batch.Masks = slices.Grow(p.batch.Masks, words)[:n+words]
	everything(p.batch.Masks[n:], vocab)
}
