package jinja

import "slices"

// An expr computes a value, a stmt does something; the parser makes both
// straight from the tokens.
type expr func(f *frame) any
type stmt func(f *frame) signal

// A signal says how a statement leaves its loop.
type signal uint8

const (
	onward signal = iota
	breaks
	continues
)

type parser struct {
	tokens []token
	pos    int
	depth  int
}

func (p *parser) cur() token { return p.tokens[p.pos] }

func (p *parser) next() token {
	t := p.tokens[p.pos]
	if t.kind != eof {
		p.pos++
	}
	return t
}

func (p *parser) fail(format string, args ...any) {
	defer at(p.cur().line)
	fail(format, args...)
}

// at adds the line to a failure on its way out; the innermost line stays.
func at(line int) {
	if r := recover(); r != nil {
		if e, ok := r.(*failure); ok && e.line == 0 {
			e.line = line
		}
		panic(r)
	}
}

// is reports whether the next token is a name or operator spelled text.
func (p *parser) is(k kind, text string) bool {
	t := p.cur()
	return t.kind == k && t.text == text
}

// skip passes over the next token if it is text.
func (p *parser) skip(k kind, text string) bool {
	if p.is(k, text) {
		p.pos++
		return true
	}
	return false
}

func (p *parser) expect(k kind, text string) token {
	if t := p.cur(); t.kind != k || text != "" && t.text != text {
		want := text
		if want == "" {
			want = "a name"
		}
		p.fail("expected %s, got %q", want, t.text)
	}
	return p.next()
}

// deeper guards the stack against nesting without end.
func (p *parser) deeper() func() {
	if p.depth++; p.depth > maxNest {
		p.fail("nested deeper than %d", maxNest)
	}
	return func() { p.depth-- }
}

func (p *parser) template() []stmt {
	body, end := p.body()
	if end != "" {
		p.fail("unexpected {%% %s %%}", end)
	}
	return body
}

// ends are the tags that close or divide a block.
var ends = []string{"elif", "else", "endif", "endfor", "endset", "endmacro", "endcall", "endfilter", "endwith", "endgeneration"}

// body parses statements up to a tag of ends, which it leaves open after its
// name, or up to the end of the template.
func (p *parser) body() (list []stmt, end string) {
	defer p.deeper()()
	for {
		switch t := p.next(); t.kind {
		case eof:
			return list, ""
		case data:
			text := t.text
			list = append(list, func(f *frame) signal { f.run.write(text); return onward })
		case outBegin:
			list = append(list, lined(t.line, p.output()))
		case tagBegin:
			word := p.expect(name, "").text
			if slices.Contains(ends, word) {
				return list, word
			}
			list = append(list, lined(t.line, p.statement(word)))
		}
	}
}

// block parses a body that has to end with the tag end.
func (p *parser) block(end string) []stmt {
	body, got := p.body()
	p.ended(end, got)
	return body
}

// ended checks that got closes a block and reads the rest of its tag.
func (p *parser) ended(want, got string) {
	if got != want {
		if got == "" {
			got = "the end of the template"
		}
		p.fail("expected {%% %s %%}, got %s", want, got)
	}
	p.expect(tagEnd, "%}")
}

// lined puts the line into failures of s.
func lined(line int, s stmt) stmt {
	return func(f *frame) signal {
		f.run.step(1)
		defer at(line)
		return s(f)
	}
}

func execute(list []stmt, f *frame) signal {
	for _, s := range list {
		if sig := s(f); sig != onward {
			return sig
		}
	}
	return onward
}

func (p *parser) output() stmt {
	e := p.tuple(true)
	p.expect(outEnd, "}}")
	return func(f *frame) signal {
		f.run.write(text(e(f)))
		return onward
	}
}

func (p *parser) statement(word string) stmt {
	switch word {
	case "if":
		return p.ifStatement()
	case "for":
		return p.forStatement()
	case "set":
		return p.set()
	case "macro":
		return p.macro()
	case "call":
		return p.call()
	case "filter":
		return p.filterBlock()
	case "with":
		return p.with()
	case "generation": // marks what an assistant wrote; changes nothing
		p.expect(tagEnd, "%}")
		body := p.block("endgeneration")
		return func(f *frame) signal { return execute(body, f.child()) }
	case "break", "continue":
		p.expect(tagEnd, "%}")
		sig := breaks
		if word == "continue" {
			sig = continues
		}
		return func(*frame) signal { return sig }
	}
	p.fail("{%% %s %%} is not supported", word)
	return nil
}

func (p *parser) ifStatement() stmt {
	type branch struct {
		cond expr
		body []stmt
	}
	var branches []branch
	for {
		b := branch{cond: p.tuple(false)}
		p.expect(tagEnd, "%}")
		var end string
		b.body, end = p.body()
		branches = append(branches, b)
		switch end {
		case "elif":
			continue
		case "else":
			p.expect(tagEnd, "%}")
			branches = append(branches, branch{constant(true), p.block("endif")})
		default:
			p.ended("endif", end)
		}
		return func(f *frame) signal {
			for _, b := range branches {
				if truth(b.cond(f)) {
					return execute(b.body, f)
				}
			}
			return onward
		}
	}
}

// A target is what a value is assigned to: a name, an attribute of a namespace,
// or several targets for a value that is taken apart.
type target struct {
	name, attr string
	parts      []target
}

func (p *parser) target(attrs bool) target {
	defer p.deeper()()
	list, tuple := []target{}, false
	for {
		switch {
		case p.skip(op, "("):
			list = append(list, p.target(attrs))
			p.expect(op, ")")
		default:
			t := target{name: p.expect(name, "").text}
			if attrs && p.skip(op, ".") {
				t.attr = p.expect(name, "").text
			}
			if slices.Contains([]string{"true", "false", "none", "True", "False", "None", "loop"}, t.name) && t.attr == "" {
				p.fail("cannot assign to %s", t.name)
			}
			list = append(list, t)
		}
		if !p.skip(op, ",") {
			break
		}
		tuple = true
		if p.cur().kind != name && !p.is(op, "(") || p.is(name, "in") {
			break
		}
	}
	if !tuple {
		return list[0]
	}
	return target{parts: list}
}

func (t target) assign(f *frame, v any) {
	switch {
	case t.parts != nil:
		items := iterate(v)
		if len(items) != len(t.parts) {
			fail("%d values to unpack, %d expected", len(items), len(t.parts))
		}
		for i, part := range t.parts {
			part.assign(f, items[i])
		}
	case t.attr != "":
		ns, ok := f.lookup(t.name).(*namespace)
		if !ok {
			fail("cannot assign attribute on non-namespace object %s", t.name)
		}
		ns.vars.Set(t.attr, v)
	default:
		f.vars[t.name] = v
	}
}

func (p *parser) set() stmt {
	to := p.target(true)
	if p.skip(op, "=") {
		e := p.tuple(true)
		p.expect(tagEnd, "%}")
		return func(f *frame) signal {
			to.assign(f, e(f))
			return onward
		}
	}
	var filter pipe = same
	if p.skip(op, "|") {
		filter = p.filters()
	}
	p.expect(tagEnd, "%}")
	body := p.block("endset")
	return func(f *frame) signal {
		to.assign(f, filter(f, f.run.capture(func() { execute(body, f.child()) })))
		return onward
	}
}

func (p *parser) filterBlock() stmt {
	filter := p.filters()
	p.expect(tagEnd, "%}")
	body := p.block("endfilter")
	return func(f *frame) signal {
		f.run.write(text(filter(f, f.run.capture(func() { execute(body, f.child()) }))))
		return onward
	}
}

func (p *parser) with() stmt {
	var names []target
	var values []expr
	for !p.is(tagEnd, "%}") {
		if len(names) > 0 {
			p.expect(op, ",")
		}
		names = append(names, target{name: p.expect(name, "").text})
		p.expect(op, "=")
		values = append(values, p.expression(true))
	}
	p.expect(tagEnd, "%}")
	body := p.block("endwith")
	return func(f *frame) signal {
		inner := f.child()
		for i, t := range names {
			t.assign(inner, values[i](f))
		}
		return execute(body, inner)
	}
}
