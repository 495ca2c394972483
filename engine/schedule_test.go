package engine

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/r2-reasoner/r2/engine/kvcache"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/model/batch"
)

// The samples of a group share the prompt: it is computed once, and its whole pages are there once.
func TestGroupSharesPrompt(t *testing.T) {
	for _, c := range []struct{ prompt, tail int }{{10, 2}, {12, 0}, {13, 1}, {3, 3}} {
		r := newRig(t, Options{Vocab: testVocab, Context: 64, TokensPerStep: c.prompt, MaxSequences: 8}, 40, 4)
		most := 0
		r.fake.onStep = func(b *batch.Batch) error {
			pages := map[int32]bool{}
			for _, of := range b.Pages {
				for _, page := range of {
					pages[page] = true
				}
			}
			most = max(most, len(pages))
			return nil
		}
		samples := min(8, c.prompt)
		r.want(t, Request{Prompt: seq(1, c.prompt), Samples: samples, Limit: 2, Sampling: warm})
		s := r.Stats()
		if want := int64(c.prompt + samples); s.Tokens != want {
			t.Errorf("prompt of %d: %d tokens computed, want %d", c.prompt, s.Tokens, want)
		}
		if s.Steps != 2 {
			t.Errorf("prompt of %d: %d steps for 2 tokens", c.prompt, s.Steps)
		}
		shared := (c.prompt - c.tail) / 4
		if want := shared + samples*((c.prompt+1+3)/4-shared); most > want {
			t.Errorf("prompt of %d: %d pages in use, want at most %d", c.prompt, most, want)
		}
	}
}

// A prompt seen before is not computed again, unless it is to be scored, or the adapter or the weights are
// others; and that changes no bit of the answer.
func TestPrefixReuse(t *testing.T) {
	r := newRig(t, Options{Vocab: testVocab, Context: 64, Adapters: 1}, 40, 4)
	computed := func(req Request) int64 {
		t.Helper()
		before := r.Stats().Tokens
		r.want(t, req)
		return r.Stats().Tokens - before
	}
	req := Request{Prompt: seq(1, 23), Samples: 1, Limit: 10, Sampling: warm}
	check := func(what string, req Request, want int64) {
		t.Helper()
		if n := computed(req); n != want {
			t.Errorf("%s: %d tokens computed, want %d", what, n, want)
		}
	}
	check("first", req, 32)
	check("again", req, 12) // 20 of 23 are found

	longer := req
	done := r.fake.alone(req)[0]
	for _, e := range done {
		longer.Prompt = append(slices.Clone(longer.Prompt), e.Token.ID)
	}
	check("with its completion, as a chat goes on", longer, 33+9-32)

	scored := req
	scored.PromptLogProbs = true
	check("scored", scored, 32)
	check("scored again", scored, 16) // of the five pages of scores, the last says what follows the fourth
	scored.Prompt = seq(1, 33)
	check("a longer one scored", scored, 33+9-16)
	scored.Prompt, scored.Limit, scored.Samples = seq(1, 32), 0, 1
	check("only scored", scored, 31-28)
	scored.PromptRanks = true
	check("with ranks, which are not kept", scored, 31)
	scored.PromptRanks, scored.Salt = false, "other"
	check("under another salt", scored, 31)

	other := req
	other.Adapter = 1
	check("another adapter", other, 32)

	err := r.Exclusive(t.Context(), func() error { r.fake.generation++; return errors.New("half done") })
	if err == nil || err.Error() != "half done" {
		t.Errorf("Exclusive: %v", err)
	}
	check("other weights", req, 32)
}

// The scores of a prompt are found whatever the chunks it was computed in.
func TestScoresOfChunks(t *testing.T) {
	for chunk := 1; chunk <= 9; chunk++ {
		r := newRig(t, Options{Vocab: testVocab, Context: 64, Chunk: chunk}, 40, 4)
		req := Request{Prompt: seq(1, 8), Samples: 1, Limit: 2, Sampling: warm, PromptLogProbs: true}
		r.want(t, req)
		before := r.Stats()
		r.want(t, req)
		if s := r.Stats(); s.Reused-before.Reused != 4 || s.Scored != before.Scored {
			t.Errorf("chunks of %d: %d tokens reused, want 4, %d scored again", chunk, s.Reused-before.Reused, s.Scored-before.Scored)
		}
	}
}

// While a long prompt is computed in chunks, the others draw a token every step, and no step is over its
// budget.
func TestChunkedPrefill(t *testing.T) {
	o := Options{Vocab: testVocab, Context: 256, TokensPerStep: 8, MaxSequences: 4}
	f := newFake(o, 80, 4)
	s := &scheduler{Options: o.complete(), pages: kvcache.New(80, 4)}
	short := newJob(Request{Prompt: seq(3, 2), Samples: 2, Limit: 30, Sampling: warm}, rules{})
	long := newJob(Request{Prompt: seq(9, 100), Samples: 1, Limit: 3, Sampling: warm}, rules{})
	s.enqueue(short)
	steps := 0
	for ; long.finished == 0; steps++ {
		if steps == 1 {
			s.enqueue(long)
		}
		p := s.next()
		if steps >= 1 && steps < 17 && (len(p.batch.Tokens) != 8 || len(p.draws) != 2+steps/17) {
			t.Fatalf("step %d: %d tokens, %d draws", steps, len(p.batch.Tokens), len(p.draws))
		}
		tokens, err := f.Step(&p.batch, p.draws)
		if err == nil {
			err = s.commit(p, tokens)
		}
		if err != nil {
			t.Fatal(err)
		}
		s.deliver()
	}
	if steps != 1+17+2 { // 100 tokens at 6 a step beside the two that draw, then two more tokens
		t.Errorf("%d steps", steps)
	}
	events, _, _ := long.take(nil)
	if diff := cmp.Diff(f.alone(long.Request)[0], events, outcome); diff != "" {
		t.Error(diff)
	}
}

// When pages run out the youngest gives way, and what it drew before stays drawn.
func TestPreemption(t *testing.T) {
	r := newRig(t, Options{Vocab: testVocab, Context: 64, MaxSequences: 8}, 12, 2)
	r.want(t, Request{Prompt: seq(1, 3), Samples: 8, Limit: 20, Sampling: warm})
	if s := r.Stats(); s.Preempted == 0 || s.Drawn != 160 {
		t.Errorf("%+v", s)
	}
}

// Who gave way goes on before who came later.
func TestPreemptionOrder(t *testing.T) {
	o := Options{Vocab: testVocab, Context: 64, MaxSequences: 8}
	f := newFake(o, 12, 2)
	s := &scheduler{Options: o.complete(), pages: kvcache.New(12, 2)}
	s.enqueue(newJob(Request{Prompt: seq(1, 3), Samples: 8, Limit: 20, Sampling: warm}, rules{}))
	waited := 0
	for p := s.next(); p != nil; p = s.next() {
		order := func(a, b *sequence) int { return a.sample - b.sample }
		if all := append(slices.Clone(s.running), s.ready...); !slices.IsSortedFunc(all, order) {
			t.Fatal("a later sample runs or waits before an earlier one")
		}
		waited = max(waited, len(s.ready))
		tokens, err := f.Step(&p.batch, p.draws)
		if err == nil {
			err = s.commit(p, tokens)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if waited < 2 {
		t.Errorf("at most %d waited at once", waited)
	}
}

// A newcomer does not take the page that a running sequence is about to need.
func TestRoomToGrow(t *testing.T) {
	r := newRig(t, Options{Vocab: testVocab, Context: 64, MaxSequences: 8}, 5, 4)
	r.want(t, Request{Prompt: seq(1, 16), Samples: 2, Limit: 5, Sampling: warm})
	if s := r.Stats(); s.Preempted != 0 || s.Drawn != 10 {
		t.Errorf("%+v", s)
	}
}

// When pages are needed, the end of a prefix is given up before its beginning.
func TestPrefixBeginningStays(t *testing.T) {
	r := newRig(t, Options{Vocab: testVocab, Context: 64}, 6, 2)
	a := Request{Prompt: seq(1, 9), Samples: 1, Limit: 1} // four whole pages and a part
	r.want(t, a)
	r.want(t, Request{Prompt: seq(20, 8), Samples: 1, Limit: 1}) // four pages, of which two were idle
	before := r.Stats().Reused
	r.want(t, a)
	if n := r.Stats().Reused - before; n != 4 {
		t.Errorf("%d tokens reused, want the first 4", n)
	}
}

// A step allocates nothing.
func TestStepAllocates(t *testing.T) {
	o := Options{Vocab: testVocab, Context: 1 << 12, Adapters: 1, MaxSequences: 16}
	s := &scheduler{Options: o.complete(), pages: kvcache.New(4096, 4)}
	c, err := sample.NewChoices([][]int32{make([]int32, 2000)}, nil, testVocab)
	if err != nil {
		t.Fatal(err)
	}
	jobs := []*job{
		newJob(Request{Prompt: seq(0, 9), Samples: 8, Limit: 2000, Stop: []int32{36}, Sampling: warm, Adapter: 1}, rules{}),
		newJob(Request{Prompt: seq(3, 5), Samples: 2, Limit: 2000}, rules{form: c}),
		newJob(Request{Prompt: make([]int32, 3000), Samples: 1, Limit: 1, PromptLogProbs: true}, rules{}),
	}
	for _, j := range jobs {
		s.enqueue(j)
	}
	s.TokensPerStep = 16
	tokens := make([]Token, 64) // id 0 is allowed everywhere
	var events []Event
	step := func() {
		p := s.next()
		for i := range p.draws {
			tokens[i].ID = 0
			if p.draws[i].Score {
				tokens[i].ID = p.batch.Targets[i]
			}
		}
		if err := s.commit(p, tokens[:len(p.draws)]); err != nil {
			t.Fatal(err)
		}
		s.deliver()
		for _, j := range jobs {
			events, _, _ = j.take(events)
		}
	}
	for range 20 {
		step()
	}
	if n := testing.AllocsPerRun(300, step); n != 0 {
		t.Errorf("%v allocations a step", n)
	}
	if len(s.running) != 11 {
		t.Errorf("%d sequences run", len(s.running))
	}
}

// The checks that run after every step see what they are for.
func TestCheckSees(t *testing.T) {
	for want, spoil := range map[string]func(s *scheduler){
		"counts 2 references, 1 sequences": func(s *scheduler) { s.running = s.running[:1] },
		"sequences run, at most":           func(s *scheduler) { s.MaxSequences = 1 },
		"it is done: stop":                 func(s *scheduler) { s.running[1].done = Stop },
		"it has nothing to compute":        func(s *scheduler) { s.running[0].cached++ },
		"the limit is 1":                   func(s *scheduler) { s.running[0].job.Limit = 1 },
		"1 findable":                       func(s *scheduler) { s.running[0].filled-- },
		"waiting sequence 0 holds":         func(s *scheduler) { s.ready = append(s.ready, &sequence{cached: 1}) },
		"has begun 2 samples of 2":         func(s *scheduler) { s.jobs = append(s.jobs, s.running[0].job) },
	} {
		o := Options{Vocab: testVocab, Context: 64}
		f := newFake(o, 20, 2)
		s := &scheduler{Options: o.complete(), pages: kvcache.New(20, 2)}
		s.jobs = append(s.jobs, newJob(Request{Prompt: seq(0, 5), Samples: 2, Limit: 9, Sampling: warm}, rules{}))
		p := s.next()
		tokens, err := f.Step(&p.batch, p.draws)
		if err == nil {
			err = s.commit(p, tokens)
		}
		if err == nil {
			err = s.check()
		}
		if err != nil {
			t.Fatal(err)
		}
		spoil(s)
		if err := s.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
