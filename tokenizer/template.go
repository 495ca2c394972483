package tokenizer

import (
	"fmt"

	"github.com/r2-reasoner/r2/tokenizer/jinja"
)

// An Object is a JSON object whose keys keep their order, as a message or the
// description of a tool has to: templates print them in the order they came in.
type Object = jinja.Object

// A Member is one key of an Object and its value.
type Member = jinja.Member

// ParseValue reads JSON for a Chat: objects become Objects, arrays []any, and
// integers stay apart from floats.
func ParseValue(data []byte) (any, error) { return jinja.ParseValue(data) }

// A Template is a chat template.
type Template struct{ t *jinja.Template }

// ParseTemplate reads a chat template in Jinja2's language.
func ParseTemplate(src string) (*Template, error) {
	t, err := jinja.Parse(src)
	if err != nil {
		return nil, fmt.Errorf("chat template: %w", err)
	}
	return &Template{t}, nil
}
