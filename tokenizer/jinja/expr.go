package jinja

import (
	"math/big"
	"strconv"
)

func constant(v any) expr { return func(*frame) any { return v } }

// tuple parses one expression or several with commas between them. cond allows
// "a if b else c", which the head of a for or an if does not.
func (p *parser) tuple(cond bool) expr {
	first := p.expression(cond)
	if !p.is(op, ",") {
		return first
	}
	return p.restOfTuple(first, cond)
}

func (p *parser) restOfTuple(first expr, cond bool) expr {
	list := []expr{first}
	for p.skip(op, ",") {
		if t := p.cur(); t.kind == outEnd || t.kind == tagEnd || p.is(op, ")") {
			break
		}
		list = append(list, p.expression(cond))
	}
	return func(f *frame) any { return Tuple(evaluate(list, f)) }
}

func evaluate(list []expr, f *frame) []any {
	values := make([]any, len(list))
	for i, e := range list {
		values[i] = e(f)
	}
	return values
}

func (p *parser) expression(cond bool) expr {
	defer p.deeper()()
	e := p.or()
	for cond && p.skip(name, "if") {
		yes, test := e, p.or()
		no := constant(undefined{"the inline if-expression evaluated to false and no else section was defined"})
		if p.skip(name, "else") {
			no = p.expression(true)
		}
		e = func(f *frame) any {
			if truth(test(f)) {
				return yes(f)
			}
			return no(f)
		}
	}
	return e
}

func (p *parser) or() expr {
	left := p.and()
	for p.skip(name, "or") {
		a, b := left, p.and()
		left = func(f *frame) any {
			if v := a(f); truth(v) {
				return v
			}
			return b(f)
		}
	}
	return left
}

func (p *parser) and() expr {
	left := p.not()
	for p.skip(name, "and") {
		a, b := left, p.not()
		left = func(f *frame) any {
			if v := a(f); !truth(v) {
				return v
			}
			return b(f)
		}
	}
	return left
}

func (p *parser) not() expr {
	if p.is(name, "not") {
		defer p.deeper()()
		p.next()
		e := p.not()
		return func(f *frame) any { return !truth(e(f)) }
	}
	return p.compare()
}

// compare parses a chain: a < b < c is a < b and b < c.
func (p *parser) compare() expr {
	first := p.sum()
	var tests []comparison
	var rest []expr
	for {
		test := p.comparison()
		if test == nil {
			break
		}
		tests, rest = append(tests, test), append(rest, p.sum())
	}
	if tests == nil {
		return first
	}
	return func(f *frame) any {
		f.run.step(1)
		a := first(f)
		for i, test := range tests {
			b := rest[i](f)
			if !test(f.run, a, b) {
				return false
			}
			a = b
		}
		return true
	}
}

type comparison func(r *run, a, b any) bool

var comparisons = map[string]comparison{
	"==": (*run).equal,
	"!=": func(r *run, a, b any) bool { return !r.equal(a, b) },
	"<":  func(r *run, a, b any) bool { return r.order("<", a, b) < 0 },
	"<=": func(r *run, a, b any) bool { return r.order("<=", a, b) <= 0 },
	">":  func(r *run, a, b any) bool { return r.order(">", a, b) > 0 },
	">=": func(r *run, a, b any) bool { return r.order(">=", a, b) >= 0 },
}

func (p *parser) comparison() comparison {
	if t := p.cur(); t.kind == op && comparisons[t.text] != nil {
		p.next()
		return comparisons[t.text]
	}
	if p.skip(name, "in") {
		return func(r *run, a, b any) bool { return r.contains(b, a) }
	}
	if p.is(name, "not") && p.tokens[p.pos+1].kind == name && p.tokens[p.pos+1].text == "in" {
		p.pos += 2
		return func(r *run, a, b any) bool { return !r.contains(b, a) }
	}
	return nil
}

// binary parses a chain of operators of one rank.
func (p *parser) binary(operand func() expr, ops ...string) expr {
	left := operand()
	for {
		found := ""
		for _, o := range ops {
			if p.skip(op, o) {
				found = o
			}
		}
		if found == "" {
			return left
		}
		a, b := left, operand()
		left = func(f *frame) any {
			f.run.step(1)
			return arithmetic(f.run, found, a(f), b(f))
		}
	}
}

func (p *parser) sum() expr     { return p.binary(p.concat, "+", "-") }
func (p *parser) concat() expr  { return p.binary(p.product, "~") }
func (p *parser) product() expr { return p.binary(p.power, "*", "/", "//", "%") }
func (p *parser) power() expr {
	return p.binary(func() expr { return p.unary(true) }, "**")
}

func (p *parser) unary(filters bool) expr {
	defer p.deeper()()
	var e expr
	switch {
	case p.skip(op, "-"):
		term := p.unary(false)
		e = func(f *frame) any { return arithmetic(f.run, "-", 0, number("-", term(f))) }
	case p.skip(op, "+"):
		term := p.unary(false)
		e = func(f *frame) any { return number("+", term(f)) }
	default:
		e = p.primary()
	}
	e = p.postfix(e)
	if filters {
		e = p.filtered(e)
	}
	return e
}

func (p *parser) primary() expr {
	t := p.next()
	switch t.kind {
	case name:
		switch t.text {
		case "true", "True":
			return constant(true)
		case "false", "False":
			return constant(false)
		case "none", "None":
			return constant(nil)
		}
		return func(f *frame) any { return f.lookup(t.text) }
	case str:
		text := t.text
		for p.cur().kind == str {
			text += p.next().text
		}
		return constant(text)
	case integer:
		return constant(p.integer(t.text))
	case float:
		v, _ := strconv.ParseFloat(t.text, 64)
		return constant(v)
	case op:
		switch t.text {
		case "(":
			return p.parenthesis()
		case "[":
			return p.list()
		case "{":
			return p.dict()
		}
	}
	p.fail("unexpected %q", t.text)
	return nil
}

func (p *parser) integer(s string) any {
	v, err := strconv.ParseInt(s, 0, 0)
	if err == nil {
		return int(v)
	}
	if s[0] == '0' { // 00 is 0 in Python, and not octal
		return 0
	}
	i, ok := new(big.Int).SetString(s, 0)
	if !ok || len(s) > maxDigits {
		p.fail("%.40q is not an integer", s)
	}
	return i
}

func (p *parser) parenthesis() expr {
	if p.skip(op, ")") {
		return constant(Tuple{})
	}
	e := p.tuple(true)
	p.expect(op, ")")
	return e
}

func (p *parser) list() expr {
	list := p.items("]")
	return func(f *frame) any {
		f.run.step(len(list))
		return evaluate(list, f)
	}
}

func (p *parser) items(end string) (list []expr) {
	for !p.skip(op, end) {
		if len(list) > 0 {
			p.expect(op, ",")
			if p.skip(op, end) {
				break
			}
		}
		list = append(list, p.expression(true))
	}
	return list
}

func (p *parser) dict() expr {
	var keys, values []expr
	for !p.skip(op, "}") {
		if len(keys) > 0 {
			p.expect(op, ",")
			if p.skip(op, "}") {
				break
			}
		}
		keys = append(keys, p.expression(true))
		p.expect(op, ":")
		values = append(values, p.expression(true))
	}
	return func(f *frame) any {
		f.run.step(len(keys))
		o := Object{}
		for i, k := range keys {
			key, ok := k(f).(string)
			if !ok {
				fail("a dict with a key that is not a string is not supported")
			}
			o.Set(key, values[i](f))
		}
		return o
	}
}

// postfix parses attributes, subscripts and calls.
func (p *parser) postfix(e expr) expr {
	for {
		switch {
		case p.skip(op, "."):
			e = p.attribute(e)
		case p.skip(op, "["):
			e = p.subscript(e)
		case p.is(op, "("):
			e = p.invoke(e)
		default:
			return e
		}
	}
}

func (p *parser) attribute(of expr) expr {
	switch t := p.next(); t.kind {
	case name:
		return func(f *frame) any {
			f.run.step(1)
			return attribute(of(f), t.text)
		}
	case integer:
		i := p.integer(t.text)
		return func(f *frame) any { return subscript(of(f), i) }
	}
	p.fail("expected an attribute's name")
	return nil
}

func (p *parser) subscript(of expr) expr {
	var bounds [3]expr
	slice, at := false, 0
	for !p.skip(op, "]") {
		if p.skip(op, ":") {
			slice = true
			at++
		} else if at < 3 && bounds[at] == nil {
			bounds[at] = p.expression(true)
		} else {
			p.fail("unexpected %q in a subscript", p.cur().text)
		}
		if at > 2 {
			p.fail("a slice has three parts at most")
		}
	}
	if !slice {
		index := bounds[0]
		if index == nil {
			p.fail("an empty subscript")
		}
		return func(f *frame) any {
			v := of(f)
			f.run.step(1 + size(v)/16)
			return subscript(v, index(f))
		}
	}
	return func(f *frame) any {
		var at [3]any
		for i, b := range bounds {
			if b != nil {
				at[i] = b(f)
			}
		}
		v := of(f)
		f.run.step(1 + size(v)/16)
		return cut(v, at)
	}
}

// args are the arguments of a call.
type args struct {
	pos   []any
	named Object
}

// at returns the argument at position i or named name, or otherwise.
func (a args) at(i int, name string, otherwise any) any {
	if i < len(a.pos) {
		return a.pos[i]
	}
	if v, ok := a.named.Get(name); ok {
		return v
	}
	return otherwise
}

type namedExpr struct {
	name string
	expr expr
}

// arguments parses (a, b, name=c), the parenthesis included.
func (p *parser) arguments() func(f *frame) args {
	var pos []expr
	var named []namedExpr
	p.expect(op, "(")
	for first := true; !p.skip(op, ")"); first = false {
		if !first {
			p.expect(op, ",")
			if p.skip(op, ")") {
				break
			}
		}
		if p.cur().kind == name && p.tokens[p.pos+1].kind == op && p.tokens[p.pos+1].text == "=" {
			k := p.next().text
			p.next()
			named = append(named, namedExpr{k, p.expression(true)})
		} else if len(named) > 0 {
			p.fail("a positional argument follows a named one")
		} else {
			pos = append(pos, p.expression(true))
		}
	}
	return func(f *frame) args {
		a := args{pos: evaluate(pos, f)}
		for _, n := range named {
			a.named.Set(n.name, n.expr(f))
		}
		return a
	}
}

func (p *parser) invoke(e expr) expr {
	given := p.arguments()
	return func(f *frame) any {
		f.run.step(1)
		caller, block := f.vars[callerName]
		delete(f.vars, callerName) // the outermost call of a call block gets it
		a := given(f)
		if block {
			a.named.Set("caller", caller)
		}
		return invoke(f, e(f), a)
	}
}

// A pipe is a chain of filters.
type pipe func(f *frame, v any) any

func same(_ *frame, v any) any { return v }

// filtered parses filters and tests behind an expression.
func (p *parser) filtered(e expr) expr {
	for {
		switch {
		case p.skip(op, "|"):
			of, filter := e, p.filter()
			e = func(f *frame) any { return filter(f, of(f)) }
		case p.skip(name, "is"):
			e = p.test(e)
		case p.is(op, "("):
			e = p.invoke(e)
		default:
			return e
		}
	}
}

// filters parses a chain of filters, the first "|" already read or not needed.
func (p *parser) filters() pipe {
	all := p.filter()
	for p.skip(op, "|") {
		first, second := all, p.filter()
		all = func(f *frame, v any) any { return second(f, first(f, v)) }
	}
	return all
}

func (p *parser) filter() pipe {
	word := p.expect(name, "").text
	given := func(*frame) args { return args{} }
	if p.is(op, "(") {
		given = p.arguments()
	}
	return func(f *frame, v any) any {
		f.run.step(1)
		return applyFilter(f, word, v, given(f))
	}
}

func (p *parser) test(of expr) expr {
	negated := p.skip(name, "not")
	word := p.expect(name, "").text
	given := func(*frame) args { return args{} }
	switch t := p.cur(); {
	case p.is(op, "("):
		given = p.arguments()
	case p.is(name, "is"):
		p.fail("tests cannot be chained with is")
	case t.kind == name && t.text != "else" && t.text != "or" && t.text != "and" && t.text != "if" && t.text != "not" && t.text != "in" && t.text != "recursive",
		t.kind == str, t.kind == integer, t.kind == float, p.is(op, "["), p.is(op, "{"):
		arg := p.postfix(p.primary())
		given = func(f *frame) args { return args{pos: []any{arg(f)}} }
	}
	return func(f *frame) any {
		f.run.step(1)
		return applyTest(f, word, of(f), given(f)) != negated
	}
}
