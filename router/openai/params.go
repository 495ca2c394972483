package openai

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/r2-reasoner/r2/router"
)

// A setter reads one parameter.
type setter func(c *Call, raw json.RawMessage) error

// common are the parameters of both endpoints.
var common = map[string]setter{
	"model":      func(c *Call, raw json.RawMessage) error { return str(raw, &c.Model) },
	"n":          func(c *Call, raw json.RawMessage) error { return integer(raw, &c.N, 1, mostAnswers) },
	"best_of":    func(c *Call, raw json.RawMessage) error { return integer(raw, &c.BestOf, 1, mostAnswers) },
	"max_tokens": limit,
	"min_tokens": func(c *Call, raw json.RawMessage) error { return integer(raw, &c.Least, 0, math.MaxInt32) },

	"temperature": func(c *Call, raw json.RawMessage) error { return number(raw, &c.Temperature, 0, 2) },
	"top_p": func(c *Call, raw json.RawMessage) error {
		return number(raw, &c.TopP, math.SmallestNonzeroFloat64, 1)
	},
	"min_p": func(c *Call, raw json.RawMessage) error { return number(raw, &c.MinP, 0, 1) },
	"top_k": func(c *Call, raw json.RawMessage) error { return counted(raw, &c.TopK, -1, math.MaxInt32) },
	"seed": func(c *Call, raw json.RawMessage) error {
		var n int64
		if err := integer(raw, &n, math.MinInt64, math.MaxInt64); err != nil {
			return err
		}
		c.Seed = new(uint64(n))
		return nil
	},
	"repetition_penalty": func(c *Call, raw json.RawMessage) error { return number(raw, &c.Repetition, 0.01, 100) },
	"presence_penalty":   func(c *Call, raw json.RawMessage) error { return number(raw, &c.Presence, -2, 2) },
	"frequency_penalty":  func(c *Call, raw json.RawMessage) error { return number(raw, &c.Frequency, -2, 2) },
	"logit_bias":         bias,
	"allowed_token_ids":  func(c *Call, raw json.RawMessage) (err error) { c.Allowed, err = ids(raw, math.MaxInt32); return err },
	"bad_words":          func(c *Call, raw json.RawMessage) (err error) { c.BadWords, err = someTexts(raw); return err },

	"stop":                       func(c *Call, raw json.RawMessage) (err error) { c.Stop, err = someTexts(raw); return err },
	"stop_token_ids":             func(c *Call, raw json.RawMessage) (err error) { c.StopIDs, err = ids(raw, mostStrings); return err },
	"include_stop_str_in_output": func(c *Call, raw json.RawMessage) error { return boolean(raw, &c.IncludeStop) },
	"ignore_eos":                 func(c *Call, raw json.RawMessage) error { return boolean(raw, &c.IgnoreEOS) },
	"skip_special_tokens":        func(c *Call, raw json.RawMessage) error { return unless(raw, &c.KeepSpecial) },

	"raw_logprobs":    func(c *Call, raw json.RawMessage) error { return boolean(raw, &c.Raw) },
	"prompt_logprobs": func(c *Call, raw json.RawMessage) error { return counted(raw, &c.PromptLogProbs, 0, mostTop) },
	"echo":            func(c *Call, raw json.RawMessage) error { return boolean(raw, &c.Echo) },

	"response_format":    responseFormat,
	"structured_outputs": structured,
	"priority": func(c *Call, raw json.RawMessage) error {
		return integer(raw, &c.Priority, math.MinInt32, math.MaxInt32)
	},
	"cache_salt":             func(c *Call, raw json.RawMessage) error { return name(raw, &c.Salt) },
	"truncate_prompt_tokens": truncate,
	"add_special_tokens": func(c *Call, raw json.RawMessage) error {
		c.SpecialTokens = new(bool)
		return boolean(raw, c.SpecialTokens)
	},
	"return_token_ids":           func(c *Call, raw json.RawMessage) error { return boolean(raw, &c.ReturnIDs) },
	"return_tokens_as_token_ids": func(c *Call, raw json.RawMessage) error { return boolean(raw, &c.SpellIDs) },
	"request_id": func(c *Call, raw json.RawMessage) error {
		if err := str(raw, &c.ID); err != nil {
			return err
		}
		if !requestID.MatchString(c.ID) {
			return errors.New("want 1 to 128 letters, digits, ., _, : or -")
		}
		return nil
	},

	"stream": func(c *Call, raw json.RawMessage) error { return boolean(raw, &c.Stream) },
	"stream_options": func(c *Call, raw json.RawMessage) error {
		return object(raw, map[string]func(json.RawMessage) error{
			"include_usage":          func(raw json.RawMessage) error { return boolean(raw, &c.Usage) },
			"continuous_usage_stats": func(raw json.RawMessage) error { return boolean(raw, &c.ContinuousUsage) },
		})
	},
	"user": func(c *Call, raw json.RawMessage) error {
		if err := str(raw, &c.User); err != nil {
			return err
		}
		if len(c.User) > mostUser {
			return fmt.Errorf("it has %d bytes, want at most %d", len(c.User), mostUser)
		}
		return nil
	},
	"r2": extension,

	// what vLLM's clients send and what changes nothing; any other value is refused
	"use_beam_search":               only("false"),
	"length_penalty":                only("1"),
	"spaces_between_special_tokens": only("true"),
	"truncation_side":               only(`"left"`),
}

// instead is what to use in the place of what is not supported.
var instead = map[string]string{
	"function_call": "tool_choice", "functions": "tools", "guided_choice": "structured_outputs", "guided_json": "structured_outputs",
	"guided_regex": "structured_outputs", "prompt_cache_key": "cache_salt", "reasoning_effort": "chat_template_kwargs",
}

// chatOnly and textOnly are those of one.
var chatOnly = map[string]setter{
	"messages":               messages,
	"max_completion_tokens":  limit,
	"logprobs":               func(c *Call, raw json.RawMessage) error { return boolean(raw, &c.LogProbs) },
	"top_logprobs":           func(c *Call, raw json.RawMessage) error { return integer(raw, &c.Top, 0, mostTop) },
	"tools":                  tools,
	"tool_choice":            toolChoice,
	"parallel_tool_calls":    func(c *Call, raw json.RawMessage) error { return unless(raw, &c.Chat.OneCall) },
	"add_generation_prompt":  func(c *Call, raw json.RawMessage) error { return unless(raw, &c.Chat.NoPrompt) },
	"continue_final_message": func(c *Call, raw json.RawMessage) error { return boolean(raw, &c.Chat.Continue) },
	"chat_template_kwargs":   variables,

	// as above: what OpenAI's clients send
	"include_reasoning": only("true"),
	"modalities":        only(`["text"]`),
	"service_tier":      only(`"auto"`, `"default"`),
	"store":             only("false"),
}

var textOnly = map[string]setter{
	"prompt": prompts,
	"logprobs": func(c *Call, raw json.RawMessage) error {
		c.LogProbs = true
		return integer(raw, &c.Top, 0, mostTop)
	},
}

// params are the parameters of an endpoint.
func params(chat bool) map[string]setter {
	own := textOnly
	if chat {
		own = chatOnly
	}
	all := maps.Clone(common)
	maps.Copy(all, own)
	return all
}

var ofChats, ofTexts = params(true), params(false)

// envelope are the members of a body that are not null.
func envelope(body []byte) (map[string]json.RawMessage, error) {
	values, err := members(body)
	if err == nil {
		err = unicode(body)
	}
	if err != nil {
		return nil, &router.ParamError{Param: "body", Reason: err.Error()}
	}
	maps.DeleteFunc(values, func(_ string, raw json.RawMessage) bool { return string(raw) == "null" })
	return values, nil
}

// decode reads the body of a request. Every parameter is honoured or refused; null is as if it were not there.
func decode(body []byte, chat bool) (*Call, error) {
	values, err := envelope(body)
	if err != nil {
		return nil, err
	}
	if chat {
		return call(values, true, ofChats)
	}
	return call(values, false, ofTexts)
}

// call makes one of parameters of which those in known are taken.
func call(values map[string]json.RawMessage, chat bool, known map[string]setter) (*Call, error) {
	c := &Call{N: 1}
	need := "prompt"
	if chat {
		c.Chat = &Chat{}
		need = "messages"
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		set, ok := known[name]
		if !ok {
			reason := "this parameter is not supported here"
			if better, ok := instead[name]; ok {
				reason += ": use " + better
			}
			return nil, &router.ParamError{Param: name, Reason: reason}
		}
		if err := set(c, values[name]); err != nil {
			return nil, &router.ParamError{Param: name, Reason: err.Error()}
		}
	}
	for _, name := range []string{"model", need} {
		if values[name] == nil {
			return nil, &router.ParamError{Param: name, Reason: "this parameter is required"}
		}
	}
	return c, c.fit(values)
}

// fit reports the first parameter that does not go with another.
func (c *Call) fit(given map[string]json.RawMessage) error {
	if c.BestOf == 0 {
		c.BestOf = c.N
	}
	has := func(name string) bool { return given[name] != nil }
	for _, rule := range []struct {
		broken        bool
		param, reason string
	}{
		{has("max_tokens") && has("max_completion_tokens") && string(given["max_tokens"]) != string(given["max_completion_tokens"]), "max_completion_tokens", "it differs from max_tokens"},
		{c.Draws() > mostAnswers, "prompt", fmt.Sprintf("more than %d answers", mostAnswers)},
		{c.BestOf < c.N, "best_of", fmt.Sprintf("it is %d, and n is %d: want at least n", c.BestOf, c.N)},
		{c.BestOf > c.N && c.Stream, "best_of", "the best are known at the end only: it does not go with stream"},
		{c.Limit != nil && *c.Limit == 0 && !c.Echo && c.PromptLogProbs == nil, "max_tokens", "want a whole number from 1: 0 is for echo and prompt_logprobs"},
		{c.Limit != nil && *c.Limit == 0 && c.BestOf > 1, "n", "want 1 where max_tokens is 0: nothing is drawn"},
		{c.Limit != nil && c.Least > *c.Limit, "min_tokens", "it is more than max_tokens"},
		{has("top_logprobs") && c.Top > 0 && !c.LogProbs, "top_logprobs", "only with logprobs: true"},
		{c.Raw && !c.LogProbs, "raw_logprobs", "only with logprobs"},
		{c.SpellIDs && !c.LogProbs, "return_tokens_as_token_ids", "only with logprobs"},
		{has("stream_options") && !c.Stream, "stream_options", "only with stream"},
		{c.PromptLogProbs != nil && c.Stream, "prompt_logprobs", "not with stream"},
		{has("response_format") && has("structured_outputs") && c.Form.Given(), "structured_outputs", "not with response_format"},
		{c.Trace && c.N > 1, "n", "one answer only when the trace is asked for"},
	} {
		if rule.broken {
			return &router.ParamError{Param: rule.param, Reason: rule.reason}
		}
	}
	if c.Chat == nil {
		return nil
	}
	return c.Chat.fit(c, has("add_generation_prompt"))
}

func limit(c *Call, raw json.RawMessage) error { return counted(raw, &c.Limit, 0, math.MaxInt32) }

func truncate(c *Call, raw json.RawMessage) error {
	if err := counted(raw, &c.Truncate, -1, math.MaxInt32); err != nil {
		return err
	}
	if *c.Truncate == 0 {
		return errors.New("want at least 1 token, or -1 for as many as the context takes")
	}
	return nil
}

// bias reads {"id": number}.
func bias(c *Call, raw json.RawMessage) error {
	m, err := members(raw)
	if err != nil {
		return err
	}
	for key, value := range m {
		id, err := strconv.ParseInt(key, 10, 32)
		if err != nil || id < 0 {
			return fmt.Errorf("%.40q is not a token id", key)
		}
		var add *float64
		if err := number(value, &add, -100, 100); err != nil {
			return fmt.Errorf("token %d: %w", id, err)
		}
		c.Bias = append(c.Bias, Bias{int32(id), *add})
	}
	slices.SortFunc(c.Bias, func(a, b Bias) int { return int(a.ID) - int(b.ID) })
	for i := range c.Bias[min(1, len(c.Bias)):] { // "7" and "07"
		if c.Bias[i].ID == c.Bias[i+1].ID {
			return fmt.Errorf("token %d is there twice", c.Bias[i].ID)
		}
	}
	return nil
}

// prompts reads a text, a list of texts, a list of ids, or a list of lists of ids.
func prompts(c *Call, raw json.RawMessage) error {
	if len(raw) == 0 || raw[0] != '[' {
		list, err := texts(raw)
		if err == nil {
			c.Prompts = []Prompt{{Text: list[0]}}
		}
		return err
	}
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil || len(items) == 0 {
		return errors.New("want a string, an array of strings, of token ids, or of arrays of token ids, at least one")
	}
	switch items[0][0] {
	case '"':
		list, err := texts(raw)
		for _, s := range list {
			c.Prompts = append(c.Prompts, Prompt{Text: s})
		}
		return err
	case '[':
		for i, item := range items {
			list, err := ids(item, math.MaxInt32)
			if err == nil && len(list) == 0 {
				err = errors.New("it is empty")
			}
			if err != nil {
				return fmt.Errorf("item %d: %w", i, err)
			}
			c.Prompts = append(c.Prompts, Prompt{IDs: list})
		}
		return nil
	}
	list, err := ids(raw, math.MaxInt32)
	c.Prompts = []Prompt{{IDs: list}}
	return err
}

// extension reads what only the router takes.
func extension(c *Call, raw json.RawMessage) error {
	return object(raw, map[string]func(json.RawMessage) error{
		"trace": func(raw json.RawMessage) error { return boolean(raw, &c.Trace) },
		"limits": func(raw json.RawMessage) error {
			return object(raw, map[string]func(json.RawMessage) error{
				"subtasks": func(raw json.RawMessage) error { return integer(raw, &c.Limits.Subtasks, 1, math.MaxInt32) },
				"calls":    func(raw json.RawMessage) error { return integer(raw, &c.Limits.Calls, 1, math.MaxInt32) },
				"usd": func(raw json.RawMessage) error {
					c.Limits.Cost = new(router.Money)
					if err := json.Unmarshal(raw, c.Limits.Cost); err != nil || *c.Limits.Cost < 0 {
						return fmt.Errorf("want an amount of money of at least 0, got %.40s", raw)
					}
					return nil
				},
			})
		},
	})
}
