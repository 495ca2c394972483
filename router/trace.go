package router

import (
	"fmt"
	"slices"
	"strings"
)

// A Trace is what was done for one question and what it cost. As JSON it is a row of r2 route --json.
type Trace struct {
	Question string           `json:"question"`
	Answer   string           `json:"answer"`
	Steps    []Step           `json:"steps"`
	LeftOut  []string         `json:"left_out,omitempty"` // models the allocator could not choose, because they fail
	Ledger   map[Stage]Totals `json:"ledger"`             // of the stages that made calls
	Calls    []Call           `json:"calls"`
	In       int              `json:"in"`
	Out      int              `json:"out"`
	Cost     Money            `json:"cost"`              // USD
	Stopped  Stage            `json:"stopped,omitempty"` // the stage that failed
	Error    string           `json:"error,omitempty"`
	Seconds  float64          `json:"seconds"`
}

// A Step is a subtask, the model that it was allocated to, and its answer.
type Step struct {
	Subtask string `json:"subtask"`
	Model   string `json:"model,omitempty"` // "" when things stopped before the allocation
	Answer  string `json:"answer"`

	// Confidence is what the allocation rests on, in 0 … 1: see Ledger.Confide. Nil when it rests on none.
	Confidence *float64 `json:"confidence,omitempty"`

	Done    bool   `json:"done"`              // it has been answered
	Draft   string `json:"draft,omitempty"`   // the model's own answer, when the review changed it
	Changed bool   `json:"changed,omitempty"` // by the review
}

// Totals are sums over calls.
type Totals struct {
	Calls   int     `json:"calls"`
	In      int     `json:"in"`
	Out     int     `json:"out"`
	Cost    Money   `json:"cost"` // USD
	Seconds float64 `json:"seconds"`
}

// Plan is the subtasks of the steps.
func (t *Trace) Plan() Plan {
	p := make(Plan, len(t.Steps))
	for i, s := range t.Steps {
		p[i] = s.Subtask
	}
	return p
}

// Models are the models of the steps.
func (t *Trace) Models() []string {
	m := make([]string, len(t.Steps))
	for i, s := range t.Steps {
		m[i] = s.Model
	}
	return m
}

// set starts the steps from a plan, and from models where there are any.
func (t *Trace) set(plan Plan, models []string) {
	t.Steps = make([]Step, len(plan))
	for i, s := range plan {
		t.Steps[i].Subtask = s
		if i < len(models) {
			t.Steps[i].Model = models[i]
		}
	}
}

// account sets the calls and their sums.
func (t *Trace) account(calls []Call) {
	t.Calls, t.Ledger = append([]Call{}, calls...), map[Stage]Totals{}
	for _, c := range calls {
		s := t.Ledger[c.Stage]
		s.Calls++
		s.In += c.In
		s.Out += c.Out
		s.Cost = s.Cost.Plus(c.Cost)
		s.Seconds += c.Seconds
		t.Ledger[c.Stage] = s
		t.In += c.In
		t.Out += c.Out
		t.Cost = t.Cost.Plus(c.Cost)
	}
}

// String writes the trace for people: the question, a line for each step and its answer, the final answer, and
// a line of costs for each stage.
func (t *Trace) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "question  %s\n", indent(t.Question))
	for i, s := range t.Steps {
		model := s.Model
		if model == "" {
			model = "not allocated"
		}
		fmt.Fprintf(&b, "%8d  %s  [%s]\n", i+1, indent(s.Subtask), model)
		if s.Changed {
			fmt.Fprintf(&b, "       ×  %s\n", indent(s.Draft))
		}
		if s.Done {
			fmt.Fprintf(&b, "       →  %s\n", indent(s.Answer))
		}
	}
	if len(t.LeftOut) > 0 {
		fmt.Fprintf(&b, "left out  %s: no answer of late\n", strings.Join(t.LeftOut, ", "))
	}
	if t.Error != "" {
		fmt.Fprintf(&b, "stopped   %s: %s\n", t.Stopped, indent(t.Error))
	} else {
		fmt.Fprintf(&b, "answer    %s\n", indent(t.Answer))
	}
	for _, stage := range Stages {
		if s, ok := t.Ledger[stage]; ok {
			fmt.Fprintf(&b, "%-9s %s, %d tokens in, %d out, $%v, %.2f s\n",
				stage, plural(s.Calls, "call"), s.In, s.Out, s.Cost, s.Seconds)
		}
	}
	fmt.Fprintf(&b, "%-9s %s, %d tokens in, %d out, $%v, %.2f s\n",
		"total", plural(len(t.Calls), "call"), t.In, t.Out, t.Cost, t.Seconds)
	return b.String()
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// indent keeps the lines of a text under its first.
func indent(s string) string {
	return strings.Join(slices.Collect(strings.SplitSeq(strings.TrimSpace(s), "\n")), "\n          ")
}
