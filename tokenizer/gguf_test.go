package tokenizer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/model/modeltest"
)

// readGGUF reads the metadata of a GGUF file, which is all these tests need of it.
func readGGUF(t *testing.T, path string) map[string]any {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := &ggufReader{b: data}
	if string(r.next(4)) != "GGUF" {
		t.Fatalf("%s is not GGUF", path)
	}
	r.u32()
	r.u64()
	meta := map[string]any{}
	for n := r.u64(); n > 0; n-- {
		key := r.str()
		meta[key] = r.value(r.u32())
	}
	return meta
}

type ggufReader struct{ b []byte }

func (r *ggufReader) next(n int) []byte { b := r.b[:n]; r.b = r.b[n:]; return b }
func (r *ggufReader) u32() uint32       { return binary.LittleEndian.Uint32(r.next(4)) }
func (r *ggufReader) u64() int          { return int(binary.LittleEndian.Uint64(r.next(8))) }
func (r *ggufReader) str() string       { return string(r.next(r.u64())) }

func (r *ggufReader) value(kind uint32) any {
	switch kind {
	case 0, 1, 7:
		return int(r.next(1)[0])
	case 2, 3:
		return r.next(2)
	case 4, 5:
		return int(int32(r.u32()))
	case 6:
		return r.next(4)
	case 8:
		return r.str()
	case 9:
		of := r.u32()
		list := make([]any, r.u64())
		for i := range list {
			list[i] = r.value(of)
		}
		return list
	case 10, 11, 12:
		return r.u64()
	}
	panic(fmt.Sprint("gguf value type ", kind))
}

func ggufSpec(meta map[string]any) GGUF {
	const key = "tokenizer.ggml."
	v := GGUF{BOS: -1, EOS: -1}
	v.Model, _ = meta[key+"model"].(string)
	v.Pre, _ = meta[key+"pre"].(string)
	v.Template, _ = meta["tokenizer.chat_template"].(string)
	for _, x := range meta[key+"tokens"].([]any) {
		v.Tokens = append(v.Tokens, x.(string))
	}
	for _, x := range meta[key+"token_type"].([]any) {
		v.Types = append(v.Types, int32(x.(int)))
	}
	if merges, ok := meta[key+"merges"].([]any); ok {
		for _, x := range merges {
			v.Merges = append(v.Merges, x.(string))
		}
	}
	if id, ok := meta[key+"bos_token_id"].(int); ok {
		v.BOS = id
	}
	if id, ok := meta[key+"eos_token_id"].(int); ok {
		v.EOS = id
	}
	v.AddBOS = meta[key+"add_bos_token"] == 1
	return v
}

// TestGGMLVectors: the ids of llama.cpp's own test vectors.
func TestGGMLVectors(t *testing.T) {
	for _, name := range []string{"gpt-2", "qwen2"} {
		t.Run(name, func(t *testing.T) {
			path := modeltest.Shared(t, "data", "ggml_vocab", "ggml-vocab-"+name+".gguf")
			tok, err := FromGGUF(ggufSpec(readGGUF(t, path)))
			if err != nil {
				t.Fatal(err)
			}
			checkVectors(t, tok, path)
		})
	}
	t.Run("gpt-2 from encoder.json", func(t *testing.T) {
		tok, err := Open(modeltest.Shared(t, "data", "tokenizer_gpt2"))
		if err != nil {
			t.Fatal(err)
		}
		checkVectors(t, tok, modeltest.Shared(t, "data", "ggml_vocab", "ggml-vocab-gpt-2.gguf"))
	})
	t.Run("phi-3 is refused", func(t *testing.T) {
		path := modeltest.Shared(t, "data", "ggml_vocab", "ggml-vocab-phi-3.gguf")
		_, err := FromGGUF(ggufSpec(readGGUF(t, path)))
		if err == nil || !strings.Contains(err.Error(), "SentencePiece") {
			t.Errorf("got error %v, want one that says SentencePiece", err)
		}
	})
}

func checkVectors(t *testing.T, tok *Tokenizer, path string) {
	t.Helper()
	in, err := os.ReadFile(path + ".inp")
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.ReadFile(path + ".out")
	if err != nil {
		t.Fatal(err)
	}
	texts := strings.Split(string(in), "\n__ggml_vocab_test__\n")
	lines := bytes.Split(bytes.TrimSuffix(out, []byte("\n")), []byte("\n"))
	if len(lines) < 40 || len(texts) < len(lines) {
		t.Fatalf("%d texts and %d lines of ids", len(texts), len(lines))
	}
	for i, line := range lines {
		var want []int32
		for _, f := range strings.Fields(string(line)) {
			id, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, int32(id))
		}
		checkIDs(t, tok, texts[i], want, false)
	}
}
