package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/r2-reasoner/r2/engine/kvcache"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/model/batch"
)

// seq returns n ids from first on.
func seq(first, n int) []int32 {
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32((first + i) % testVocab)
	}
	return ids
}

// outcome looks at what came of a request, and not at how it ran.
var outcome = cmpopts.IgnoreFields(Event{}, "Start")

func diff(t *testing.T, what string, alone, here []Event) {
	t.Helper()
	if d := cmp.Diff(alone, here, outcome); d != "" {
		t.Errorf("%s (-alone +here):\n%s", what, d)
	}
}

var warm = sample.Params{Temperature: 1, Seed: 5}

// want fails t unless the request gives what it gives alone.
func (r *rig) want(t *testing.T, req Request) {
	t.Helper()
	got, err := r.collect(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.fake.alone(req), got); diff != "" {
		t.Errorf("-alone +here:\n%s", diff)
	}
}

// A request that has no meaning, or cannot fit, is refused at once with one clear error.
func TestRefused(t *testing.T) {
	o := Options{Vocab: testVocab, Context: 20, Adapters: 2}
	r := newRig(t, o, 3, 4)
	nan := float32(math.NaN())
	ok := Request{Prompt: seq(0, 3), Samples: 1, Limit: 4}
	for _, c := range []struct {
		change func(*Request)
		want   string
	}{
		{func(r *Request) { r.Prompt = nil }, "prompt: it is empty"},
		{func(r *Request) { r.Samples = 0 }, "samples 0: want at least 1"},
		{func(r *Request) { r.Samples = -3 }, "samples -3"},
		{func(r *Request) { r.Limit = -1 }, "limit -1"},
		{func(r *Request) { r.Limit = 0 }, "limit 0: there is nothing to do"},
		{func(r *Request) { r.Limit, r.PromptLogProbs, r.Samples = 0, true, 2 }, "limit 0 with 2 samples"},
		{func(r *Request) { r.Limit = 18 }, "prompt of 3 tokens and limit of 18 exceed the context of 20"},
		{func(r *Request) { r.Limit = math.MaxInt }, "exceed the context of 20"},
		{func(r *Request) { r.Limit = 11 }, "need 4 cache pages of 4 tokens, there are 3"},
		{func(r *Request) { r.Prompt = []int32{0, testVocab} }, "prompt: token 1 has id 37, the vocabulary has 37"},
		{func(r *Request) { r.Prompt = []int32{-1} }, "prompt: token 0 has id -1"},
		{func(r *Request) { r.Stop = []int32{99} }, "stop: entry 0 has id 99"},
		{func(r *Request) { r.Adapter = 3 }, "adapter 3: there is no such adapter"},
		{func(r *Request) { r.Adapter = -1 }, "adapter -1"},
		{func(r *Request) { r.Sampling.Temperature = -0.1 }, "temperature -0.1"},
		{func(r *Request) { r.Sampling.Temperature = nan }, "temperature NaN"},
		{func(r *Request) { r.Sampling.TopP = 1.1 }, "top_p 1.1: want more than 0 and at most 1"},
		{func(r *Request) { r.Sampling.TopK = -1 }, "top_k -1"},
		{func(r *Request) { r.Sampling.MinP = nan }, "min_p NaN"},
		{func(r *Request) { r.Sampling.Repetition = -1 }, "repetition_penalty -1"},
		{func(r *Request) { r.Sampling.Bias = []sample.Bias{{ID: 37, Add: 1}} }, "logit_bias: entry 0 has id 37"},
		{func(r *Request) { r.Allowed = []int32{} }, "allowed_token_ids: the list is empty"},
		{func(r *Request) { r.Allowed = []int32{1, -2} }, "allowed_token_ids: entry 1 has id -2"},
		{func(r *Request) { r.BadWords = [][]int32{{1}, {}} }, "bad_words: entry 1 is empty"},
		{func(r *Request) { r.BadWords = [][]int32{{1, 40}} }, "bad_words: entry 0: token 1 has id 40"},
		{func(r *Request) { r.Allowed, r.BadWords = []int32{5}, [][]int32{{5}} }, "together leave no token to draw"},
		{func(r *Request) { r.Allowed, r.Stop, r.MinTokens = []int32{5}, []int32{5}, 1 }, "together leave no token to draw"},
		{func(r *Request) { r.MinTokens = 5 }, "min_tokens 5: want 0 to the limit of 4"},
		{func(r *Request) { r.MinTokens, r.Choices = 1, [][]int32{{1}} }, "min_tokens 1 with choices or a form"},
		{func(r *Request) { r.Top = 21 }, "top 21: want 0 to 20"},
		{func(r *Request) { r.RawTop = -1 }, "raw top -1"},
		{func(r *Request) { r.PromptTop = 3 }, "without prompt log-probabilities"},
		{func(r *Request) { r.Choices = [][]int32{} }, "choices: there are none"},
		{func(r *Request) { r.Choices = [][]int32{{1}, {}} }, "choices: choice 1 is empty"},
		{func(r *Request) { r.Choices = [][]int32{{99}} }, "choices: choice 0 has token 99"},
		{func(r *Request) { r.Choices = [][]int32{{1}, {1, 2}} }, "begins with choice 0"},
		{func(r *Request) { r.Choices = [][]int32{seq(0, 5)} }, "the longest has 5 tokens, the limit is 4"},
	} {
		req := ok
		c.change(&req)
		_, err := r.collect(t.Context(), req)
		if err == nil || !strings.HasPrefix(err.Error(), "engine: ") || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	r.want(t, ok)
	if r.fake.steps != ok.Limit {
		t.Errorf("%d steps for one request of %d tokens", r.fake.steps, ok.Limit)
	}
	ok.Limit = 10 // exactly fills 3 pages: the last token is never stored
	r.want(t, ok)
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{}, {Vocab: 3}, {Context: 3}, {Vocab: 3, Context: 3, MaxSequences: -1}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v passes", o)
				}
			}()
			New(nil, kvcache.New(1, 1), o)
		}()
	}
}

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
			err = s.commit(tokens)
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
			err = s.commit(tokens)
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

func TestScoreOnly(t *testing.T) {
	for _, n := range []int{1, 2, 9, 30} {
		r := newRig(t, Options{Vocab: testVocab, Context: 64, TokensPerStep: 7, MaxSequences: 3}, 8, 4)
		req := Request{Prompt: seq(4, n), Samples: 1, PromptLogProbs: true}
		r.want(t, req)
		if s := r.Stats(); s.Drawn != 0 || s.Scored != int64(n-1) || s.Tokens != int64(n-1) {
			t.Errorf("prompt of %d: %+v", n, s)
		}
	}
}

// A choice is all that can be drawn, and its mask is in the log-probability, beside requests without.
func TestChoices(t *testing.T) {
	r := newRig(t, Options{Vocab: testVocab, Context: 64}, 40, 4)
	choices := [][]int32{{1, 2, 3}, {1, 2, 4}, {30}, {30, 36, 1}}
	req := Request{Prompt: seq(0, 9), Samples: 40, Limit: 5, Stop: []int32{9}, Choices: choices, Sampling: warm}
	go func() {
		for range r.Generate(t.Context(), Request{Prompt: seq(5, 5), Samples: 1, Limit: 50, Sampling: warm}) {
		}
	}()
	r.want(t, req)
	got, err := r.collect(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	count := make([]int, len(choices))
	for _, events := range got {
		var ids []int32
		for _, e := range events {
			ids = append(ids, e.Token.ID)
		}
		if ids[len(ids)-1] == 9 {
			ids = ids[:len(ids)-1]
		}
		i := slices.IndexFunc(choices, func(c []int32) bool { return slices.Equal(c, ids) })
		if i < 0 || events[len(events)-1].Done != Stop {
			t.Fatalf("%v, %v", ids, events[len(events)-1].Done)
		}
		count[i]++
	}
	if slices.Contains(count, 0) {
		t.Errorf("drawn %v times of 40", count)
	}
}

// within fails t if cond does not come true after a wait.
func within(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: never", what)
		}
	}
}

// A reader who leaves, by break or by its context, gives the pages back though the request could go on
// for long.
func TestLeaving(t *testing.T) {
	r := newRig(t, Options{Vocab: testVocab, Context: 1 << 20}, 1<<16, 16)
	req := Request{Prompt: seq(0, 100), Samples: 3, Limit: 1 << 19, Sampling: warm}
	slow := func(*batch.Batch) error { time.Sleep(100 * time.Microsecond); return nil }
	r.fake.onStep = slow
	idle := func() bool { s := r.Stats(); return s.Idle == s.Pages && s.Running+s.Waiting == 0 }
	for e, err := range r.Generate(t.Context(), req) {
		if err != nil || e.Done != Running {
			t.Fatal(e, err)
		}
		break
	}
	within(t, "pages free after break", idle)

	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	why := errors.New("the line is dead")
	var last error
	for _, err := range r.Generate(ctx, req) {
		cancel(why)
		last = err
	}
	if !errors.Is(last, why) {
		t.Errorf("ended with %v", last)
	}
	within(t, "pages free after cancel", idle)

	for _, err := range r.Generate(ctx, req) {
		last = err
	}
	if !errors.Is(last, why) {
		t.Errorf("begun after the cancel, ended with %v", last)
	}
	within(t, "pages free", idle)
}

// A reader who does not read holds up nobody, and finds all its events when it does. What it does with the
// request's slices meanwhile is its own affair.
func TestSlowReader(t *testing.T) {
	r := newRig(t, Options{Vocab: testVocab, Context: 64, MaxSequences: 1}, 40, 4)
	req := Request{Prompt: seq(0, 9), Samples: 2, Limit: 8, Stop: []int32{3}, Sampling: warm}
	want := r.fake.alone(req)
	changed := make(chan bool)
	r.fake.onStep = func(*batch.Batch) error {
		if r.fake.steps == 2 { // the second sample has yet to start
			<-changed
		}
		return nil
	}
	var got [2][]Event
	first := true
	for e, err := range r.Generate(t.Context(), req) {
		if err != nil {
			t.Fatal(err)
		}
		got[e.Sample] = append(got[e.Sample], e)
		if first {
			first = false
			clear(req.Prompt)
			req.Stop[0] = want[1][0].Token.ID
			close(changed)
			within(t, "all drawn", func() bool { return r.Stats().Drawn == int64(len(want[0])+len(want[1])) })
			r.want(t, Request{Prompt: seq(5, 5), Samples: 1, Limit: 5, Sampling: warm})
		}
	}
	if diff := cmp.Diff(want, got[:], outcome); diff != "" {
		t.Error(diff)
	}
}

// A failed step fails the requests that were running with its error, forgets what it may have half
// written, and leaves the others alone.
func TestStepFails(t *testing.T) {
	r := newRig(t, Options{Vocab: testVocab, Context: 64, MaxSequences: 2}, 40, 4)
	bad := errors.New("row 3 of lm_head: NaN")
	begun, release := make(chan bool), make(chan bool)
	r.fake.onStep = func(*batch.Batch) error {
		if r.fake.steps == 3 {
			begun <- true
			<-release
			return bad
		}
		return nil
	}
	req := Request{Prompt: seq(0, 9), Samples: 2, Limit: 10, Sampling: warm}
	failed := make(chan error)
	go func() { _, err := r.collect(t.Context(), req); failed <- err }()
	<-begun
	waits := make(chan error)
	go func() {
		got, err := r.collect(t.Context(), req)
		if diff := cmp.Diff(r.fake.alone(req), got); err == nil && diff != "" {
			err = errors.New(diff)
		}
		waits <- err
	}()
	within(t, "second request queued", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.arrived) == 1 })
	close(release)
	if err := <-failed; !errors.Is(err, bad) || err.Error() != "engine: step of 2 tokens: row 3 of lm_head: NaN" {
		t.Errorf("the running one ends with %v", err)
	}
	if err := <-waits; err != nil {
		t.Errorf("the waiting one: %v", err)
	}
	if n := r.Stats().Reused; n != 2*9 {
		t.Errorf("%d tokens reused, want 18, those of each request's second sample: the failed step's pages were found", n)
	}
}

// An answer that cannot be is an error, not a token.
func TestStepAnswersWrong(t *testing.T) {
	nan := float32(math.NaN())
	for want, spoil := range map[string]func(tokens []Token) []Token{
		"1 tokens for 2 wanted rows":     func(t []Token) []Token { return t[:1] },
		"its log-probability is NaN":     func(t []Token) []Token { t[1].LogProb = nan; return t },
		"id -1, which it cannot have":    func(t []Token) []Token { t[0].ID = -1; return t },
		"id 37, which it cannot have":    func(t []Token) []Token { t[0].ID = testVocab; return t },
		"id 5 was drawn, which its form": func(t []Token) []Token { t[0].ID = 5; return t },
	} {
		o := Options{Vocab: testVocab, Context: 64}
		f := newFake(o, 10, 4)
		e := New(spoiler{f, spoil}, kvcache.New(10, 4), o)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- e.Run(ctx) }()
		req := Request{Prompt: seq(0, 3), Samples: 2, Limit: 2, Choices: [][]int32{{1}, {2}}, Sampling: warm}
		var last error
		for _, err := range e.Generate(t.Context(), req) {
			last = err
		}
		if last == nil || !strings.Contains(last.Error(), want) {
			t.Errorf("%v, want %q", last, want)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

type spoiler struct {
	*fake
	spoil func([]Token) []Token
}

func (s spoiler) Step(b *batch.Batch, draws []sample.Draw) ([]Token, error) {
	tokens, err := s.fake.Step(b, draws)
	return s.spoil(tokens), err
}

// queued waits until n Exclusive calls wait.
func queued(t *testing.T, e *Engine, n int) {
	t.Helper()
	within(t, fmt.Sprintf("%d calls wait", n), func() bool { e.mu.Lock(); defer e.mu.Unlock(); return len(e.turns) == n })
}

// arrived waits until n requests have arrived that Run has not looked at.
func arrived(t *testing.T, e *Engine, n int) {
	t.Helper()
	within(t, fmt.Sprintf("%d arrived", n), func() bool { e.mu.Lock(); defer e.mu.Unlock(); return len(e.arrived) == n })
}

// After a fatal error nothing waits forever.
func TestFatal(t *testing.T) {
	o := Options{Vocab: testVocab, Context: 64, MaxSequences: 1}
	f := newFake(o, 10, 4)
	e := New(f, kvcache.New(10, 4), o)
	ends := make(chan error)
	f.onStep = func(*batch.Batch) error {
		if f.steps < 2 {
			return nil
		}
		go func() { ends <- e.Exclusive(t.Context(), func() error { return nil }) }()
		queued(t, e, 1)
		return fmt.Errorf("the card fell off the bus: %w", ErrFatal)
	}
	req := Request{Prompt: seq(0, 3), Samples: 2, Limit: 4}
	for range 3 { // one runs, two wait
		go func() {
			var last error
			for _, err := range e.Generate(t.Context(), req) {
				last = err
			}
			ends <- last
		}()
	}
	arrived(t, e, 3)
	if err := e.Run(t.Context()); !errors.Is(err, ErrFatal) {
		t.Errorf("Run: %v", err)
	}
	for range 4 {
		if err := <-ends; !errors.Is(err, ErrFatal) {
			t.Errorf("ended with %v", err)
		}
	}
	for _, err := range e.Generate(t.Context(), req) {
		if !errors.Is(err, ErrStopped) {
			t.Errorf("afterwards: %v", err)
		}
	}
	if err := e.Exclusive(t.Context(), nil); !errors.Is(err, ErrStopped) {
		t.Errorf("afterwards: %v", err)
	}
	if err := e.Run(t.Context()); err == nil {
		t.Error("it ran again")
	}
}

// Run ends when its context does: what has not finished ends with ErrStopped, and no page is held.
func TestRunEnds(t *testing.T) {
	r := newRig(t, Options{Vocab: testVocab, Context: 1 << 20, MaxSequences: 2}, 1<<12, 16)
	ends := make(chan error)
	for range 3 {
		go func() {
			_, err := r.collect(t.Context(), Request{Prompt: seq(0, 9), Samples: 2, Limit: 1 << 14, Sampling: warm})
			ends <- err
		}()
	}
	within(t, "two run", func() bool { return r.Stats().Running == 2 })
	if err := r.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	for range 3 {
		if err := <-ends; !errors.Is(err, ErrStopped) {
			t.Errorf("ended with %v", err)
		}
	}
	if s := r.Stats(); s.Idle != s.Pages || s.Running+s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
}

// Exclusive waits for the requests that have begun, all their samples too, holds back the others, and
// can be withdrawn while it waits.
func TestExclusive(t *testing.T) {
	r := newRig(t, Options{Vocab: testVocab, Context: 64, MaxSequences: 1}, 40, 4)
	entered, leave := make(chan bool), make(chan bool)
	r.fake.onStep = func(*batch.Batch) error { entered <- true; <-leave; return nil }
	req := Request{Prompt: seq(0, 5), Samples: 2, Limit: 2, Sampling: warm}
	ends := make(chan error, 4)
	generate := func() { _, err := r.collect(t.Context(), req); ends <- err }
	go generate()
	<-entered // its first step; the second of its samples has yet to start

	ctx, cancel := context.WithCancel(t.Context())
	go func() { ends <- r.Exclusive(ctx, func() error { t.Error("a withdrawn call ran"); return nil }) }()
	queued(t, r.Engine, 1)
	at := 0
	go func() {
		ends <- r.Exclusive(t.Context(), func() error {
			at = r.fake.steps
			if s := r.sched; len(s.running) != 0 || len(s.ready) != 0 || len(s.jobs) != 1 || s.jobs[0].started != 0 {
				t.Error("it does not have the engine for itself")
			}
			return nil
		})
	}()
	queued(t, r.Engine, 2)
	cancel()
	if err := <-ends; !errors.Is(err, context.Canceled) {
		t.Errorf("withdrawn: %v", err)
	}
	go generate()
	arrived(t, r.Engine, 1)
	leave <- true
	for range 3 + 4 {
		<-entered
		leave <- true
	}
	for range 3 {
		if err := <-ends; err != nil {
			t.Error(err)
		}
	}
	if at != 4 || r.fake.steps != 8 {
		t.Errorf("after step %d of %d, want 4 of 8", at, r.fake.steps)
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
		if err := s.commit(tokens[:len(p.draws)]); err != nil {
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
			err = s.commit(tokens)
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
