package engine

import (
	"errors"
	"slices"

	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/model/batch"
)

// A line is a fake that takes steps one behind the other: what the first has drawn the second knows, and the scheduler not yet.
// Every fifth it does not take.
type line struct {
	*fake
	asked, ahead int // steps that it was asked to begin; those that it began behind another
	drawn        []Token
	answers      []answer
}

type answer struct {
	tokens []Token
	err    error
}

func (l *line) Begin(b *batch.Batch, draws []sample.Draw) bool {
	l.asked++
	follows := slices.ContainsFunc(b.Tokens, func(t int32) bool { return t < 0 })
	unknown := func(d sample.Draw) bool { return d.Host() } // penalties need to know what was drawn
	if l.asked%5 == 0 || follows && slices.ContainsFunc(draws, unknown) {
		return false
	}
	if follows != (len(l.answers) > 0) || len(l.answers) > 1 {
		panic("a step follows one that is not under way, or does not follow the one that is")
	}
	if follows && l.answers[0].err != nil {
		l.answers = append(l.answers, l.answers[0])
		return true
	}
	known := *b
	known.Tokens = slices.Clone(b.Tokens)
	for i, t := range known.Tokens {
		if t < 0 {
			known.Tokens[i] = l.drawn[^t].ID
		}
	}
	tokens, err := l.Step(&known, draws)
	if l.drawn = slices.Clone(tokens); follows {
		l.ahead++
	}
	l.answers = append(l.answers, answer{l.drawn, err})
	return true
}

func (l *line) Finish() ([]Token, error) {
	if len(l.answers) == 0 {
		return nil, errors.New("no step is under way")
	}
	a := l.answers[0]
	if l.answers = slices.Delete(l.answers, 0, 1); a.err != nil {
		l.answers = nil
	}
	return a.tokens, a.err
}
