package ptxsim

import (
	"fmt"
	"strconv"
	"strings"
)

// An operand of an instruction.
type operand struct {
	kind   byte // 'r' register, 'i' immediate, 'v' a shared variable, 'd' dynamic shared memory, 's' a special register, 'a' address, '{' a vector, '_' none
	reg    register
	value  uint64 // of an immediate, of a variable its offset
	not    bool   // !predicate
	offset int64  // of an address
	list   []operand
	pair   *operand // the second destination in d|p
	param  bool     // the address of a parameter
	name   string
	float  int // of an immediate in hexadecimal floating point its bits, else 0
}

// operands reads what stands between commas.
func (p *parser) operands(s string) ([]operand, error) {
	var all []operand
	for _, part := range pieces(s) {
		o, err := p.operand(part)
		if err != nil {
			return nil, err
		}
		all = append(all, o)
	}
	return all, nil
}

// pieces cuts s at the commas outside brackets.
func pieces(s string) (all []string) {
	depth, from := 0, 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case ',':
			if depth == 0 {
				all, from = append(all, strings.TrimSpace(s[from:i])), i+1
			}
		}
	}
	if rest := strings.TrimSpace(s[from:]); rest != "" || len(all) > 0 {
		all = append(all, rest)
	}
	return all
}

func (p *parser) operand(s string) (o operand, err error) {
	switch {
	case s == "":
		return o, fmt.Errorf("an operand is missing")
	case s == "_":
		return operand{kind: '_'}, nil
	case s[0] == '[' && s[len(s)-1] == ']':
		return p.address(s[1 : len(s)-1])
	case s[0] == '{' && s[len(s)-1] == '}':
		o.kind = '{'
		o.list, err = p.operands(s[1 : len(s)-1])
		return o, err
	case s[0] == '!':
		o, err = p.operand(s[1:])
		o.not = true
		return o, err
	}
	if first, second, ok := strings.Cut(s, "|"); ok {
		if o, err = p.operand(first); err != nil {
			return o, err
		}
		pair, err := p.operand(second)
		o.pair = &pair
		return o, err
	}
	o.name = s
	if r, ok := p.lookup(s); ok {
		o.kind, o.reg = 'r', r
		return o, nil
	}
	if s[0] == '%' {
		o.kind, o.reg, err = p.special(s)
		return o, err
	}
	if at, ok := p.shared[s]; ok {
		o.kind, o.value = 'v', uint64(at)
		return o, nil
	}
	if s == p.dynamic {
		o.kind = 'd'
		return o, nil
	}
	for _, q := range p.k.params {
		if q.name == s {
			o.kind, o.value, o.param = 'i', uint64(q.offset), true
			return o, nil
		}
	}
	return p.immediate(s)
}

func (p *parser) immediate(s string) (o operand, err error) {
	o.kind, o.name = 'i', s
	for prefix, bits := range map[string]int{"0f": 32, "0F": 32, "0d": 64, "0D": 64} {
		if strings.HasPrefix(s, prefix) {
			o.float = bits
			if o.value, err = strconv.ParseUint(s[2:], 16, bits); err != nil || len(s) != 2+bits/4 {
				return o, fmt.Errorf("%q is no number", s)
			}
			return o, nil
		}
	}
	v, ok := number(s)
	if !ok {
		return o, fmt.Errorf("there is no %q", s)
	}
	o.value = v
	return o, nil
}

// address reads what stands in [], a place and bytes from there, or for a tensor its map and coordinates.
func (p *parser) address(s string) (o operand, err error) {
	all := pieces(s)
	if len(all) == 0 {
		return o, fmt.Errorf("an address is missing")
	}
	base, off := strings.TrimSpace(all[0]), int64(0)
	if n := strings.LastIndexAny(base, "+-"); n > 0 {
		sign := base[n:]
		if base[n-1] == '+' { // +-4
			n--
		}
		v, ok := number(strings.TrimPrefix(strings.TrimSpace(sign), "+"))
		if !ok {
			return o, fmt.Errorf("%q is no address", s)
		}
		base, off = strings.TrimSpace(base[:n]), int64(v)
	}
	at, err := p.operand(base)
	if err != nil {
		return o, err
	}
	o = operand{kind: 'a', offset: off, list: []operand{at}, param: at.param, name: s}
	for _, more := range all[1:] {
		m, err := p.operand(more)
		if err != nil {
			return o, err
		}
		o.list = append(o.list, m)
	}
	return o, nil
}

// specialNames are the special registers that there are.
var specialNames = map[string]bool{"%laneid": true, "%warpid": true, "%nwarpid": true, "%dynamic_smem_size": true, "%total_smem_size": true,
	"%lanemask_eq": true, "%lanemask_lt": true, "%lanemask_le": true, "%lanemask_gt": true, "%lanemask_ge": true, "%smid": true, "%nsmid": true,
	"%cluster_ctarank": true, "%cluster_nctarank": true}

func init() {
	for _, r := range []string{"%tid.", "%ntid.", "%ctaid.", "%nctaid.", "%clusterid.", "%nclusterid.", "%cluster_ctaid.", "%cluster_nctaid."} {
		for _, c := range []string{"x", "y", "z"} {
			specialNames[r+c] = true
		}
	}
}

func (p *parser) special(name string) (byte, register, error) {
	if !specialNames[name] {
		return 0, register{}, fmt.Errorf("there is no register %s", name)
	}
	for _, s := range p.k.specials {
		if s.name == name {
			return 's', register{32, s.reg, 32}, nil
		}
	}
	s := special{name, p.place(32)}
	p.k.specials = append(p.k.specials, s)
	return 's', register{32, s.reg, 32}, nil
}
