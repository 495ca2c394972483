package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"

	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/train/tasks"
)

// A grpoTask is a prompt, and what its completions are judged by.
type grpoTask struct {
	ids    []int32
	prompt string
	answer string
	fields map[string]json.RawMessage
	place  string // file and line, or the benchmark's
}

// places are where tasks come from.
func places(ts []*grpoTask) (names []string) {
	for _, t := range ts {
		names = append(names, t.place)
	}
	return names
}

// grpoTasks are the tasks of a run by their numbers, each made when its turn comes. Of rows only the places are
// held; a benchmark in its own format is held as text.
type grpoTasks struct {
	s       *scorer
	name    string     // of the benchmark
	rows    *rowFiles  // nil: those of
	all     []question // a benchmark
	longest int        // tokens
	left    sieve      // of all
}

// A question is a benchmark's task and its number there, from 1.
type question struct {
	tasks.Task
	number int
}

// tasks are the rows of --data, else the benchmark's training split.
func (s *scorer) tasks(c *grpoCmd) (*grpoTasks, error) {
	if s.bench != nil && (c.Data == "" || !isRows(c.Data)) {
		return s.questions(c)
	}
	rows, err := openRows([]string{c.Data}, c.dataFlags, func(r row) (int, error) {
		g, err := s.row(r)
		if err != nil {
			return 0, err
		}
		return len(g.ids), c.fits(g, s.h.context)
	})
	if err != nil {
		return nil, err
	}
	rows.say(c.outputFlags)
	return &grpoTasks{s: s, rows: rows, longest: rows.longest}, nil
}

// fits is an error where a prompt and a completion are longer than the context.
func (c *grpoCmd) fits(g *grpoTask, context int) error {
	if len(g.ids)+c.MaxTokens <= context {
		return nil
	}
	return fmt.Errorf("%s: a prompt of %d tokens and %d more %w of %d; take a smaller --max-tokens, or leave such rows out by --long drop", g.place, len(g.ids), c.MaxTokens, errLong, context)
}

// isRows reports whether a file begins with a row that has a prompt, and not in a benchmark's own format.
func isRows(path string) bool {
	for r, err := range rows(path) {
		var in struct{ Prompt, Messages json.RawMessage }
		return err == nil && r.decode(&in, false) == nil && (in.Prompt != nil || in.Messages != nil)
	}
	return false
}

// questions are the tasks of a benchmark: of the file that is given, or those that come with the program.
func (s *scorer) questions(c *grpoCmd) (*grpoTasks, error) {
	var all []tasks.Task
	var err error
	if c.Data != "" {
		all, err = s.bench.Read(c.Data)
	} else if all, err = s.bench.Load("train"); err != nil {
		err = usageError{err}
	}
	if err != nil {
		return nil, err
	}
	g := &grpoTasks{s: s, name: c.Task, left: sieve{dataFlags: c.dataFlags}}
	for i, t := range all {
		q := question{t, i + 1}
		task, err := g.ask(q)
		if err != nil {
			return nil, err
		}
		if err := c.fits(task, s.h.context); err != nil {
			if err := g.left.out(err); err != nil {
				return nil, err
			}
			continue
		}
		g.all, g.longest = append(g.all, q), max(g.longest, len(task.ids))
	}
	g.left.say(c.outputFlags)
	return g, g.left.some(c.Data, len(g.all))
}

// ask makes the task of a question, with what has to stand behind it.
func (g *grpoTasks) ask(q question) (*grpoTask, error) {
	t, err := g.s.task([]router.Message{{Role: "user", Content: q.Question + g.s.bench.Ask}}, "")
	if err != nil {
		return nil, err
	}
	t.prompt, t.answer, t.place = q.Question, q.Answer, fmt.Sprintf("%s:%d", g.name, q.number)
	return t, nil
}

// count is how many tasks there are.
func (g *grpoTasks) count() int {
	if g.rows != nil {
		return len(g.rows.places)
	}
	return len(g.all)
}

// read makes tasks by their numbers.
func (g *grpoTasks) read(numbers []int) (out []*grpoTask, err error) {
	for _, i := range numbers {
		var t *grpoTask
		if g.rows == nil {
			t, err = g.ask(g.all[i])
		} else {
			var r row
			if r, err = g.rows.row(i); err == nil {
				if t, err = g.s.row(r); err != nil {
					err = changed(err)
				}
			}
		}
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

// Close closes the files.
func (g *grpoTasks) Close() {
	if g.rows != nil {
		g.rows.Close()
	}
}

// row is the task of a row.
func (s *scorer) row(r row) (*grpoTask, error) {
	var in struct {
		Prompt   string           `json:"prompt"`
		Messages []router.Message `json:"messages"`
		Answer   json.RawMessage  `json:"answer"`
	}
	if err := r.decode(&in, false); err != nil {
		return nil, err
	}
	if (in.Prompt == "") == (len(in.Messages) == 0) {
		return nil, r.errorf(`want either "prompt" or "messages"`)
	}
	g, err := s.task(in.Messages, in.Prompt)
	if err != nil {
		return nil, r.errorf("%w", err)
	}
	if len(g.ids) == 0 {
		return nil, r.errorf("the prompt is empty")
	}
	g.prompt, g.place = in.Prompt, r.place
	if json.Unmarshal(in.Answer, &g.answer) != nil {
		g.answer = string(in.Answer)
	}
	if s.bench != nil && len(in.Answer) == 0 {
		return nil, r.errorf(`the checker needs "answer"`)
	}
	return g, r.decode(&g.fields, false)
}

// task renders a prompt.
func (s *scorer) task(ms []router.Message, prompt string) (*grpoTask, error) {
	m, err := s.h.text(1)
	if err != nil {
		return nil, err
	}
	ids, err := m.Render(router.Request{Messages: ms, Prompt: prompt})
	return &grpoTask{ids: ids}, err
}

// draw gives the numbers of a step's tasks, in the order of the epochs, and of spare ones.
func (c *grpoCmd) draw(order *shuffle, step int) (tasks, spare []int) {
	n := order.n
	for i := step * c.Prompts; i < (step+1)*c.Prompts; i++ {
		tasks = append(tasks, order.in(i / n)[i%n])
	}
	rng := rand.New(rand.NewPCG(c.Seed, 1<<63|uint64(step)))
	for range c.Refill {
		spare = append(spare, rng.IntN(n))
	}
	return tasks, spare
}
