package weights

// Vocabulary is the tokenizer that a GGUF file holds in its metadata. Ids are -1 where there is none.
type Vocabulary struct {
	Model  string    // "gpt2": byte-level BPE; "llama": SentencePiece
	Pre    string    // the pre-tokenizer's name, such as "qwen2", "llama-bpe", "smollm"
	Tokens []string  // by id; of byte-level BPE in its printable alphabet
	Scores []float32 // by id, of SentencePiece
	Types  []int32   // by id: the Token constants
	Merges []string  // "a b", best first

	BOS, EOS, EOT, PAD, UNK int
	AddBOS, AddEOS          bool // put around a text; where the file is silent, llama.cpp's default
	ChatTemplate            string
}

// The types of a token in a GGUF vocabulary.
const (
	TokenNormal      = 1
	TokenUnknown     = 2
	TokenControl     = 3
	TokenUserDefined = 4
	TokenUnused      = 5
	TokenByte        = 6
)

// Vocabulary returns the tokenizer in the file's metadata, or nil when it has none.
func (g *GGUF) Vocabulary() *Vocabulary {
	const key = "tokenizer.ggml."
	tokens := g.texts(key + "tokens")
	if tokens == nil {
		return nil
	}
	v := &Vocabulary{
		Model: g.Text(key + "model"), Pre: g.Text(key + "pre"),
		Tokens: tokens, Scores: g.numbers(key + "scores"), Types: g.integers(key + "token_type"), Merges: g.texts(key + "merges"),
		BOS: g.tokenID("bos"), EOS: g.tokenID("eos"), EOT: g.tokenID("eot"), PAD: g.tokenID("padding"), UNK: g.tokenID("unknown"),
		ChatTemplate: g.Text("tokenizer.chat_template"),
	}
	v.AddBOS = g.boolean(key+"add_bos_token", v.Model == "llama" || v.Pre == "llama-bpe")
	v.AddEOS = g.boolean(key+"add_eos_token", false)
	return v
}
