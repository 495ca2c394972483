// Package openai is the HTTP face of text: OpenAI's wire format of /v1/chat/completions and /v1/completions with
// vLLM's additions, a client that is a router.Completer, and a handler over any router.Completer.
package openai

import (
	"encoding/json"

	"github.com/r2-reasoner/r2/router"
)

// A ChatRequest is the body of POST /v1/chat/completions as the client writes it.
type ChatRequest struct {
	Model         string             `json:"model"`
	Messages      []router.Message   `json:"messages"`
	MaxTokens     int                `json:"max_tokens,omitempty"`
	Temperature   *float64           `json:"temperature,omitempty"`
	TopP          *float64           `json:"top_p,omitempty"`
	TopK          *int               `json:"top_k,omitempty"`
	MinP          *float64           `json:"min_p,omitempty"`
	Seed          *int64             `json:"seed,omitempty"`
	Stop          []string           `json:"stop,omitempty"`
	LogProbs      bool               `json:"logprobs,omitempty"`
	IgnoreEOS     bool               `json:"ignore_eos,omitempty"`
	Structured    *StructuredOutputs `json:"structured_outputs,omitempty"`
	Stream        bool               `json:"stream,omitempty"`
	StreamOptions *StreamOptions     `json:"stream_options,omitempty"`
}

// StructuredOutputs is vLLM's: the answer is exactly one of Choice, matches Regex, is valid by the schema JSON, or
// is any JSON object. One of them is given.
type StructuredOutputs struct {
	Choice     []string        `json:"choice,omitempty"`
	Regex      string          `json:"regex,omitempty"`
	JSON       json.RawMessage `json:"json,omitempty"`
	JSONObject bool            `json:"json_object,omitempty"`
}

// StreamOptions asks for a last chunk with the usage.
type StreamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

// A Response is the answer to a request, or one chunk of it.
type Response struct {
	ID      string   `json:"id"`
	Object  string   `json:"object"`
	Created int64    `json:"created"` // Unix seconds
	Model   string   `json:"model"`
	Choices []Choice `json:"choices"`
	Usage   *Usage   `json:"usage,omitempty"`

	PromptIDs      []int32                    `json:"prompt_token_ids,omitempty"` // of a chat
	PromptLogProbs []map[string]PromptLogProb `json:"prompt_logprobs,omitempty"`  // of a chat, by position and id

	R2    *Extension `json:"r2,omitempty"`
	Error *Error     `json:"error,omitempty"` // instead of all else, within a stream
}

// A Choice is one of the n answers: Message of a chat, Delta of its chunks, Text of a completion and its chunks.
type Choice struct {
	Index    int       `json:"index"`
	Message  *Turn     `json:"message,omitempty"`
	Delta    *Turn     `json:"delta,omitempty"`
	Text     *string   `json:"text,omitempty"`
	LogProbs *LogProbs `json:"logprobs"`
	Finish   *string   `json:"finish_reason"`
	Stop     any       `json:"stop_reason,omitempty"` // the stop string or stop_token_ids' id that ended it

	IDs            []int32                    `json:"token_ids,omitempty"`
	PromptIDs      []int32                    `json:"prompt_token_ids,omitempty"` // of a completion
	PromptLogProbs []map[string]PromptLogProb `json:"prompt_logprobs,omitempty"`
}

// A Turn is a message, or a part of one.
type Turn struct {
	Role    string     `json:"role,omitempty"`
	Content *string    `json:"content,omitempty"`
	Refusal *string    `json:"refusal,omitempty"`
	Calls   []ToolCall `json:"tool_calls,omitempty"`
}

// LogProbs has Content for a chat, and the other fields for a completion.
type LogProbs struct {
	Content       []TokenLogProb `json:"content,omitempty"`
	Tokens        []string       `json:"tokens,omitempty"`
	TokenLogProbs []*float32     `json:"token_logprobs,omitempty"` // null of a first token
	TextOffset    []int          `json:"text_offset,omitempty"`    // in characters

	TopLogProbs []map[string]float32 `json:"top_logprobs,omitempty"`
	Raw         []*float32           `json:"raw_logprobs,omitempty"`
}

// A TokenLogProb is one token of an answer.
type TokenLogProb struct {
	Token   string       `json:"token"`
	LogProb float32      `json:"logprob"`
	Raw     *float32     `json:"raw_logprob,omitempty"` // of the unmodified distribution
	Bytes   []int        `json:"bytes"`
	Top     []TopLogProb `json:"top_logprobs"`
}

// A TopLogProb is one of the likeliest tokens at a place.
type TopLogProb struct {
	Token   string  `json:"token"`
	LogProb float32 `json:"logprob"`
	Bytes   []int   `json:"bytes"`
}

// A PromptLogProb is what vLLM tells of a prompt's token.
type PromptLogProb struct {
	LogProb float32 `json:"logprob"`
	Rank    int     `json:"rank"`
	Token   string  `json:"decoded_token"`
}

// Usage counts tokens; Cost, in USD, is there when the answer was paid for.
type Usage struct {
	Prompt     int            `json:"prompt_tokens"`
	Completion int            `json:"completion_tokens"`
	Total      int            `json:"total_tokens"`
	Details    *PromptDetails `json:"prompt_tokens_details,omitempty"`
	Cost       *router.Money  `json:"cost,omitempty"`
}

// PromptDetails says how much of a prompt the cache held.
type PromptDetails struct {
	Cached int `json:"cached_tokens"`
}

// An Extension is what the router adds to OpenAI's format: its trace when asked for, its events as they come.
type Extension struct {
	Trace *router.Trace `json:"trace,omitempty"`
	Event *router.Event `json:"event,omitempty"`
}

// An Error is OpenAI's shape of an error.
type Error struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

// A failed is the body of an error response.
type failed struct {
	Error Error      `json:"error"`
	R2    *Extension `json:"r2,omitempty"`
}
