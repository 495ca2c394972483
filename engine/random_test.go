package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/r2-reasoner/r2/engine/kvcache"
	"pgregory.net/rapid"
)

// Whatever else runs, in whatever order, with few pages or many, in small steps or large, a request
// gets what it would get alone.
func TestRandomSchedules(t *testing.T) {
	count, ahead, preempted, reused := 0, 0, int64(0), int64(0)
	rapid.Check(t, func(t *rapid.T) {
		p := playSchedule(t)
		count += p.count
		ahead += p.line.ahead
		preempted += p.sched.count.preempted
		reused += p.sched.count.reused
	})
	t.Logf("%d requests, %d preemptions, %d tokens reused, %d steps ahead", count, preempted, reused, ahead)
	if count < 500 || ahead < 500 || preempted < 50 || reused < 500 {
		t.Error("the schedules are too tame")
	}
}

// FuzzSchedules is TestRandomSchedules for as long as the fuzzer likes.
func FuzzSchedules(f *testing.F) { f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) { playSchedule(t) })) }

func playSchedule(t *rapid.T) *player {
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	size := 1 + rng.IntN(5)
	pages := 3 + rng.IntN(20)
	o := Options{Vocab: testVocab, Context: 40, Adapters: rng.IntN(3), TokensPerStep: 1 + rng.IntN(24), MaxSequences: 1 + rng.IntN(8), Chunk: rng.IntN(2) * (1 + rng.IntN(9))}
	fake := newFake(o, pages, size)
	p := &player{
		rng: rng, fake: fake, line: &line{fake: fake},
		sched: &scheduler{Options: o.complete(), pages: kvcache.New(pages, size)},
	}
	for range 60 {
		p.move(t)
	}
	for p.turn(t) {
	}
	if len(p.live) > 0 || p.sched.pages.Idle() != pages {
		t.Fatalf("%d requests never ended, %d of %d pages are idle", len(p.live), p.sched.pages.Idle(), pages)
	}
	return p
}

// A player drives a scheduler by hand.
type player struct {
	rng   *rand.Rand
	fake  *fake
	line  *line // on the fake
	sched *scheduler
	live  []*played
	count int
}

// played is what a request has got so far, and what it must get.
type played struct {
	*job
	prompts
	got, want [][]Event
	left      bool
}

// move does one random thing.
func (p *player) move(t *rapid.T) {
	switch n := p.rng.IntN(20); {
	case n < 8:
		p.submit(t)
	case n < 18:
		p.turn(t)
	case n == 18:
		p.leave()
	default:
		p.exclusive(t)
	}
}

func (p *player) submit(t *rapid.T) {
	r := randomRequest(p.rng, p.sched.Options, len(p.fake.slots))
	if err := r.check(&p.sched.Options, p.sched.pages); err != nil {
		t.Fatal(err)
	}
	c, err := r.rules(testVocab)
	if err != nil {
		return // the stop id is in a choice, or such
	}
	if r.stored() == 0 {
		return // answered without a step
	}
	j := newJob(r, c)
	p.live = append(p.live, &played{job: j, got: make([][]Event, r.Samples), want: p.fake.alone(r)})
	if err := (&inventory{fixed: p.sched.Adapters}).resolve(j); err != nil {
		t.Fatal(err)
	}
	p.sched.enqueue(j)
	p.count++
}

// turn takes a step, and as many behind it as it likes and can, checks everything, and reports whether there was
// something to do.
func (p *player) turn(t *rapid.T) bool {
	s := p.sched
	first := s.next()
	began := first != nil && p.line.Begin(&first.batch, first.draws)
	for now := first; now != nil; {
		var next *plan
		if began && p.rng.IntN(6) > 0 {
			if next = s.ahead(now); next != nil && !p.line.Begin(&next.batch, next.draws) {
				next = nil
			}
		}
		tokens, err := []Token(nil), error(nil)
		if began {
			tokens, err = p.line.Finish()
		} else {
			tokens, err = p.fake.Step(&now.batch, now.draws)
		}
		if err == nil {
			err = s.commit(now, tokens)
		}
		if err != nil {
			t.Fatal(err)
		}
		s.deliver()
		p.look(t)
		if p.rng.IntN(20) == 0 {
			p.leave()
		}
		now = next
	}
	p.look(t)
	return first != nil
}

// look checks the scheduler and what has come.
func (p *player) look(t *rapid.T) {
	if err := p.sched.check(); err != nil {
		t.Fatal(err)
	}
	p.live = slices.DeleteFunc(p.live, func(l *played) bool { return p.receive(t, l) })
}

// leave makes one of the readers go.
func (p *player) leave() {
	if len(p.live) > 0 {
		l := p.live[p.rng.IntN(len(p.live))]
		l.end(nil)
		l.left = true
	}
}

// receive compares what has come for a request and reports whether that was all.
func (p *player) receive(t *rapid.T, l *played) bool {
	events, over, err := l.take(nil)
	if l.left {
		return true
	}
	if err != nil && (!errors.Is(err, errNothing) || !stuck(l.want)) {
		t.Fatal(err)
	}
	for _, e := range events {
		l.prompts.add(l.got, e)
		n := len(l.got[e.Sample])
		if diff := cmp.Diff(l.want[e.Sample][:n], l.got[e.Sample]); diff != "" {
			t.Fatalf("%+v, sample %d (-alone +here):\n%s", l.Request, e.Sample, diff)
		}
	}
	if over && err == nil {
		for n := range l.got {
			if len(l.got[n]) != len(l.want[n]) {
				t.Fatalf("sample %d ended after %d of %d events", n, len(l.got[n]), len(l.want[n]))
			}
		}
	}
	return over
}

// stuck reports whether one of the samples comes to where nothing can be drawn.
func stuck(want [][]Event) bool {
	return slices.ContainsFunc(want, func(s []Event) bool { return s[len(s)-1].Token.ID == -2 })
}

// exclusive lets what has begun finish, and changes the weights.
func (p *player) exclusive(t *rapid.T) {
	p.sched.hold = true
	for p.turn(t) {
	}
	if !p.sched.idle() || p.sched.pages.Idle() != p.sched.pages.Pages() {
		t.Fatal("nothing is left to do, and something has begun")
	}
	p.sched.hold = false
	p.fake.generation++
	p.sched.pages.Drop()
	for _, l := range p.live {
		l.want = p.fake.alone(l.Request)
	}
}

// The same through goroutines: many clients, some of whom leave, some of whom are slow, and weights
// that change under Exclusive.
func TestManyClients(t *testing.T) {
	o := Options{Vocab: testVocab, Context: 48, Adapters: 2, TokensPerStep: 20, MaxSequences: 6}
	const pages, size, clients, each = 18, 4, 12, 25
	r := newRig(t, o, pages, size)
	var mu sync.Mutex // of the generation
	generation := func() uint64 { mu.Lock(); defer mu.Unlock(); return r.fake.generation }
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(client), 2))
			for range each {
				if err := oneClient(t.Context(), r, rng, o, pages*size, generation); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 10 {
		err := r.Exclusive(t.Context(), func() error {
			mu.Lock()
			defer mu.Unlock()
			if n := r.sched.pages.Idle(); n != pages {
				return fmt.Errorf("%d of %d pages are idle inside Exclusive", n, pages)
			}
			r.fake.generation++
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	s := r.Stats()
	t.Logf("%+v", s)
	if s.Idle != pages || s.Running+s.Waiting != 0 {
		t.Errorf("at the end: %+v", s)
	}
}

// oneClient makes a request, and leaves early or compares what it gets with what it would get alone
// under one of the generations there were meanwhile.
func oneClient(ctx context.Context, r *rig, rng *rand.Rand, o Options, room int, generation func() uint64) error {
	req := randomRequest(rng, o, room)
	if _, err := req.rules(o.Vocab); err != nil {
		return nil
	}
	leave := -1
	if rng.IntN(4) == 0 {
		leave = rng.IntN(6)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	why := errors.New("enough")
	first, n := generation(), 0
	got := make([][]Event, req.Samples)
	var p prompts
	for e, err := range r.Generate(ctx, req) {
		if err != nil {
			if leave >= 0 && errors.Is(err, why) || errors.Is(err, errNothing) {
				return nil
			}
			return err
		}
		p.add(got, e)
		if n++; n == leave && rng.IntN(2) == 0 {
			return nil
		} else if n == leave {
			cancel(why)
		}
	}
	for g := first; ; g++ {
		want := world{o.Vocab, g}.alone(req)
		if slices.EqualFunc(got, want, func(a, b []Event) bool { return cmp.Equal(a, b) }) {
			return nil
		}
		if g >= generation() {
			return fmt.Errorf("%+v: got\n%v, alone\n%v", req, got, want)
		}
	}
}
