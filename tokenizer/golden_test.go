package tokenizer

import (
	"bufio"
	"encoding/json"
	"os"
	"slices"
	"testing"

	"github.com/r2-reasoner/r2/model/modeltest"
)

// checkIDs encodes text and compares, and decodes by stream and as a whole.
func checkIDs(t *testing.T, tok *Tokenizer, text string, want []int32, special bool) {
	t.Helper()
	got := tok.Encode(text, special)
	if !slices.Equal(got, want) {
		t.Errorf("Encode(%.80q, %v)\n got %d\nwant %d", text, special, clip(got), clip(want))
	}
	for _, skip := range []bool{false, true} {
		whole := tok.Decode(want, skip)
		if streamed := stream(tok, want, skip); streamed != whole {
			t.Errorf("stream of %d: %q, Decode %q", clip(want), streamed, whole)
		}
	}
}

func clip(ids []int32) []int32 { return ids[:min(len(ids), 40)] }

func stream(tok *Tokenizer, ids []int32, skip bool) string {
	s, out := tok.Stream(skip), ""
	for _, id := range ids {
		out += s.Push(id)
	}
	return out + s.Flush()
}

func open(t testing.TB, path ...string) *Tokenizer {
	t.Helper()
	tok, err := Open(modeltest.Shared(t, path...))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// TestQwenGolden: 1,641 texts with the ids of @huggingface/tokenizers.
func TestQwenGolden(t *testing.T) {
	tok := open(t, "data", "tokenizer_qwen2_5")
	f, err := os.Open(modeltest.Shared(t, "data", "tokenizer_qwen2_5", "qwen2_5_golden.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows := 0
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<24)
	for ; lines.Scan(); rows++ {
		var row struct {
			Text string
			IDs  []int32
		}
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		checkIDs(t, tok, row.Text, row.IDs, false)
	}
	if rows < 1600 {
		t.Errorf("only %d rows", rows)
	}
}

// TestSmolGolden: 100 hard strings with the ids of the tokenizers library, from
// both files the tokenizer comes in.
func TestSmolGolden(t *testing.T) {
	var golden struct {
		Items []struct {
			Text    string
			IDs     []int32
			Special []int32 `json:"ids_with_special"`
			Decoded string
		}
	}
	dir := []string{"models", "smollm2-135m-instruct"}
	data, err := os.ReadFile(modeltest.Shared(t, append(dir, "tokenizer_golden.json")...))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	gguf, err := FromGGUF(ggufSpec(readGGUF(t, modeltest.Shared(t, append(dir, "SmolLM2-135M-Instruct.Q4_1.gguf")...))))
	if err != nil {
		t.Fatal(err)
	}
	for name, tok := range map[string]*Tokenizer{"tokenizer.json": open(t, dir...), "gguf": gguf} {
		t.Run(name, func(t *testing.T) {
			for _, item := range golden.Items {
				checkIDs(t, tok, item.Text, item.IDs, false)
				checkIDs(t, tok, item.Text, item.Special, true)
				if got := tok.Decode(item.IDs, false); got != item.Decoded {
					t.Errorf("Decode(%d) = %q, want %q", item.IDs, got, item.Decoded)
				}
			}
			if len(golden.Items) < 100 || tok.Size() != 49152 {
				t.Errorf("%d items, %d ids", len(golden.Items), tok.Size())
			}
			if id, ok := tok.EOS(); !ok || id != 2 {
				t.Errorf("EOS %d, %v; want 2", id, ok)
			}
		})
	}
}
