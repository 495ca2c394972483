package openai

import (
	"encoding/json"

	"github.com/r2-reasoner/r2/router"
)

// A Call is a request of /v1/completions or /v1/chat/completions as its client made it. A nil pointer, and a zero
// field that is not a pointer, leave the choice to the model. Names of parameters stand beside the fields where
// they differ.
type Call struct {
	Model   string
	Prompts []Prompt // of a completion, at least one
	Chat    *Chat    // of a chat; nil: it is a completion

	N, BestOf int  // answers of each prompt: how many are returned, and of how many drawn; BestOf ≥ N ≥ 1
	Limit     *int // max_tokens, max_completion_tokens; 0 where only the prompt is wanted back
	Least     int  // min_tokens

	Temperature, TopP, MinP         *float64
	TopK                            *int // 0 or -1: all
	Seed                            *uint64
	Repetition, Presence, Frequency *float64 // penalties
	Bias                            []Bias   // logit_bias, by id
	Allowed                         []int32  // allowed_token_ids
	BadWords                        []string

	Stop        []string
	StopIDs     []int32 // stop_token_ids
	IncludeStop bool    // include_stop_str_in_output
	IgnoreEOS   bool
	KeepSpecial bool // skip_special_tokens: false

	LogProbs       bool
	Top            int  // top_logprobs; of a completion, logprobs itself
	Raw            bool // raw_logprobs: the unmodified distribution's beside those of the one drawn from
	PromptLogProbs *int // and how many of the likeliest
	Echo           bool

	Form     Form
	Priority int // a smaller one runs before a larger
	Salt     string
	Truncate *int // truncate_prompt_tokens: keep the last so many; -1: as many as the context takes

	SpecialTokens *bool // add_special_tokens
	ReturnIDs     bool  // return_token_ids
	SpellIDs      bool  // return_tokens_as_token_ids: tokens beside log-probabilities are written token_id:N

	Stream          bool
	Usage           bool // stream_options.include_usage
	ContinuousUsage bool // stream_options.continuous_usage_stats
	ID              string
	User            string        // for the log
	Trace           bool          // r2.trace
	Limits          router.Limits // r2.limits
}

// A Prompt is a text, or the ids of one.
type Prompt struct {
	Text string
	IDs  []int32 // nil: Text
}

// A Bias is added to the logit of a token.
type Bias struct {
	ID  int32
	Add float64
}

// A Form is what an answer must keep to: one of these is set, or none.
type Form struct {
	Choices []string // it is one of them
	Pattern string   // it matches the regular expression
	Schema  string   // it is JSON, valid by the schema
	Object  bool     // it is a JSON object
}

// Given reports whether there is one.
func (f *Form) Given() bool {
	return len(f.Choices) > 0 || f.Pattern != "" || f.Schema != "" || f.Object
}

// A Chat is a conversation and what its template is told.
type Chat struct {
	Messages  []Message
	Tools     []Tool
	Choice    ToolChoice
	OneCall   bool            // parallel_tool_calls: false
	Continue  bool            // continue_final_message
	NoPrompt  bool            // add_generation_prompt: false
	Variables json.RawMessage // chat_template_kwargs, an object; nil for none
}

// A Message is one turn of a conversation.
type Message struct {
	Role      string     `json:"role"` // system, developer, user, assistant or tool
	Content   string     `json:"content"`
	Name      string     `json:"name,omitempty"`
	Reasoning string     `json:"reasoning_content,omitempty"` // of an assistant
	Calls     []ToolCall `json:"tool_calls,omitempty"`        // of an assistant
	CallID    string     `json:"tool_call_id,omitempty"`      // of a tool: the call it answers
}

// A Tool is a function a model may call.
type Tool struct {
	Name       string
	Parameters json.RawMessage // a JSON schema; nil: of any object
	Strict     bool            // the arguments are valid by it
	Raw        json.RawMessage // the whole description, as the client wrote it
}

// A ToolChoice says whether tools are called: "" or "auto" as the model likes, "none", "required", or the one Named.
type ToolChoice struct {
	Mode  string
	Named string
}

// A ToolCall is a model's call of a function.
type ToolCall struct {
	Index    *int     `json:"index,omitempty"` // in a stream: which of the answer's calls
	ID       string   `json:"id,omitempty"`
	Type     string   `json:"type,omitempty"` // function
	Function Function `json:"function"`
}

// A Function is a called function's name and its arguments as JSON.
type Function struct {
	Name      string `json:"name,omitempty"`
	Arguments string `json:"arguments"`
}

const (
	mostAnswers = 128
	mostStrings = 1024 // stop strings, choices, tools
	mostTop     = 20   // alternatives of a token
	mostUser    = 256  // bytes of a name that goes into the log
)

// answers is how many the client gets.
func (c *Call) answers() int {
	if c.Chat != nil {
		return c.N
	}
	return c.N * len(c.Prompts)
}

// Draws is how many answers are drawn for it.
func (c *Call) Draws() int {
	if c.Chat != nil {
		return c.BestOf
	}
	return c.BestOf * len(c.Prompts)
}
