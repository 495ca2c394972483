package bench

import (
	"context"
	"fmt"
	"time"
)

// Prefill measures prompt tokens a second: a prompt in one batch, until its first token is drawn.
func (s *Subject) Prefill(ctx context.Context, l Load) (Row, error) {
	l.Tokens, l.Samples, l.Prompts = 1, 1, 0
	each, err := s.generate(ctx, l, func(first, _ time.Duration) time.Duration { return first })
	if err != nil {
		return Row{}, err
	}
	return s.row("prefill", fmt.Sprintf("prompt of %d", l.Prompt), "tokens/s", float64(l.Prompt), s.prefill(1, l.Prompt), each), nil
}

// Decode measures tokens a second of one sequence: Tokens steps after a prompt, which does not count.
func (s *Subject) Decode(ctx context.Context, l Load) (Row, error) {
	l.Samples, l.Prompts = 1, 0
	l.Tokens++ // the first comes with the prompt
	each, err := s.generate(ctx, l, func(first, last time.Duration) time.Duration { return last - first })
	if err != nil {
		return Row{}, err
	}
	n := l.Tokens - 1
	return s.row("decode", fmt.Sprintf("%d tokens after %d", n, l.Prompt), "tokens/s", float64(n), s.steps(1, l.Prompt, n, 1), each), nil
}

// Group measures drawn tokens a second of samples that share a prompt: the prompt's time counts, and
// Tokens steps of all samples after it.
func (s *Subject) Group(ctx context.Context, l Load) (Row, error) {
	l.Prompts = 0
	l.Tokens++
	each, err := s.generate(ctx, l, func(_, last time.Duration) time.Duration { return last })
	if err != nil {
		return Row{}, err
	}
	n := l.Tokens - 1
	return s.row("group", fmt.Sprintf("%d samples of %d tokens after a shared %d", l.Samples, n, l.Prompt), "tokens/s",
		float64(n*l.Samples), s.prefill(1, l.Prompt)+s.steps(1, l.Prompt, n, l.Samples), each), nil
}

// generate runs a load and gives what took counts of each run.
func (s *Subject) generate(ctx context.Context, l Load, took func(first, last time.Duration) time.Duration) ([]float64, error) {
	if err := s.check(l); err != nil {
		return nil, err
	}
	n, err := s.session(l, nil)
	if err != nil {
		return nil, err
	}
	each, err := s.repeat(func(run int) (time.Duration, error) {
		first, last, err := n.draw(ctx, s.prompt(run, l.Prompt), l.Tokens, l.Samples, s.Seed+uint64(run))
		return took(first, last), err
	})
	if e := n.close(); err == nil {
		err = e
	}
	return each, err
}
