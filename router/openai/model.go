package openai

import (
	"context"
	"iter"
	"maps"
	"slices"

	"github.com/r2-reasoner/r2/router"
)

// A Model answers calls. It is safe for concurrent use.
type Model interface {
	// Answer yields the parts of the answers as they come, those of each in order. The last of each has Done set. An
	// error ends the sequence; one of the call itself (a router.ParamError) comes before any part. When the consumer
	// leaves, or ctx is done, the work ends.
	Answer(ctx context.Context, c *Call) iter.Seq2[Part, error]
}

// A Part is the next of one of the answers.
type Part struct {
	Index  int // of the answer: prompt × Call.BestOf + draw
	Text   string
	Calls  []ToolCall    // of tools, whole; Index counts them within the answer
	Tokens []Token       // those that Text has been made of or held back for; only with LogProbs, ReturnIDs or Echo
	Prompt *PromptTokens // with the first part of a prompt's first answer, where it is asked for
	In     int           // with an answer's first part: tokens of its prompt
	Out    int           // tokens drawn since the part before
	Event  *router.Event // what the router has just done
	Done   *Done         // with the answer's last part, and beside an error that cost something
}

// PromptTokens are the ids of a prompt and, where asked for, its log-probabilities.
type PromptTokens struct {
	IDs      []int32
	LogProbs []Token // by position; the first has none
}

// A Token is one token of an answer or of a prompt.
type Token struct {
	ID      int32
	Piece   string  // its bytes
	LogProb float32 // natural, of the distribution it was drawn from; of a prompt's token, of the unmodified one
	Rank    int     // of a prompt's token: 1 is the likeliest; 0 where it is not known
	First   bool    // nothing stands before it, so it has no log-probability
	Raw     *float32
	Top     []Token // the likeliest at its place, the likeliest first
}

// Done is what is known of an answer at its end.
type Done struct {
	Finish  string  // stop, length or tool_calls
	Stop    any     // the stop string or the id of stop_token_ids that ended it, else nil
	In, Out int     // tokens read and drawn
	Cached  int     // tokens read that the cache held
	Sum     float64 // log-probability of the whole answer
	Cost    router.Money
	Priced  bool // Cost is known
	Trace   *router.Trace
}

// A Card describes a model of a catalog.
type Card struct {
	Name    string
	Root    string // what it was loaded from
	Parent  string // of an adapter: the model it is on
	Context int    // most tokens of a prompt and its answer; 0: not known
	Created int64  // Unix seconds; 0: the start of the process
}

// A Catalog is the models there are. It may change between calls, and is safe for concurrent use.
type Catalog interface {
	Cards() []Card // by name
	Find(name string) (Model, bool)
}

// Completers is a catalog of models that take text.
type Completers map[string]router.Completer

// Cards names them.
func (m Completers) Cards() []Card {
	var list []Card
	for _, name := range slices.Sorted(maps.Keys(m)) {
		list = append(list, Card{Name: name})
	}
	return list
}

// Find returns the one of that name.
func (m Completers) Find(name string) (Model, bool) {
	c, ok := m[name]
	if !ok {
		return nil, false
	}
	return Text(c), true
}
