package engine

import (
	"slices"
	"testing"

	"github.com/r2-reasoner/r2/engine/kvcache"
	"github.com/r2-reasoner/r2/engine/sample"
)

// An urgent request goes before those that wait and takes the place of one that runs; all get what they
// would get alone.
func TestPriority(t *testing.T) {
	for name, c := range map[string]struct{ sequences, pages int }{
		"no sequence is free": {2, 40},
		"no page is free":     {8, 11},
	} {
		o := Options{Vocab: testVocab, Context: 64, MaxSequences: c.sequences}
		f := newFake(o, c.pages, 2)
		s := &scheduler{Options: o.complete(), pages: kvcache.New(c.pages, 2)}
		var over []string
		jobs := map[string]*job{}
		got := map[string][]Event{}
		add := func(name string, priority int) {
			r := Request{Prompt: seq(len(jobs), 4), Samples: 1, Limit: 6, Sampling: warm, Priority: priority}
			jobs[name] = newJob(r, rules{})
			s.enqueue(jobs[name])
		}
		add("early", 1)
		add("second", 1)
		add("third", 1)
		for step := 0; ; step++ {
			if step == 2 {
				add("late", 2)
				add("urgent", -1)
			}
			p := s.next()
			if p == nil {
				break
			}
			if step == 2 && !slices.ContainsFunc(p.parts, func(part part) bool { return part.seq.job == jobs["urgent"] }) {
				t.Errorf("%s: the urgent request waits", name)
			}
			tokens, err := f.Step(&p.batch, p.draws)
			if err == nil {
				err = s.commit(p, tokens)
			}
			if err != nil {
				t.Fatal(err)
			}
			s.deliver()
			if err := s.check(); err != nil {
				t.Fatal(err)
			}
			for name, j := range jobs {
				events, ended, _ := j.take(nil)
				got[name] = append(got[name], events...)
				if len(events) > 0 && ended {
					over = append(over, name)
				}
			}
		}
		if s.count.preempted == 0 {
			t.Errorf("%s: nobody gave way", name)
		}
		if at := slices.Index(over, "third"); len(over) != 5 || slices.Index(over, "urgent") > at || over[4] != "late" {
			t.Errorf("%s: ended in the order %v", name, over)
		}
		for name, j := range jobs {
			diff(t, name, f.alone(j.Request)[0], got[name])
		}
	}
}

// A request finds the prefixes of its own salt only.
func TestSalt(t *testing.T) {
	r := newRig(t, Options{Vocab: testVocab, Context: 64}, 40, 4)
	for i, c := range []struct {
		salt   string
		reused int64
	}{{"", 0}, {"a", 0}, {"", 8}, {"b", 0}, {"a", 8}, {"0/a", 0}} {
		before := r.Stats().Reused
		r.want(t, Request{Prompt: seq(0, 9), Samples: 1, Limit: 2, Salt: c.salt})
		if n := r.Stats().Reused - before; n != c.reused {
			t.Errorf("request %d, salt %q: %d tokens were reused, want %d", i, c.salt, n, c.reused)
		}
	}
}

// The first event says how the request began.
func TestStart(t *testing.T) {
	r := newRig(t, Options{Vocab: testVocab, Context: 64}, 40, 4)
	for i, want := range []int{0, 8} {
		n := 0
		for e, err := range r.Generate(t.Context(), Request{Prompt: seq(0, 9), Samples: 2, Limit: 3, Sampling: sample.Params{Temperature: 1}}) {
			if err != nil {
				t.Fatal(err)
			}
			if n++; (e.Start != nil) != (n == 1) || n == 1 && (e.Start.Cached != want || e.Start.Queued <= 0) {
				t.Errorf("request %d, event %d: %+v, want %d cached", i, n, e.Start, want)
			}
		}
	}
}
