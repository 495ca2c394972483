package serve

import (
	"context"
	"iter"
	"slices"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/router/local"
	"github.com/r2-reasoner/r2/router/openai"
)

// A draw is one answer being written.
type draw struct {
	m     *Model
	c     *openai.Call
	index int
	q     engine.Request
	text  *local.Text
	calls caller // nil: text alone
	begun bool
	made  int // calls of tools
	done  openai.Done
}

func (d *draw) begin() {
	c := d.c
	d.text = local.NewText(d.m.Tokenizer, local.Ends{Stops: c.Stop, Include: c.IncludeStop, KeepSpecial: c.KeepSpecial})
	d.calls = d.m.caller(c)
	d.done = openai.Done{Finish: "length", In: len(d.q.Prompt)}
}

// parts draws, and yields what comes. The last has Done set.
func (d *draw) parts(ctx context.Context) iter.Seq2[openai.Part, error] {
	return func(yield func(openai.Part, error) bool) {
		if d.q.Limit == 0 && !d.q.PromptLogProbs { // an echo without anything to compute
			p := openai.Part{Index: d.index, Done: &d.done}
			d.first(&p, engine.Event{Start: &engine.Start{}})
			yield(p, nil)
			return
		}
		watch, reason := d.m.Metrics.start(d.c.Model), "abort"
		defer func() { watch.end(&d.done, reason, d.index%d.c.BestOf == 0) }()
		for e, err := range d.m.Engine.Generate(ctx, d.q) {
			if err != nil {
				if ctx.Err() == nil {
					reason = "error"
				}
				yield(openai.Part{Index: d.index}, refused(err))
				return
			}
			watch.event(e)
			p := d.part(e)
			if p.Done != nil {
				reason = p.Done.Finish
			}
			if !yield(p, nil) || p.Done != nil {
				return
			}
		}
	}
}

// part is what an event adds.
func (d *draw) part(e engine.Event) openai.Part {
	p := openai.Part{Index: d.index}
	if !d.begun {
		d.begun = true
		d.first(&p, e)
	}
	over := e.Done != engine.Running
	if id := e.Token.ID; id >= 0 {
		p.Out = 1
		d.done.Out++
		d.done.Sum += float64(e.Token.LogProb)
		if d.c.LogProbs || d.c.ReturnIDs {
			p.Tokens = append(p.Tokens, d.token(e.Token))
		}
		d.push(&p, id, e.Done)
	}
	if over {
		d.say(&p, d.text.Flush(), true)
	}
	if stop := d.text.Stop(); stop != "" {
		d.done.Finish, d.done.Stop = "stop", stop
		over = true
	}
	if over || d.enough() {
		d.end(&p)
	}
	return p
}

// first adds what comes before the answer: what is known of its prompt, and an echo.
func (d *draw) first(p *openai.Part, e engine.Event) {
	p.In = len(d.q.Prompt)
	if e.Start != nil {
		d.done.Cached = e.Start.Cached
	}
	if d.index%d.c.BestOf == 0 && (d.c.ReturnIDs || d.c.PromptLogProbs != nil) {
		p.Prompt = &openai.PromptTokens{IDs: d.q.Prompt}
		if d.c.PromptLogProbs != nil {
			p.Prompt.LogProbs = d.scored(e, *d.c.PromptLogProbs)
		}
	}
	if !d.c.Echo {
		return
	}
	if d.c.Chat == nil {
		p.Text = d.m.Tokenizer.Decode(d.q.Prompt, !d.c.KeepSpecial)
		if d.c.LogProbs {
			p.Tokens = d.scored(e, d.c.Top)
		}
	} else if last := d.c.Chat.Messages[len(d.c.Chat.Messages)-1]; last.Role == d.role() {
		p.Text = last.Content
	}
}

// role is that of a chat's answer.
func (d *draw) role() string {
	if d.c.Chat.NoPrompt {
		return d.c.Chat.Messages[len(d.c.Chat.Messages)-1].Role
	}
	return "assistant"
}

// scored are the prompt's tokens with the top likeliest in the place of each.
func (d *draw) scored(e engine.Event, top int) []openai.Token {
	out := make([]openai.Token, len(d.q.Prompt))
	for i, id := range d.q.Prompt {
		t := openai.Token{ID: id, Piece: string(d.m.Tokenizer.Bytes(id)), First: i == 0}
		if i > 0 {
			t.LogProb = e.Prompt[i-1]
			if e.PromptRanks != nil {
				t.Rank = int(e.PromptRanks[i-1])
			}
			if e.PromptTop != nil {
				t.Top = d.likeliest(e.PromptTop[i-1], top)
			}
			if d.c.Raw {
				t.Raw = &t.LogProb
			}
		}
		out[i] = t
	}
	return out
}

func (d *draw) likeliest(list []sample.Scored, most int) []openai.Token {
	var out []openai.Token
	for _, s := range list[:min(most, len(list))] {
		out = append(out, openai.Token{ID: s.ID, Piece: string(d.m.Tokenizer.Bytes(s.ID)), LogProb: s.LogProb})
	}
	return out
}

func (d *draw) token(t engine.Token) openai.Token {
	out := openai.Token{ID: t.ID, Piece: string(d.m.Tokenizer.Bytes(t.ID)), LogProb: t.LogProb, Top: d.likeliest(t.Top, d.c.Top)}
	if d.c.Raw {
		out.Raw = &t.Raw
	}
	return out
}

// push adds a token to the text, unless it is a stop id that is not to be part of it.
func (d *draw) push(p *openai.Part, id int32, reason engine.Reason) {
	if reason == engine.Stop {
		d.done.Finish = "stop"
		theirs := slices.Contains(d.c.StopIDs, id)
		if theirs {
			d.done.Stop = id
		}
		if (theirs || slices.Contains(d.m.EOS, id)) && !d.c.IncludeStop {
			return
		}
	}
	if d.done.Out <= d.c.Least { // so early nothing ends an answer
		d.say(p, d.text.Pass(id), false)
		return
	}
	d.say(p, d.text.Push(id), false)
}

// say adds text to a part, and the calls of tools that are written in it.
func (d *draw) say(p *openai.Part, text string, last bool) {
	if d.calls == nil {
		p.Text += text
		return
	}
	text, calls := d.calls.read(text, last || d.text.Stopped())
	p.Text += text
	for _, t := range calls {
		if d.enough() {
			return
		}
		t.Index = new(d.made)
		d.made++
		p.Calls = append(p.Calls, t)
	}
}

// enough reports whether the one call that was asked for is there.
func (d *draw) enough() bool { return d.made > 0 && d.c.Chat != nil && d.c.Chat.OneCall }

func (d *draw) end(p *openai.Part) {
	if d.made > 0 {
		d.done.Finish = "tool_calls"
	}
	p.Done = &d.done
}
