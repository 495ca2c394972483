package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/kvcache"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/model/batch"
	"github.com/r2-reasoner/r2/router/local"
	"github.com/r2-reasoner/r2/router/openai"
	"github.com/r2-reasoner/r2/tokenizer"
)

// A processor's helpers end when it is collected, which is up to the garbage collector.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/r2-reasoner/r2/kernels/cpu.(*team).member"))
}

// Ids of the tokenizer of these tests: a byte is its own id, then these.
const (
	begin = 256 + iota // <s>, put before a text; special
	end                // </s>, which ends one; special
	euro               // €, a token of three bytes
	vocab
)

// bytesTokenizer has a token for each byte, and no merges.
func bytesTokenizer(t testing.TB, template string) *tokenizer.Tokenizer {
	t.Helper()
	vocabulary := map[string]int{}
	next := rune(256) // GPT-2 writes the bytes that are no printable rune as those from 256 on
	for b := range 256 {
		r := rune(b)
		if !(b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE) {
			r = next
			next++
		}
		vocabulary[string(r)] = b
	}
	added := []map[string]any{
		{"id": begin, "content": "<s>", "special": true}, {"id": end, "content": "</s>", "special": true},
		{"id": euro, "content": "€", "special": false},
	}
	for _, a := range added {
		for _, k := range []string{"single_word", "lstrip", "rstrip", "normalized"} {
			a[k] = false
		}
	}
	dir := t.TempDir()
	write := func(name string, v any) {
		b, err := json.Marshal(v)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write("tokenizer.json", map[string]any{
		"version": "1.0", "added_tokens": added, "normalizer": nil,
		"pre_tokenizer": map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
		"post_processor": map[string]any{"type": "TemplateProcessing",
			"single":         []any{map[string]any{"SpecialToken": map[string]any{"id": "<s>", "type_id": 0}}, map[string]any{"Sequence": map[string]any{"id": "A", "type_id": 0}}},
			"pair":           []any{},
			"special_tokens": map[string]any{"<s>": map[string]any{"id": "<s>", "ids": []int{begin}, "tokens": []string{"<s>"}}}},
		"decoder": map[string]any{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
		"model":   map[string]any{"type": "BPE", "vocab": vocabulary, "merges": []any{}},
	})
	write("tokenizer_config.json", map[string]any{"bos_token": "<s>", "eos_token": "</s>", "chat_template": template})
	tok, err := tokenizer.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// plainTemplate writes "role: content\n" a message, and is told how to shout.
const plainTemplate = `{% for m in messages %}{{ m.role }}: {{ m.content | upper if shout is defined and shout else m.content }}{% if not loop.last or add_generation_prompt %}{{ "\n" }}{% endif %}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}`

// A script is a Stepper that says what it is told: the text of a seed, then the end. Each token but one has the
// log-probability −(step+1)/8 − seed/1000; of a prompt's token it is −id/1000. Where a mask forbids what is to be said, it
// draws the lowest id that is allowed.
type script struct {
	texts  []string
	draws  []sample.Draw // all there were, unless forget
	forget bool
	wait   chan struct{}    // a step waits for one of these, where there is one
	slots  map[int32]string // the texts of adapters
}

func (s *script) Step(b *batch.Batch, draws []sample.Draw) ([]engine.Token, error) {
	if s.wait != nil {
		<-s.wait
	}
	out := make([]engine.Token, len(draws))
	for i, d := range draws {
		if d.Score {
			id := b.Targets[i]
			out[i] = engine.Token{ID: id, LogProb: -float32(id) / 1000, Rank: id + 1, Raw: -float32(id) / 1000}
			for k := range d.RawTop {
				out[i].RawTop = append(out[i].RawTop, sample.Scored{ID: int32(k), LogProb: -float32(k) / 1000})
			}
			continue
		}
		if !s.forget {
			s.draws = append(s.draws, d)
		}
		id := int32(end)
		if text := s.text(d.Seed, slot(b, i)); int(d.Step) < len(text) {
			id = text[d.Step]
		}
		words := (vocab + 31) / 32
		if len(b.Masks) > 0 {
			mask := b.Masks[i*words : (i+1)*words]
			for low := int32(0); mask[id/32]>>(id%32)&1 == 0; low++ {
				if id = low; id >= vocab {
					return nil, errors.New("nothing is allowed")
				}
			}
		}
		out[i] = engine.Token{ID: id, LogProb: -float32(d.Step+1)/8 - float32(d.Seed)/1000, Raw: -float32(d.Step + 1), Rank: 1}
		for k := range d.Top {
			out[i].Top = append(out[i].Top, sample.Scored{ID: 'a' + int32(k), LogProb: -float32(k+1) / 4})
		}
	}
	return out, nil
}

// slot is the adapter of a wanted row.
func slot(b *batch.Batch, wanted int) int32 {
	for seq := range b.Lengths {
		if row := b.Want[wanted]; row >= b.Starts[seq] && row < b.Starts[seq+1] && len(b.Adapters) > 0 {
			return b.Adapters[seq]
		}
	}
	return 0
}

// text is the ids of a seed's answer, or of an adapter's.
func (s *script) text(seed uint64, slot int32) []int32 {
	text := s.texts[seed%uint64(len(s.texts))]
	if slot > 0 {
		text = s.slots[slot]
	}
	var ids []int32
	for i, part := range strings.Split(text, "€") {
		if i > 0 {
			ids = append(ids, euro)
		}
		for _, b := range []byte(part) {
			ids = append(ids, int32(b))
		}
	}
	return ids
}

const context4096 = 4096

// play runs an engine on a script until the test ends.
func play(t testing.TB, s *script, template string) *Host {
	t.Helper()
	return playFew(t, s, template, 0)
}

// playFew plays with so many answers under way at once; 0: the engine's default.
func playFew(t testing.TB, s *script, template string, sequences int) *Host {
	t.Helper()
	tok := bytesTokenizer(t, template)
	e := engine.New(s, kvcache.New(2048, 16), engine.Options{Vocab: vocab, Context: context4096, MaxSequences: sequences})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &Host{Engine: e, Tokenizer: tok, Forms: local.NewForms(tok, vocab, []int32{end}), EOS: []int32{end}, Vocab: vocab, Context: context4096}
}

// handler serves a script as the model m.
func handler(t testing.TB, s *script, template string) *openai.Handler {
	t.Helper()
	c := &Catalog{}
	if err := c.Add(openai.Card{Name: "m"}, &Model{Host: play(t, s, template)}); err != nil {
		t.Fatal(err)
	}
	return &openai.Handler{Models: c}
}

// post sends fields, and the model's name, and returns the status and the body.
func post(h http.Handler, path, fields string) (int, string) {
	r := httptest.NewRequest("POST", path, strings.NewReader(`{"model":"m",`+fields+`}`))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// complete posts to /v1/completions and wants a 200.
func complete(t *testing.T, h http.Handler, fields string) openai.Response {
	t.Helper()
	return ask(t, h, "/v1/completions", fields)
}

// chat posts to /v1/chat/completions and wants a 200.
func chat(t *testing.T, h http.Handler, fields string) openai.Response {
	t.Helper()
	return ask(t, h, "/v1/chat/completions", fields)
}

func ask(t *testing.T, h http.Handler, path, fields string) (resp openai.Response) {
	t.Helper()
	status, body := post(h, path, fields)
	if status != 200 {
		t.Fatalf("%s: %d %s", fields, status, body)
	}
	if err := json.Unmarshal([]byte(body), &resp); err != nil {
		t.Fatal(err)
	}
	return resp
}

// events are the chunks of a stream, which must end well.
func events(t *testing.T, h http.Handler, path, fields string) (chunks []openai.Response) {
	t.Helper()
	status, body := post(h, path, fields+`,"stream":true`)
	lines := strings.Split(strings.TrimSpace(body), "\n\n")
	if status != 200 || lines[len(lines)-1] != "data: [DONE]" {
		t.Fatalf("%s: %d %s", fields, status, body)
	}
	for _, line := range lines[:len(lines)-1] {
		var r openai.Response
		if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "data: ")), &r); err != nil {
			t.Fatal(err)
		}
		chunks = append(chunks, r)
	}
	return chunks
}

// streamed puts the texts of a stream's first answer together, and its end.
func streamed(t *testing.T, h http.Handler, path, fields string) (text, finish string, stop any, parts []string) {
	t.Helper()
	for _, c := range events(t, h, path, fields) {
		for _, ch := range c.Choices {
			if ch.Index != 0 {
				continue
			}
			add := ch.Text
			if ch.Delta != nil {
				add = ch.Delta.Content
			}
			if add != nil && *add != "" {
				text += *add
				parts = append(parts, *add)
			}
			if ch.Finish != nil {
				finish, stop = *ch.Finish, ch.Stop
			}
		}
	}
	return text, finish, stop, parts
}

func texts(r openai.Response) (out []string) {
	for _, ch := range r.Choices {
		if ch.Text != nil {
			out = append(out, *ch.Text)
		} else {
			out = append(out, *ch.Message.Content)
		}
	}
	return out
}

func same[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %s, want %s", what, fmt.Sprintf("%v", got), fmt.Sprintf("%v", want))
	}
}
