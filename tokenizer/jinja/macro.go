package jinja

import "slices"

// A macro is a named part of a template that can be called.
type macro struct {
	name     string
	params   []string
	defaults []expr // of the last params
	uses     []string
	body     []stmt
}

func (p *parser) macro() stmt {
	m := &macro{name: p.expect(name, "").text}
	m.signature(p)
	p.expect(tagEnd, "%}")
	m.content(p, "endmacro")
	return func(f *frame) signal {
		f.vars[m.name] = m.bind(f)
		return onward
	}
}

// call parses {% call(params) f(args) %}: the body becomes f's macro caller.
func (p *parser) call() stmt {
	m := &macro{name: "caller"}
	if p.is(op, "(") {
		m.signature(p)
	}
	callee := p.expression(true)
	p.expect(tagEnd, "%}")
	m.content(p, "endcall")
	return func(f *frame) signal {
		inner := f.child()
		inner.vars[callerName] = m.bind(f)
		f.run.write(text(callee(inner)))
		return onward
	}
}

// callerName passes the body of a call block to the outermost call in it. No
// template can spell it.
const callerName = " caller"

func (m *macro) signature(p *parser) {
	p.expect(op, "(")
	for !p.skip(op, ")") {
		if len(m.params) > 0 {
			p.expect(op, ",")
		}
		m.params = append(m.params, p.expect(name, "").text)
		if p.skip(op, "=") {
			m.defaults = append(m.defaults, p.expression(true))
		} else if len(m.defaults) > 0 {
			p.fail("a parameter without a default follows one with")
		}
	}
}

// content parses the body and notes which of the names with a meaning of their
// own it uses.
func (m *macro) content(p *parser, end string) {
	start := p.pos
	m.body = p.block(end)
	for _, t := range p.tokens[start:p.pos] {
		if t.kind == name && slices.Contains([]string{"varargs", "kwargs", "caller"}, t.text) {
			m.uses = append(m.uses, t.text)
		}
	}
}

// bind makes the macro a value, in the scope it was defined in.
func (m *macro) bind(scope *frame) function {
	return func(_ *frame, a args) any {
		f := scope.child()
		m.arguments(f, a)
		var out string
		f.run.nested(func() {
			out = f.run.capture(func() { execute(m.body, f) })
		})
		return out
	}
}

func (m *macro) arguments(f *frame, a args) {
	rest := a.named
	for i, param := range m.params {
		v, given := rest.Get(param)
		if i < len(a.pos) {
			if given {
				fail("macro '%s' got multiple values for argument '%s'", m.name, param)
			}
			v, given = a.pos[i], true
		} else if given {
			rest = rest.without(param)
		}
		if k := i - (len(m.params) - len(m.defaults)); !given && k >= 0 {
			v = m.defaults[k](f)
		} else if !given {
			v = undefined{"parameter '" + param + "' was not provided"}
		}
		f.vars[param] = v
	}
	if caller, ok := rest.Get("caller"); ok {
		if !slices.Contains(m.uses, "caller") {
			fail("macro '%s' takes no caller", m.name)
		}
		f.vars["caller"] = caller
		rest = rest.without("caller")
	}
	extra := a.pos[min(len(m.params), len(a.pos)):]
	if slices.Contains(m.uses, "varargs") {
		f.vars["varargs"] = Tuple(extra)
	} else if len(extra) > 0 {
		fail("macro '%s' takes not more than %d argument(s)", m.name, len(m.params))
	}
	if slices.Contains(m.uses, "kwargs") {
		f.vars["kwargs"] = rest
	} else if len(rest) > 0 {
		fail("macro '%s' takes no keyword argument '%s'", m.name, rest[0].Key)
	}
}
