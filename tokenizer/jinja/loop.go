package jinja

// A loop is the variable loop inside a for.
type loop struct {
	items   []any
	at      int
	depth   int
	changed []any
	again   func(items any) string // loop(items), for a recursive one
}

func (l *loop) attr(name string) any {
	n := len(l.items)
	switch name {
	case "index":
		return l.at + 1
	case "index0":
		return l.at
	case "revindex":
		return n - l.at
	case "revindex0":
		return n - l.at - 1
	case "first":
		return l.at == 0
	case "last":
		return l.at == n-1
	case "length":
		return n
	case "depth":
		return l.depth
	case "depth0":
		return l.depth - 1
	case "previtem":
		if l.at > 0 {
			return l.items[l.at-1]
		}
		return undefined{"there is no previous item"}
	case "nextitem":
		if l.at < n-1 {
			return l.items[l.at+1]
		}
		return undefined{"there is no next item"}
	case "cycle":
		return function(func(_ *frame, a args) any {
			if len(a.pos) == 0 {
				fail("no items for cycling given")
			}
			return a.pos[l.at%len(a.pos)]
		})
	case "changed":
		return function(func(f *frame, a args) any {
			same := l.changed != nil && f.run.equal(l.changed, a.pos)
			l.changed = append([]any{}, a.pos...)
			return !same
		})
	}
	return missing("loop", name)
}

// A forLoop is a parsed for.
type forLoop struct {
	to         target
	over, cond expr
	body, none []stmt
	recursive  bool
}

func (p *parser) forStatement() stmt {
	l := forLoop{to: p.target(false)}
	p.expect(name, "in")
	l.over = p.tuple(false)
	if p.skip(name, "if") {
		l.cond = p.expression(true)
	}
	l.recursive = p.skip(name, "recursive")
	p.expect(tagEnd, "%}")
	var end string
	if l.body, end = p.body(); end == "else" {
		p.expect(tagEnd, "%}")
		l.none = p.block("endfor")
	} else {
		p.ended("endfor", end)
	}
	return func(f *frame) signal {
		l.run(f, l.over(f), 1)
		return onward
	}
}

func (l *forLoop) run(f *frame, over any, depth int) {
	state := &loop{depth: depth}
	if l.recursive {
		state.again = func(items any) string {
			return f.run.capture(func() { l.run(f, items, depth+1) })
		}
	}
	for _, item := range iterate(over) {
		f.run.step(1)
		if l.cond != nil {
			inner := f.child()
			l.to.assign(inner, item)
			if !truth(l.cond(inner)) {
				continue
			}
		}
		state.items = append(state.items, item)
	}
	for i, item := range state.items {
		f.run.step(1)
		state.at = i
		inner := f.child()
		inner.vars["loop"] = state
		l.to.assign(inner, item)
		if execute(l.body, inner) == breaks {
			break
		}
	}
	if len(state.items) == 0 {
		execute(l.none, f.child())
	}
}
