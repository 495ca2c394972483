package serve

import (
	"slices"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/router/openai"
)

// request is what the engine's requests of a call have in common: all but prompt, limit and seed.
func (m *Model) request(c *openai.Call) (q engine.Request, err error) {
	q = engine.Request{Samples: 1, Adapter: m.Adapter, Sampling: m.sampling(c), MinTokens: c.Least, Priority: c.Priority, Salt: c.Salt, Allowed: c.Allowed}
	if c.LogProbs {
		q.Top, q.Raw = c.Top, c.Raw
	}
	if c.PromptLogProbs != nil || c.Echo && c.LogProbs {
		q.PromptLogProbs = true
		if c.PromptLogProbs != nil {
			q.PromptRanks, q.PromptTop = true, *c.PromptLogProbs
		}
		if c.Echo {
			q.PromptTop = max(q.PromptTop, c.Top)
		}
	}
	if !c.IgnoreEOS {
		q.Stop = slices.Clone(m.EOS)
	}
	q.Stop = append(q.Stop, c.StopIDs...)
	for _, w := range c.BadWords {
		q.BadWords = append(q.BadWords, m.spellings(w)...)
	}
	if c.Trace || c.Limits != (router.Limits{}) {
		return q, refuse("r2", "only the router has a trace and limits")
	}
	if err := m.known(c); err != nil {
		return q, err
	}
	return q, m.form(c, &q)
}

// known reports the first id that the vocabulary does not have.
func (m *Model) known(c *openai.Call) error {
	for _, list := range []struct {
		param string
		ids   []int32
	}{{"stop_token_ids", c.StopIDs}, {"allowed_token_ids", c.Allowed}} {
		for _, id := range list.ids {
			if int(id) >= m.Vocab {
				return refuse(list.param, "%d is no token: the vocabulary has %d", id, m.Vocab)
			}
		}
	}
	for _, b := range c.Bias {
		if int(b.ID) >= m.Vocab {
			return refuse("logit_bias", "%d is no token: the vocabulary has %d", b.ID, m.Vocab)
		}
	}
	for i, p := range c.Prompts {
		for j, id := range p.IDs {
			if int(id) >= m.Vocab {
				return refuse("prompt", "prompt %d: token %d is %d, the vocabulary has %d", i, j, id, m.Vocab)
			}
		}
	}
	return nil
}

// sampling is how tokens are drawn: the call's settings over the model's defaults. Min-p comes first, as in vLLM.
func (m *Model) sampling(c *openai.Call) sample.Params {
	p := m.Defaults
	p.MinPFirst = true
	for _, f := range []struct {
		to   *float32
		from *float64
	}{{&p.Temperature, c.Temperature}, {&p.TopP, c.TopP}, {&p.MinP, c.MinP}} {
		if f.from != nil {
			*f.to = float32(*f.from)
		}
	}
	for _, f := range []struct{ to, from *float64 }{{&p.Repetition, c.Repetition}, {&p.Presence, c.Presence}, {&p.Frequency, c.Frequency}} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	if c.TopK != nil {
		p.TopK = max(0, *c.TopK)
	}
	for _, b := range c.Bias {
		p.Bias = append(p.Bias, sample.Bias{ID: b.ID, Add: b.Add})
	}
	return p
}

// spellings are the tokens of a bad word at the start of a text and behind a space, as vLLM forbids it.
func (m *Model) spellings(word string) [][]int32 {
	var out [][]int32
	for _, text := range []string{word, " " + word} {
		if ids := m.Tokenizer.Encode(text, false); len(ids) > 0 && !slices.ContainsFunc(out, func(o []int32) bool { return slices.Equal(o, ids) }) {
			out = append(out, ids)
		}
	}
	return out
}

// form sets what answers must keep to.
func (m *Model) form(c *openai.Call, q *engine.Request) (err error) {
	f := router.Request{Schema: c.Form.Schema, Pattern: c.Form.Pattern, JSONObject: c.Form.Object}
	forced := forcedTools(c)
	if forced != nil {
		if f.Schema, err = m.toolStyle().schema(forced); err != nil {
			return refuse("tools", "%v", err)
		}
	}
	for _, choice := range c.Form.Choices {
		q.Choices = append(q.Choices, m.Tokenizer.Encode(choice, false))
	}
	if q.Form, err = m.Forms.Form(f); err != nil {
		if forced != nil {
			return refuse("tools", "the arguments of a call that must be made cannot be kept to: %v", err)
		}
		return err
	}
	if c.Least > 0 && (q.Form != nil || q.Choices != nil) {
		return refuse("min_tokens", "it does not go with a form of the answer, which says where it ends")
	}
	return nil
}

// prompts are the ids of all prompts, truncated where that is asked for.
func (m *Model) prompts(c *openai.Call) ([][]int32, error) {
	param := "prompt"
	var all [][]int32
	if c.Chat != nil {
		param = "messages"
		ids, err := m.chat(c)
		if err != nil {
			return nil, err
		}
		all = append(all, ids)
	}
	for _, p := range c.Prompts {
		if p.IDs != nil {
			all = append(all, slices.Clone(p.IDs))
			continue
		}
		all = append(all, m.Tokenizer.Encode(p.Text, c.SpecialTokens == nil || *c.SpecialTokens))
	}
	for i, ids := range all {
		if keep, err := m.keep(c); err != nil {
			return nil, err
		} else if keep > 0 && len(ids) > keep {
			all[i] = ids[len(ids)-keep:]
		}
		if len(ids) == 0 {
			return nil, refuse(param, "it is empty")
		}
	}
	return all, nil
}

// keep is how many of a prompt's last tokens are kept; 0: all.
func (m *Model) keep(c *openai.Call) (int, error) {
	switch {
	case c.Truncate == nil:
		return 0, nil
	case *c.Truncate > m.Context:
		return 0, refuse("truncate_prompt_tokens", "it is %d, the context is %d", *c.Truncate, m.Context)
	case *c.Truncate > 0:
		return *c.Truncate, nil
	}
	room := 1
	if c.Limit != nil {
		room = max(1, *c.Limit)
	}
	if room >= m.Context {
		return 0, refuse("max_tokens", "%d leave no room for a prompt in the context of %d", room, m.Context)
	}
	return m.Context - room, nil
}

// fewTokens is OpenAI's default of a completion's max_tokens, and vLLM's.
const fewTokens = 16

// limit is the most tokens of an answer to a prompt of n tokens.
func (m *Model) limit(c *openai.Call, n int) (int, error) {
	param := "prompt"
	if c.Chat != nil {
		param = "messages"
	}
	if c.Limit != nil && *c.Limit == 0 {
		if n > m.Context {
			return 0, refuse(param, "%d tokens do not fit in the context of %d", n, m.Context)
		}
		return 0, nil
	}
	room := m.Context - n
	if room < 1 {
		return 0, refuse(param, "%d tokens leave no room in the context of %d", n, m.Context)
	}
	limit := room
	if c.Chat == nil {
		limit = min(room, fewTokens)
	} else if m.MaxTokens > 0 {
		limit = min(limit, m.MaxTokens)
	}
	if c.Limit != nil {
		limit = min(*c.Limit, room)
	}
	if c.Least > limit {
		return 0, refuse("min_tokens", "it is %d, and an answer can have %d at most", c.Least, limit)
	}
	return limit, nil
}
