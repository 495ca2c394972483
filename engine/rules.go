package engine

import (
	"errors"
	"slices"

	"github.com/r2-reasoner/r2/engine/sample"
)

// rules say which ids a completion may draw.
type rules struct {
	form    sample.Form // nil: free
	allowed []uint32    // a bit set; nil: all
	words   [][]int32   // of more than one id: the last may not follow the others
	stop    []int32     // not before min tokens
	min     int
}

// rules are r's. Rules that leave nothing to begin with are refused.
func (r *Request) rules(vocab int) (u rules, err error) {
	if u.form, err = r.form(vocab); err != nil || r.Limit == 0 {
		return u, err
	}
	if r.MinTokens > 0 {
		u.stop, u.min = slices.Clone(r.Stop), r.MinTokens
	}
	single := func(w []int32) bool { return len(w) == 1 }
	if r.Allowed != nil || slices.ContainsFunc(r.BadWords, single) {
		u.allowed = make([]uint32, (vocab+31)/32)
		if r.Allowed == nil {
			everything(u.allowed, vocab)
		}
		for _, id := range r.Allowed {
			u.allowed[id/32] |= 1 << (id % 32)
		}
	}
	for _, w := range r.BadWords {
		if single(w) {
			forbid(u.allowed, w[0])
		} else {
			u.words = append(u.words, slices.Clone(w))
		}
	}
	if u.bind(0) {
		err = u.allow(make([]uint32, (vocab+31)/32), vocab, 0, nil)
	}
	return u, err
}

// errNothing is what a completion ends with that cannot go on.
var errNothing = errors.New("its form, allowed_token_ids, bad_words and min_tokens together leave no token to draw")

// bind reports whether the rules say something about token n of a completion.
func (u *rules) bind(n int) bool {
	return u.form != nil || u.allowed != nil || len(u.words) > 0 || n < u.min
}

// allow sets mask to the ids that may follow drawn, where the form is in state. It is an error if there are
// none, or if the form, which may say so by a method Err, can no longer tell.
func (u *rules) allow(mask []uint32, vocab int, state int32, drawn []int32) error {
	if u.form != nil {
		u.form.Allow(state, mask)
		if f, ok := u.form.(interface{ Err() error }); ok && f.Err() != nil {
			return f.Err()
		}
	} else {
		everything(mask, vocab)
	}
	if u.allowed != nil {
		for i, w := range u.allowed {
			mask[i] &= w
		}
	}
	for _, w := range u.words {
		before, last := w[:len(w)-1], w[len(w)-1]
		if len(drawn) >= len(before) && slices.Equal(drawn[len(drawn)-len(before):], before) {
			forbid(mask, last)
		}
	}
	if len(drawn) < u.min {
		for _, id := range u.stop {
			forbid(mask, id)
		}
	}
	if !slices.ContainsFunc(mask, func(w uint32) bool { return w != 0 }) {
		return errNothing
	}
	return nil
}

// everything sets mask to all ids.
func everything(mask []uint32, vocab int) {
	for i := range mask {
		mask[i] = 1<<32 - 1
	}
	if vocab%32 != 0 {
		mask[len(mask)-1] = 1<<(vocab%32) - 1
	}
}

func forbid(mask []uint32, id int32) { mask[id/32] &^= 1 << (id % 32) }
