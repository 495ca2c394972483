package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/train/tasks"
)

type routeCmd struct {
	Question []string `arg:"" optional:"" help:"The question."`
	Input    string   `placeholder:"FILE.jsonl" help:"Rows {\"question\",\"answer\"?,\"benchmark\"?}; - is standard input."`
	Config   string   `required:"" placeholder:"r2.yaml" help:"The router and its pool."`
	deviceFlags
	outputFlags
}

func (c *routeCmd) Help() string {
	return `Example:

  r2 route --config r2.yaml "How many legs do three spiders and two dogs have?"`
}

// A routeRow is a row of --input.
type routeRow struct {
	Question  string  `json:"question"`
	Answer    *string `json:"answer"`
	Benchmark string  `json:"benchmark"`

	check tasks.Checker
}

// A routed is a row of --json: the trace, and whether it was right where that can be told.
type routed struct {
	Index int `json:"index"`
	*router.Trace
	Correct *bool `json:"correct,omitempty"`
}

// Run answers.
func (c *routeCmd) Run(ctx context.Context) error {
	in, err := c.rows()
	if err != nil {
		return err
	}
	cfg, err := readConfig(c.Config)
	if err != nil {
		return err
	}
	s, err := openStack(cfg, c.deviceFlags)
	if err != nil {
		return err
	}
	defer s.Close()
	right, checked, failed := 0, 0, 0
	bar := newProgress(c.outputFlags, "route", len(in), 0)
	defer bar.close()
	var last error
	for i, r := range in {
		t, err := s.router.Answer(ctx, r.Question)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed, last = failed+1, err
		}
		out := routed{Index: i, Trace: t}
		if r.check != nil && err == nil {
			ok := r.check(t.Answer, *r.Answer)
			out.Correct = &ok
			checked++
			if ok {
				right++
			}
		}
		if err := c.print(out); err != nil {
			return err
		}
		if len(in) > 1 {
			bar.step(i+1, fmt.Sprintf("$%v", s.pool.Spent()))
		}
	}
	if checked > 0 {
		c.note("%d of %d right", right, checked)
	}
	switch {
	case failed == 1 && len(in) == 1:
		return last
	case failed > 0:
		return fmt.Errorf("%d of %d questions had no answer; the last: %w", failed, len(in), last)
	}
	return nil
}

func (c *routeCmd) print(r routed) error {
	if c.JSON {
		return encodeLine(os.Stdout, r)
	}
	_, err := fmt.Println(r.Trace.String())
	return err
}

// rows are the questions.
func (c *routeCmd) rows() ([]routeRow, error) {
	if (len(c.Question) == 0) == (c.Input == "") {
		return nil, usage("give a question, or --input")
	}
	if c.Input == "" {
		q := c.Question[0]
		for _, w := range c.Question[1:] {
			q += " " + w
		}
		return []routeRow{{Question: q}}, nil
	}
	var out []routeRow
	for r, err := range rows(c.Input) {
		if err != nil {
			return nil, err
		}
		q := routeRow{}
		if err := r.decode(&q, false); err != nil {
			return nil, err
		}
		if q.Question == "" {
			return nil, r.errorf(`"question" is missing`)
		}
		if q.Benchmark != "" {
			b, err := tasks.Open(q.Benchmark)
			if err != nil {
				return nil, r.errorf("%w", err)
			}
			if q.Answer == nil {
				return nil, r.errorf(`"benchmark" needs "answer"`)
			}
			q.check = b.Check
		}
		out = append(out, q)
	}
	if len(out) == 0 {
		return nil, errors.New("there are no questions")
	}
	return out, nil
}
