package weights

import (
	"fmt"
	"iter"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// rules are an AdapterConfig with its regular expressions compiled.
type rules struct {
	c               AdapterConfig
	target, exclude *regexp.Regexp // nil: by names
	names, not      map[string]bool
	layers          []*regexp.Regexp
	ranks, alphas   []rule
}

type rule struct {
	key   *regexp.Regexp
	value float64
}

// compile checks the configuration and compiles its expressions. They are Python's; those that Go has
// not (look-around, back-references) are refused.
func (c AdapterConfig) compile() (*rules, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	r := &rules{c: c, names: set(c.Targets.Names), not: set(c.Exclude.Names)}
	if c.allLinear() {
		r.names = set(projections)
	}
	var err error
	expression := func(name, pattern, whole string) *regexp.Regexp {
		re, e := regexp.Compile(fmt.Sprintf(whole, pattern))
		if e != nil && err == nil {
			err = fmt.Errorf("%s: the regular expression %s is not supported: %w", name, short([]byte(pattern)), e)
		}
		return re
	}
	if c.Targets.Regexp != "" && !c.allLinear() {
		r.target = expression("target_modules", c.Targets.Regexp, `\A(?:%s)\z`)
	}
	if c.Exclude.Regexp != "" {
		r.exclude = expression("exclude_modules", c.Exclude.Regexp, `\A(?:%s)\z`)
	}
	r.layers = []*regexp.Regexp{regexp.MustCompile(`\A.*\.[^.]*\.(\d+)\.`)}
	for i, p := range c.LayersPattern {
		if i == 0 {
			r.layers = nil
		}
		r.layers = append(r.layers, expression("layers_pattern", p, `\A.*\.(?:%s)\.(\d+)\.`))
	}
	for _, p := range c.RankPattern {
		r.ranks = append(r.ranks, rule{expression("rank_pattern", p.Key, `\A(.*\.)?(%s)\z`), p.Value})
	}
	for _, p := range c.AlphaPattern {
		r.alphas = append(r.alphas, rule{expression("alpha_pattern", p.Key, `\A(.*\.)?(%s)\z`), p.Value})
	}
	return r, err
}

func (c AdapterConfig) allLinear() bool { return strings.EqualFold(c.Targets.Regexp, AllLinear) }

// first is the value of the first rule that matches, or def.
func first(list []rule, module string, def float64) float64 {
	for _, r := range list {
		if r.key.MatchString(module) {
			return r.value
		}
	}
	return def
}

// rank is the module's r.
func (r *rules) rank(module string) int { return int(first(r.ranks, module, float64(r.c.R))) }

// scale is what the module's pair is multiplied by.
func (r *rules) scale(module string) float64 {
	alpha, rank := first(r.alphas, module, r.c.Alpha), float64(r.rank(module))
	if r.c.RSLoRA {
		return alpha / math.Sqrt(rank)
	}
	return alpha / rank
}

// set is the set of a list of names.
func set(names []string) map[string]bool {
	s := make(map[string]bool, len(names))
	for _, n := range names {
		s[n] = true
	}
	return s
}

// endings are what a name in a list may call the module by: its whole name, or what follows a dot.
func endings(module string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for ok := true; ok; _, module, ok = strings.Cut(module, ".") {
			if !yield(module) {
				return
			}
		}
	}
}

// projections are the linear layers that "all-linear" stands for: all but the head.
var projections = []string{"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}

// targets reports whether the configuration gives the module a pair.
func (r *rules) targets(module string) bool {
	if matches(r.exclude, r.not, module) || !matches(r.target, r.names, module) {
		return false
	}
	return len(r.c.Layers) == 0 || slices.Contains(r.c.Layers, r.layer(module))
}

// matches reports whether the whole name matches re or, without re, names has one of its endings.
func matches(re *regexp.Regexp, names map[string]bool, module string) bool {
	if re != nil {
		return re.MatchString(module)
	}
	for end := range endings(module) {
		if names[end] {
			return true
		}
	}
	return false
}

// layer is the number of the module's layer, or -1.
func (r *rules) layer(module string) int {
	for _, re := range r.layers {
		if m := re.FindStringSubmatch(module); m != nil {
			if n, err := strconv.Atoi(m[len(m)-1]); err == nil {
				return n
			}
		}
	}
	return -1
}
