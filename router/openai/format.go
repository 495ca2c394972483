package openai

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/r2-reasoner/r2/router"
)

// A format writes the answers of one call.
type format struct {
	*Call
	id      string
	created int64
	began   time.Time
	rec     *Record
}

func newFormat(c *Call, rec *Record) *format {
	now, prefix := time.Now(), "cmpl-"
	if c.Chat != nil {
		prefix = "chatcmpl-"
	}
	return &format{c, prefix + cmp.Or(c.ID, rec.ID, rand.Text()), now.Unix(), now, rec}
}

// note keeps for the record what a part tells.
func (f *format) note(p *Part) {
	if f.rec.First == 0 && (p.Out > 0 || p.Text != "" || p.Done != nil) {
		f.rec.First = time.Since(f.began)
	}
	if p.Index%f.BestOf == 0 {
		f.rec.In += p.In
	}
	f.rec.Out += p.Out
	if f.rec.Answered != nil {
		a := &f.rec.Answered[p.Index]
		a.Text, a.Calls = a.Text+p.Text, append(a.Calls, p.Calls...)
	}
}

// A gathered is an answer, whole.
type gathered struct {
	text   strings.Builder
	tokens []Token
	calls  []ToolCall
	prompt *PromptTokens
	done   *Done
}

// errNoEnd is a model's that just stops.
var errNoEnd = errors.New("the model stopped without an end to its answer")

// whole writes one response, when all answers are there.
func (f *format) whole(w http.ResponseWriter, r *http.Request, parts iter.Seq2[Part, error]) {
	got := make([]gathered, f.Draws())
	for p, err := range parts {
		if err != nil {
			fail(w, err, f.extension(p.Done))
			return
		}
		f.note(&p)
		a := &got[p.Index]
		a.text.WriteString(p.Text)
		a.tokens, a.calls = append(a.tokens, p.Tokens...), append(a.calls, p.Calls...)
		a.prompt, a.done = cmp.Or(a.prompt, p.Prompt), cmp.Or(a.done, p.Done)
	}
	if r.Context().Err() != nil {
		fail(w, context.Cause(r.Context()), nil)
		return
	}
	resp := f.response("chat.completion")
	var all []*Done
	for i := range got {
		if got[i].done == nil {
			fail(w, errNoEnd, nil)
			return
		}
		all = append(all, got[i].done)
	}
	for i, a := range f.best(got) {
		resp.Choices = append(resp.Choices, f.choice(i, a))
	}
	if p := got[0].prompt; p != nil && f.Chat != nil {
		resp.PromptIDs, resp.PromptLogProbs = f.promptIDs(p), promptLogProbs(p.LogProbs)
	}
	resp.Usage = f.total(all)
	resp.R2 = f.extension(got[0].done)
	reply(w, http.StatusOK, resp)
}

// best are the answers the client gets: of each prompt those of the highest log-probability a token, in the order
// they were drawn where as many are wanted as were drawn.
func (f *format) best(got []gathered) []*gathered {
	var out []*gathered
	for prompt := range slices.Chunk(got, f.BestOf) {
		var list []*gathered
		for i := range prompt {
			list = append(list, &prompt[i])
		}
		if f.N < f.BestOf {
			slices.SortStableFunc(list, func(a, b *gathered) int { return cmp.Compare(b.done.mean(), a.done.mean()) })
			first := func(a *gathered) bool { return a == &prompt[0] }
			if at := slices.IndexFunc(list, first); at > 0 { // what is known of the prompt came with its first answer
				list[0].prompt = prompt[0].prompt
			}
		}
		out = append(out, list[:f.N]...)
	}
	return out
}

func (d *Done) mean() float64 { return d.Sum / float64(max(1, d.Out)) }

func (f *format) choice(i int, a *gathered) Choice {
	ch := Choice{Index: i, LogProbs: f.logProbs(a.tokens, new(int)), Finish: &a.done.Finish, Stop: a.done.Stop, IDs: f.ids(a.tokens)}
	text := a.text.String()
	if f.Chat == nil {
		ch.Text = &text
		if a.prompt != nil {
			ch.PromptIDs, ch.PromptLogProbs = f.promptIDs(a.prompt), promptLogProbs(a.prompt.LogProbs)
		}
		return ch
	}
	ch.Message = &Turn{Role: f.role(), Content: &text, Calls: a.calls}
	for i := range a.calls {
		a.calls[i].Index = nil
	}
	if len(a.calls) > 0 && text == "" {
		ch.Message.Content = nil
	}
	return ch
}

// role is that of the answer: the final message's where it is continued.
func (f *format) role() string {
	if f.Chat.NoPrompt {
		return f.Chat.Messages[len(f.Chat.Messages)-1].Role
	}
	return "assistant"
}

// response is an empty one, or an empty chunk.
func (f *format) response(object string) *Response {
	if f.Chat == nil {
		object = "text_completion"
	}
	return &Response{ID: f.id, Object: object, Created: f.created, Model: f.Model, Choices: []Choice{}}
}

// extension is the trace where it was asked for.
func (f *format) extension(d *Done) *Extension {
	if !f.Trace || d == nil || d.Trace == nil {
		return nil
	}
	return &Extension{Trace: d.Trace}
}

// total adds up the usage of all answers drawn. Those to one prompt read it once.
func (f *format) total(all []*Done) *Usage {
	var u Usage
	var cost router.Money
	priced, cached := false, 0
	for i, d := range all {
		if d == nil {
			continue
		}
		if i%f.BestOf == 0 || d.Trace != nil {
			u.Prompt += d.In
			cached += d.Cached
		}
		u.Completion += d.Out
		cost = cost.Plus(d.Cost)
		priced = priced || d.Priced
	}
	u.Total = u.Prompt + u.Completion
	if priced {
		u.Cost = &cost
	}
	if cached > 0 {
		u.Details = &PromptDetails{Cached: cached}
	}
	return &u
}

func (f *format) ids(tokens []Token) []int32 {
	if !f.ReturnIDs {
		return nil
	}
	out := []int32{}
	for _, t := range tokens {
		out = append(out, t.ID)
	}
	return out
}

func (f *format) promptIDs(p *PromptTokens) []int32 {
	if !f.ReturnIDs {
		return nil
	}
	return p.IDs
}

// finite is a log-probability as JSON can hold it: it has no infinity. Not-a-number stays, and fails.
func finite(lp float32) float32 { return max(lp, -9999) }

// logProbs writes those of tokens, of text that starts after offset characters, and adds to offset; nil when none
// were asked for.
func (f *format) logProbs(tokens []Token, offset *int) *LogProbs {
	if !f.LogProbs {
		return nil
	}
	out := &LogProbs{}
	for i := range tokens {
		t := &tokens[i]
		if f.Chat != nil {
			out.Content = append(out.Content, f.wire(t, f.Raw))
			continue
		}
		out.Tokens = append(out.Tokens, f.spell(t))
		out.TextOffset = append(out.TextOffset, *offset)
		*offset += utf8.RuneCountInString(t.Piece)
		if t.First {
			out.TokenLogProbs, out.TopLogProbs = append(out.TokenLogProbs, nil), append(out.TopLogProbs, nil)
		} else {
			out.TokenLogProbs, out.TopLogProbs = append(out.TokenLogProbs, new(finite(t.LogProb))), append(out.TopLogProbs, f.top(t))
		}
		if f.Raw {
			out.Raw = append(out.Raw, raw(t))
		}
	}
	if f.Top == 0 {
		out.TopLogProbs = nil
	}
	return out
}

// top are the likeliest at a token's place and itself. Ids that spell the same keep the likelier.
func (f *format) top(t *Token) map[string]float32 {
	if f.Top == 0 {
		return nil
	}
	m := map[string]float32{f.spell(t): finite(t.LogProb)}
	for i := range t.Top {
		o := &t.Top[i]
		if lp, ok := m[f.spell(o)]; !ok || o.LogProb > lp {
			m[f.spell(o)] = finite(o.LogProb)
		}
	}
	return m
}

// spell is how a token is written beside its log-probability.
func (f *format) spell(t *Token) string {
	if f.SpellIDs {
		return "token_id:" + strconv.Itoa(int(t.ID))
	}
	return t.Piece
}

func raw(t *Token) *float32 {
	if t.Raw == nil {
		return nil
	}
	return new(finite(*t.Raw))
}

// wire is a chat's form of a token.
func (f *format) wire(t *Token, withRaw bool) TokenLogProb {
	out := TokenLogProb{Token: f.spell(t), LogProb: finite(t.LogProb), Bytes: []int{}, Top: []TopLogProb{}}
	if withRaw {
		out.Raw = raw(t)
	}
	for _, b := range []byte(t.Piece) {
		out.Bytes = append(out.Bytes, int(b))
	}
	for i := range t.Top {
		o := f.wire(&t.Top[i], false)
		out.Top = append(out.Top, TopLogProb{o.Token, o.LogProb, o.Bytes})
	}
	return out
}

// promptLogProbs is vLLM's form of a prompt's: by position, the token and the likeliest at its place by id.
func promptLogProbs(tokens []Token) []map[string]PromptLogProb {
	var out []map[string]PromptLogProb
	for _, t := range tokens {
		if t.First {
			out = append(out, nil)
			continue
		}
		m := map[string]PromptLogProb{}
		for i, o := range t.Top {
			m[strconv.Itoa(int(o.ID))] = PromptLogProb{finite(o.LogProb), i + 1, o.Piece}
		}
		m[strconv.Itoa(int(t.ID))] = PromptLogProb{finite(t.LogProb), t.Rank, t.Piece}
		out = append(out, m)
	}
	return out
}
