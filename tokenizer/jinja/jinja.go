// Package jinja runs chat templates: the part of Jinja2 that language models'
// templates use, with Python's values and rules, set up as transformers sets it
// up (trim_blocks and lstrip_blocks on, loop controls, generation blocks,
// immutable values, tojson without HTML escapes, raise_exception, strftime_now).
//
// It is not gonja because that library does not keep Python's rules where a
// prompt's bytes depend on them: None and undefined are one value that prints as
// nothing, text plus a number is text, messages[-1] of a single message is
// nothing, strip() takes spaces only, dicts lose their order, an expression
// cannot hold "a if b else c" inside; and because it cannot stop a template that
// does not end. Tests compare with renders of Jinja2 3.1.6.
//
// A template can neither reach files nor run long: what it may compute and
// write is bounded.
package jinja

import (
	"fmt"
	"strings"
	"time"
)

// What a template may do before it is stopped.
const (
	maxSource = 1 << 20    // bytes of a template
	maxSteps  = 10_000_000 // expressions and statements run, 16 bytes made counting as one
	maxOutput = 64 << 20   // bytes written, and of one string
	maxItems  = 1 << 20    // items of one list
	maxNest   = 200        // calls inside calls, and nesting of the source
	maxRange  = 100_000    // numbers in a range, as in Jinja2's sandbox
)

// A Template is a parsed template. It is safe for concurrent use.
type Template struct{ body []stmt }

// Parse reads a template. An error names the line.
func Parse(src string) (t *Template, err error) {
	defer recoverTo(&err)
	if len(src) > maxSource {
		return nil, fmt.Errorf("a template of %d bytes, the limit is %d", len(src), maxSource)
	}
	p := &parser{tokens: lex(src)}
	return &Template{p.template()}, nil
}

// Render runs the template with variables. They may hold what ParseValue makes
// (nil, bool, int, *big.Int, float64, string, []any, Object), and plain Go maps
// with string keys (in order of their keys), slices and numbers.
func (t *Template) Render(vars map[string]any) (text string, err error) {
	defer recoverTo(&err)
	r := &run{out: &strings.Builder{}, now: time.Now()}
	top := &frame{run: r, vars: make(map[string]any, len(vars))}
	for name, v := range vars {
		if top.vars[name], err = normal(v, 0); err != nil {
			return "", fmt.Errorf("variable %s: %w", name, err)
		}
	}
	execute(t.body, top)
	return r.out.String(), nil
}

// A failure is how parsing and rendering stop: thrown where it happens, caught
// at the package's edge.
type failure struct {
	line int
	text string
}

func (e *failure) Error() string {
	if e.line > 0 {
		return fmt.Sprintf("line %d: %s", e.line, e.text)
	}
	return e.text
}

func fail(format string, args ...any) {
	panic(&failure{text: fmt.Sprintf(format, args...)})
}

func recoverTo(err *error) {
	switch e := recover().(type) {
	case nil:
	case *failure:
		*err = e
	default: // a mistake in this package must not take a server down
		*err = fmt.Errorf("internal error: %v", e)
	}
}

// A run is one rendering.
type run struct {
	out   *strings.Builder
	steps int
	depth int
	now   time.Time
}

// step counts work and stops a template that does too much.
func (r *run) step(n int) {
	if r.steps += n; r.steps > maxSteps {
		fail("the template does too much (more than %d steps)", maxSteps)
	}
}

func (r *run) write(s string) {
	if r.out.Len()+len(s) > maxOutput {
		fail("the template writes more than %d bytes", maxOutput)
	}
	r.step(len(s) / 16)
	r.out.WriteString(s)
}

// capture runs f and returns what it writes.
func (r *run) capture(f func()) string {
	outer := r.out
	r.out = &strings.Builder{}
	defer func() { r.out = outer }()
	f()
	return r.out.String()
}

// nested runs f one call deeper.
func (r *run) nested(f func()) {
	if r.depth++; r.depth > maxNest {
		fail("calls nested deeper than %d", maxNest)
	}
	f()
	r.depth--
}

// A frame is one scope of variables.
type frame struct {
	run    *run
	vars   map[string]any
	parent *frame
}

func (f *frame) child() *frame {
	return &frame{run: f.run, vars: map[string]any{}, parent: f}
}

func (f *frame) lookup(name string) any {
	for g := f; g != nil; g = g.parent {
		if v, ok := g.vars[name]; ok {
			return v
		}
	}
	if v, ok := globals[name]; ok {
		return v
	}
	return undefined{fmt.Sprintf("'%s' is undefined", name)}
}
