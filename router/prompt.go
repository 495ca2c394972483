package router

import (
	"embed"
	"fmt"
	"strings"
	"text/template"
)

// A Prompt is the form of a question to a model: a text/template file whose named parts are messages. The part
// "user" must be there; "system" comes before it when it is, then examples (Messages); others are for their own
// purpose (Part).
// Space around a part is not part of it.
type Prompt struct{ t *template.Template }

var functions = template.FuncMap{
	"inc":  func(i int) int { return i + 1 },
	"join": func(sep string, s []string) string { return strings.Join(s, sep) },
}

// ParsePrompt reads {{define "user"}}…{{end}} and the other parts from a text.
func ParsePrompt(text string) (*Prompt, error) {
	t, err := template.New("prompt").Funcs(functions).Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, err
	}
	if t.Lookup("user") == nil {
		return nil, fmt.Errorf(`prompt: no part "user": write {{define "user"}}…{{end}}`)
	}
	return &Prompt{t}, nil
}

// MustPrompt is ParsePrompt for texts that are part of the program.
func MustPrompt(text string) *Prompt {
	p, err := ParsePrompt(text)
	if err != nil {
		panic(err)
	}
	return p
}

// Has reports whether the prompt has a part of that name.
func (p *Prompt) Has(part string) bool { return p.t.Lookup(part) != nil }

// Part renders one part.
func (p *Prompt) Part(part string, data any) (string, error) {
	var b strings.Builder
	if err := p.t.ExecuteTemplate(&b, part, data); err != nil {
		return "", fmt.Errorf("prompt: %w", err)
	}
	return strings.TrimSpace(b.String()), nil
}

// Messages renders the system part, where there is one, then the examples, the turns user1, assistant1,
// user2, assistant2 … as far as there are any, and the user part.
func (p *Prompt) Messages(data any) ([]Message, error) {
	turns := [][2]string{{"system", "system"}}
	for i := 1; p.Has(fmt.Sprint("user", i)); i++ {
		turns = append(turns, [2]string{"user", fmt.Sprint("user", i)}, [2]string{"assistant", fmt.Sprint("assistant", i)})
	}
	var ms []Message
	for _, t := range append(turns, [2]string{"user", "user"}) {
		role, part := t[0], t[1]
		if role == "system" && !p.Has(part) {
			continue
		}
		s, err := p.Part(part, data)
		if err != nil {
			return nil, err
		}
		ms = append(ms, Message{role, s})
	}
	return ms, nil
}

//go:embed prompts/*.tmpl
var promptFiles embed.FS

func embedded(name string) *Prompt {
	b, err := promptFiles.ReadFile("prompts/" + name + ".tmpl")
	if err != nil {
		panic(err)
	}
	return MustPrompt(string(b))
}

// The prompts of solving, integrating and reviewing. They are rendered with a *View.
var (
	SolvePrompt     = embedded("solve")     // for instruct models
	SolveCompact    = embedded("compact")   // the bare subtask, for models trained on nothing else
	IntegratePrompt = embedded("integrate") // asks for the final answer only
	ReviewPrompt    = embedded("review")    // asks for the word CORRECT or the right answer
)

// A View is what a prompt of these may show: the question, the steps done so far, and the subtask at hand.
type View struct {
	Question string
	Earlier  []Step // solved
	Index    int    // of the subtask at hand, from 0
	Count    int    // of the plan's subtasks
	Subtask  string
	Answer   string // to be reviewed
}
