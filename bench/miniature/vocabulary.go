package main

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
)

// The special tokens of the miniature's models, from id 0, and the actions, which are whole tokens.
var (
	specials = []string{"<|end|>", "<|user|>", "<|assistant|>", "<|system|>"}
	actions  = []string{" I_WALK", " I_LOOK", " I_RUN", " I_JUMP", " I_TURN_LEFT", " I_TURN_RIGHT"}
	words    = []string{"walk", "look", "run", "jump", "turn", "left", "right", "opposite", "around", "twice", "thrice", "and", "after"}
	marks    = []string{`["`, `","`, `"]`}
	template = `{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}`
)

// byteSymbols are byte-level BPE's characters for the 256 bytes: printable ones stand for themselves,
// the others for code points from 256 on (Radford et al. 2019).
func byteSymbols() [256]string {
	var s [256]string
	next := rune(256)
	for b := range 256 {
		r := rune(b)
		if !(r >= '!' && r <= '~' || r >= 0xa1 && r <= 0xac || r >= 0xae) {
			r = next
			next++
		}
		s[b] = string(r)
	}
	return s
}

// merges learns byte-pair merges (Sennrich et al. 2016) until every piece is one token.
func merges(pieces []string) [][2]string {
	symbols := byteSymbols()
	var split [][]string
	for _, p := range pieces {
		var s []string
		for i := range len(p) {
			s = append(s, symbols[p[i]])
		}
		split = append(split, s)
	}
	var out [][2]string
	for {
		pair, ok := mostFrequent(split)
		if !ok {
			return out
		}
		out = append(out, pair)
		for i, s := range split {
			split[i] = merge(s, pair)
		}
	}
}

// mostFrequent is the most frequent pair of neighbours, the first in order among equals.
func mostFrequent(split [][]string) (best [2]string, ok bool) {
	count := map[[2]string]int{}
	for _, s := range split {
		for i := 1; i < len(s); i++ {
			count[[2]string{s[i-1], s[i]}]++
		}
	}
	for p, n := range count {
		if c := cmp.Compare(n, count[best]); c > 0 || c == 0 && slices.Compare(p[:], best[:]) < 0 {
			best = p
		}
	}
	return best, len(count) > 0
}

func merge(s []string, pair [2]string) []string {
	var out []string
	for i := 0; i < len(s); i++ {
		if i+1 < len(s) && s[i] == pair[0] && s[i+1] == pair[1] {
			out = append(out, s[i]+s[i+1])
			i++
			continue
		}
		out = append(out, s[i])
	}
	return out
}

// pieces are the words with and without a space before them, the marks of a plan, and the names of
// the pool's models.
func pieces(names []string) []string {
	var p []string
	for _, w := range words {
		p = append(p, w, " "+w)
	}
	return append(append(p, marks...), names...)
}

// tokenizerFiles are tokenizer.json and tokenizer_config.json of a byte-level BPE over pieces, and the
// number of ids.
func tokenizerFiles(names []string) (tokenizer, config []byte, size int, err error) {
	vocab := map[string]int{}
	add := func(s string) {
		if _, ok := vocab[s]; !ok {
			vocab[s] = len(vocab)
		}
	}
	for _, s := range specials {
		add(s)
	}
	for _, s := range byteSymbols() {
		add(s)
	}
	var joined []string
	for _, m := range merges(pieces(names)) {
		add(m[0] + m[1])
		joined = append(joined, m[0]+" "+m[1])
	}
	var added []map[string]any
	token := func(id int, s string, special bool) {
		added = append(added, map[string]any{"id": id, "content": s, "special": special,
			"single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
	}
	for i, s := range specials {
		token(i, s, true)
	}
	size = len(vocab)
	for _, s := range actions {
		token(size, s, false)
		size++
	}
	level := map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}
	tokenizer, err = json.MarshalIndent(map[string]any{
		"version": "1.0", "truncation": nil, "padding": nil, "added_tokens": added, "normalizer": nil,
		"pre_tokenizer": level, "post_processor": nil, "decoder": level,
		"model": map[string]any{"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": "",
			"end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
			"vocab": vocab, "merges": joined},
	}, "", " ")
	if err != nil {
		return nil, nil, 0, err
	}
	config, err = json.MarshalIndent(map[string]any{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": specials[0],
		"pad_token": specials[0], "chat_template": strings.TrimSpace(template), "model_max_length": 512}, "", " ")
	return tokenizer, config, size, err
}
