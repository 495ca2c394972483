package local

import (
	"sync"

	"github.com/r2-reasoner/r2/engine/grammar"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/tokenizer"
)

// Forms makes what answers must keep to of schemas and regular expressions, and keeps it, for all models
// on one tokenizer. It is safe for concurrent use.
type Forms struct {
	tokenizer *tokenizer.Tokenizer
	size      int
	eos       []int32

	mu         sync.Mutex
	vocabulary *grammar.Vocabulary // made when the first form is asked for
	known      map[string]*grammar.Constraint
}

// keptForms is how many are kept.
const keptForms = 64

// NewForms is for a vocabulary of size ids, those of eos ending a text.
func NewForms(t *tokenizer.Tokenizer, size int, eos []int32) *Forms {
	return &Forms{tokenizer: t, size: size, eos: eos, known: map[string]*grammar.Constraint{}}
}

// Form is the one a request asks for, or nil.
func (f *Forms) Form(r router.Request) (sample.Form, error) {
	key, param := "", ""
	var compile func() (*grammar.Grammar, error)
	switch {
	case r.Schema != "":
		key, param = "schema "+r.Schema, "json_schema"
		compile = func() (*grammar.Grammar, error) { return grammar.JSONSchema([]byte(r.Schema)) }
	case r.Pattern != "":
		key, param = "pattern "+r.Pattern, "regex"
		compile = func() (*grammar.Grammar, error) { return grammar.Regexp(r.Pattern) }
	case r.JSONObject:
		key = "object"
		compile = func() (*grammar.Grammar, error) { return grammar.JSONObject(), nil }
	default:
		return nil, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if form, ok := f.known[key]; ok && !form.Full() {
		return form, nil
	}
	g, err := compile()
	if err != nil {
		return nil, &router.ParamError{Param: param, Reason: err.Error()}
	}
	if f.vocabulary == nil {
		tokens := make([][]byte, f.size)
		for id := range tokens {
			if _, ok := f.tokenizer.Token(int32(id)); ok && !f.tokenizer.Special(int32(id)) {
				tokens[id] = f.tokenizer.Bytes(int32(id))
			}
		}
		f.vocabulary = grammar.NewVocabulary(tokens, f.eos)
	}
	if len(f.known) >= keptForms {
		clear(f.known)
	}
	form := grammar.NewConstraint(g, f.vocabulary)
	f.known[key] = form
	return form, nil
}
