package engine

import (
	"errors"
	"strings"
	"testing"
)

// failing is a form that fails after some tokens.
type failing struct {
	after int32
	at    int32
}

var errTooMuch = errors.New("the form is too much")

func (f *failing) Allow(state int32, mask []uint32) {
	f.at = max(f.at, state)
	clear(mask)
	if f.Err() == nil {
		mask[0] = 1<<3 | 1<<4
	}
}

func (f *failing) Next(state, id int32) (int32, bool, bool) {
	return state + 1, false, id == 3 || id == 4
}

func (f *failing) Err() error {
	if f.at >= f.after {
		return errTooMuch
	}
	return nil
}

// A form that fails ends the requests that have it with its own words, and disturbs no other.
func TestFormFails(t *testing.T) {
	r := newRig(t, Options{Vocab: testVocab, Context: 64}, 40, 4)
	other := make(chan error)
	go func() {
		_, err := r.collect(t.Context(), Request{Prompt: seq(0, 9), Samples: 4, Limit: 40, Sampling: warm})
		other <- err
	}()
	got, err := r.collect(t.Context(), Request{Prompt: seq(0, 9), Samples: 1, Limit: 20, Sampling: warm, Form: &failing{after: 5}})
	if !errors.Is(err, errTooMuch) || !strings.Contains(err.Error(), "after 5 tokens") || len(got[0]) > 5 {
		t.Errorf("%d events, %v", len(got[0]), err)
	}
	if err := <-other; err != nil {
		t.Error(err)
	}
	// Another completion broke it between the check of the request and its start.
	f := &failing{after: 1 << 30}
	j := newJob(Request{Prompt: seq(0, 2), Samples: 1, Limit: 3}, rules{form: f})
	f.after = 0
	if s := newSequence(j, testVocab); !j.gone() || s.mask[0] == 0 {
		t.Errorf("gone %v, mask %b", j.gone(), s.mask)
	}
}
