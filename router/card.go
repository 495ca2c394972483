package router

import "fmt"

// A Card is what is known of a model before it is asked. Its place in the order of capability need not be its
// place in the order of price.
type Card struct {
	Name  string `json:"name"`
	Group Group  `json:"group"`
	Rank  int    `json:"rank"` // 1 is the least capable
	Price Price  `json:"price"`
	Limit int    `json:"limit"` // most tokens of an answer whose Request does not say
}

// A Price is the money for one token read and one token written.
type Price struct {
	Input  Rate `json:"input"`
	Output Rate `json:"output"`
}

// Cost is the price of a call that read in tokens and wrote out.
func (p Price) Cost(in, out int) Money { return p.Input.Times(in).Plus(p.Output.Times(out)) }

// Worst is the most that one attempt at the request can cost, known before it is made. A token is at least a
// byte of text, so the bytes of the messages bound the tokens read; a chat template may add 64 and 32 a message.
func (c Card) Worst(r Request) Money {
	in := 64 + len(r.Prompt)
	for _, m := range r.Messages {
		in += 32 + len(m.Role) + len(m.Content)
	}
	out := r.Limit
	if out == 0 {
		out = c.Limit
	}
	if out == 0 && c.Price.Output > 0 {
		return MaxMoney
	}
	return c.Price.Cost(in, out)
}

// A Group is one of the paper's three sizes of model.
type Group uint8

const (
	SLM Group = iota + 1
	MLM
	LLM
)

var groups = [...]string{"", "slm", "mlm", "llm"}

func (g Group) String() string {
	if int(g) >= len(groups) || g == 0 {
		return fmt.Sprintf("group(%d)", uint8(g))
	}
	return groups[g]
}

// MarshalText writes slm, mlm or llm.
func (g Group) MarshalText() ([]byte, error) {
	if int(g) >= len(groups) {
		return nil, fmt.Errorf("group %d is none of slm, mlm, llm", uint8(g))
	}
	return []byte(groups[g]), nil
}

// UnmarshalText reads slm, mlm or llm.
func (g *Group) UnmarshalText(text []byte) error {
	for i, name := range groups {
		if i > 0 && name == string(text) {
			*g = Group(i)
			return nil
		}
	}
	return fmt.Errorf("group %q is none of slm, mlm, llm", text)
}
