package ptxsim

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A register is a place in one of a warp's banks: 32 for up to 32 bits, 64, or 1 for predicates.
type register struct{ bank, index, bits int }

// A parser reads one kernel.
type parser struct {
	scanner
	k       *kernel
	scopes  []map[string]register // the innermost last
	shared  map[string]int        // offsets of variables
	dynamic string
	labels  map[string]int
	jumps   []jump
	const32 map[uint32]int
	const64 map[uint64]int
}

// A jump is an instruction whose label has yet to be found.
type jump struct {
	at, line int
	label    string
}

func parseKernel(s section) (*kernel, error) {
	p := &parser{scanner: scanner{text: s.text, line: s.line}, k: &kernel{dynamic32: -1, dynamic64: -1, grainShared: 4, grainGlobal: 4},
		scopes: []map[string]register{{}}, shared: map[string]int{}, dynamic: s.dynamic, labels: map[string]int{},
		const32: map[uint32]int{}, const64: map[uint64]int{}}
	if err := p.header(); err != nil {
		return nil, err
	}
	if err := p.body(); err != nil {
		return nil, err
	}
	for _, j := range p.jumps {
		to, ok := p.labels[j.label]
		if !ok {
			return nil, badText{j.line, fmt.Sprintf("there is no label %s", j.label)}
		}
		p.k.code[j.at].target = to
	}
	if n := len(p.k.code); n == 0 || p.k.code[n-1].kind != leaving && p.k.code[n-1].kind != branching || p.k.code[n-1].pred >= 0 {
		return nil, badText{p.line, "the kernel has no end: its last instruction is no ret"}
	}
	for _, v := range slices.Sorted(maps.Keys(p.const32)) {
		p.k.values32 = append(p.k.values32, fixed32{p.const32[v], v})
	}
	for _, v := range slices.Sorted(maps.Keys(p.const64)) {
		p.k.values64 = append(p.k.values64, fixed64{p.const64[v], v})
	}
	return p.k, nil
}

// header reads the name, the parameters and what a launch must keep to.
func (p *parser) header() error {
	p.k.name = p.word()
	if p.peek() == '(' {
		p.at++
		list, err := p.until(')')
		if err != nil {
			return err
		}
		for _, decl := range strings.Split(list, ",") {
			if strings.TrimSpace(decl) == "" {
				continue
			}
			if err := p.param(strings.Fields(decl)); err != nil {
				return err
			}
		}
	}
	for p.peek() == '.' {
		switch w := p.word(); w {
		case ".explicitcluster":
		case ".maxntid", ".reqntid", ".minnctapersm", ".maxnreg", ".reqnctapercluster":
			n, err := p.sizes()
			switch {
			case err != nil:
				return err
			case w == ".maxntid":
				p.k.most = n
			case w == ".reqntid":
				p.k.exactly = n
			case w == ".reqnctapercluster":
				p.k.cluster = n
			}
		default:
			return p.fail("the directive %s is not known", w)
		}
	}
	return p.take('{')
}

// sizes reads up to three numbers; those left out are 1.
func (p *parser) sizes() (n [3]int, err error) {
	n = [3]int{1, 1, 1}
	for i := range n {
		w := p.word()
		if n[i], err = strconv.Atoi(w); err != nil {
			return n, p.fail("%q is no number", w)
		}
		if p.peek() != ',' {
			break
		}
		p.at++
	}
	return n, nil
}

// param reads such as ".param .align 64 .b8 name[128]".
func (p *parser) param(f []string) error {
	bad := p.fail("the parameter %q is not known", strings.Join(f, " "))
	if len(f) < 3 || f[0] != ".param" {
		return bad
	}
	v, err := variable(f[1:])
	if err != nil {
		return bad
	}
	at := (p.k.paramSize + v.align - 1) / v.align * v.align
	p.k.params = append(p.k.params, param{v.name, at, v.size})
	p.k.paramSize = at + v.size
	return nil
}

// A declared variable of .param or .shared.
type declared struct {
	name        string
	size, align int
}

// most is the bytes that a variable can have: a device has no more shared memory.
const mostVariable = 1 << 20

// variable reads such as ".align 16 .b8 name[64]", without the state space.
func variable(f []string) (v declared, err error) {
	v.align = 1
	if len(f) >= 2 && f[0] == ".align" {
		if v.align, err = strconv.Atoi(f[1]); err != nil || v.align < 1 || v.align > 1024 {
			return v, fmt.Errorf("an alignment of %s", f[1])
		}
		f = f[2:]
	}
	for len(f) > 0 && (f[0] == ".ptr" || f[0] == ".global") { // what a pointer points to
		f = f[1:]
	}
	if len(f) != 2 {
		return v, fmt.Errorf("%q is no variable", strings.Join(f, " "))
	}
	t, ok := scalars[strings.TrimPrefix(f[0], ".")]
	if !ok {
		return v, fmt.Errorf("there is no type %s", f[0])
	}
	name, rest, _ := strings.Cut(f[1], "[")
	v.name, v.size, v.align = name, t.bytes(), max(v.align, t.bytes())
	for rest != "" {
		var n string
		n, rest, _ = strings.Cut(rest, "]")
		rest = strings.TrimPrefix(rest, "[")
		count, err := strconv.Atoi(n)
		if err != nil || count < 0 || count > mostVariable || v.size*count > mostVariable {
			return v, fmt.Errorf("%s has a size of %q", name, n)
		}
		v.size *= count
	}
	return v, nil
}

// body reads the statements.
func (p *parser) body() error {
	for {
		s, line, err := p.statement()
		if err != nil {
			return err
		}
		switch {
		case s == "":
			return badText{line, "the kernel's closing brace is missing"}
		case s == "{":
			p.scopes = append(p.scopes, map[string]register{})
		case s == "}":
			p.scopes = p.scopes[:len(p.scopes)-1]
			if len(p.scopes) == 0 {
				return nil
			}
		case s[len(s)-1] == ':':
			p.labels[s[:len(s)-1]] = len(p.k.code)
		case s[0] == '.':
			err = p.directive(strings.Fields(s), line)
		default:
			err = p.instruction(s, line)
		}
		if err != nil {
			return err
		}
	}
}

func (p *parser) directive(f []string, line int) error {
	switch f[0] {
	case ".pragma", ".loc":
		return nil
	case ".reg":
		if len(f) < 3 {
			return badText{line, "a .reg without a name"}
		}
		return p.registers(f[1], strings.Split(strings.Join(f[2:], ""), ","), line)
	case ".shared":
		v, err := variable(f[1:])
		if err != nil {
			return badText{line, err.Error()}
		}
		at := (p.k.static + v.align - 1) / v.align * v.align
		p.shared[v.name], p.k.static = at, at+v.size
		if p.k.static > mostVariable {
			return badText{line, fmt.Sprintf("%d bytes of shared memory", p.k.static)}
		}
		return nil
	case ".local":
		return badText{line, "memory of a thread's own (.local) is not simulated: shipped kernels keep to registers"}
	}
	return badText{line, fmt.Sprintf("the directive %s is not known", f[0])}
}

// registers declares names of a type, each alone or as name<n>.
func (p *parser) registers(typ string, names []string, line int) error {
	t, ok := scalars[strings.TrimPrefix(typ, ".")]
	if !ok {
		return badText{line, fmt.Sprintf("there is no type %s", typ)}
	}
	for _, name := range names {
		stem, count, many := strings.Cut(name, "<")
		if !many {
			p.declare(name, t)
			continue
		}
		n, err := strconv.Atoi(strings.TrimSuffix(count, ">"))
		if err != nil || n < 0 || n > 1<<16 {
			return badText{line, fmt.Sprintf("%s is no number of registers", name)}
		}
		for i := range n {
			p.declare(stem+strconv.Itoa(i), t)
		}
	}
	return nil
}

// declare names a register. It gets its place when it is first used.
func (p *parser) declare(name string, t scalar) {
	p.scopes[len(p.scopes)-1][name] = register{bank: map[bool]int{t.bits <= 32: 32, t.bits == 64: 64, t.bits == 1: 1}[true], index: -1, bits: t.bits}
}

// lookup finds a register by name and gives it a place.
func (p *parser) lookup(name string) (register, bool) {
	for i := len(p.scopes) - 1; i >= 0; i-- {
		r, ok := p.scopes[i][name]
		if !ok {
			continue
		}
		if r.index < 0 {
			r.index = p.place(r.bank)
			p.scopes[i][name] = r
		}
		return r, true
	}
	return register{}, false
}

// place is a new register of a bank.
func (p *parser) place(bank int) int {
	n := &p.k.n32
	switch bank {
	case 64:
		n = &p.k.n64
	case 1:
		n = &p.k.nPred
	}
	*n++
	return *n - 1
}

// instruction reads "@!%p op.mods operands".
func (p *parser) instruction(s string, line int) error {
	in := instruction{pred: -1, line: line}
	if s[0] == '@' {
		guard, rest, ok := strings.Cut(s[1:], " ")
		if tab := strings.IndexByte(s, '\t'); !ok || tab > 0 && tab < len(guard)+1 {
			guard, rest, _ = strings.Cut(s[1:], "\t")
		}
		name := strings.TrimPrefix(guard, "!")
		r, ok := p.lookup(name)
		if !ok || r.bank != 1 {
			return badText{line, fmt.Sprintf("%q is no predicate", guard)}
		}
		in.pred, in.not, s = r.index, guard[0] == '!', strings.TrimSpace(rest)
	}
	op, rest := s, ""
	if n := strings.IndexAny(s, " \t\n\r{["); n >= 0 {
		op, rest = s[:n], strings.TrimSpace(s[n:])
	}
	in.op = op
	parts := strings.Split(op, ".")
	c := &compiler{p: p, in: &in, name: parts[0], mods: parts[1:]}
	var err error
	if parts[0] == "bra" {
		c.text = []string{rest}
	} else if c.ops, err = p.operands(rest); err != nil {
		return badText{line, fmt.Sprintf("%s: %v", op, err)}
	}
	build, ok := opcodes[parts[0]]
	if !ok {
		return badText{line, fmt.Sprintf("the instruction %s is not simulated", op)}
	}
	build(c)
	if c.err == nil && len(c.mods) > 0 {
		c.bad("the modifier .%s is not simulated", c.mods[0])
	}
	if c.err != nil {
		return badText{line, fmt.Sprintf("%s: %v", op, c.err)}
	}
	p.k.code = append(p.k.code, in)
	return nil
}
