package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/r2-reasoner/r2/tokenizer"
	"github.com/r2-reasoner/r2/weights"
)

type tokenizeCmd struct {
	Model   string `required:"" placeholder:"PATH" help:"A folder with tokenizer.json, or a .gguf file."`
	Input   string `placeholder:"FILE.jsonl" help:"Rows {\"text\"}, or {\"ids\"} with --decode; left out: lines of standard input."`
	Decode  bool   `help:"Turn ids back into text."`
	Special bool   `help:"Add what the tokenizer's post-processor adds; with --decode, keep special tokens."`
	outputFlags
}

func (c *tokenizeCmd) Help() string {
	return `Example:

  echo "Hello there" | r2 tokenize --model models/smollm2`
}

// Run encodes or decodes.
func (c *tokenizeCmd) Run() error {
	tok, err := c.open()
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	if c.Input == "" {
		return c.lines(tok, out)
	}
	for r, err := range rows(c.Input) {
		if err != nil {
			return err
		}
		var in struct {
			Text *string `json:"text"`
			IDs  []int32 `json:"ids"`
		}
		if err := r.decode(&in, true); err != nil {
			return err
		}
		switch {
		case c.Decode && in.IDs != nil && in.Text == nil:
			err = c.decode(tok, out, in.IDs)
		case !c.Decode && in.Text != nil && in.IDs == nil:
			err = c.encode(tok, out, *in.Text)
		case c.Decode:
			err = errors.New(`with --decode, want {"ids"}`)
		default:
			err = errors.New(`want {"text"}`)
		}
		if err != nil {
			return r.errorf("%w", err)
		}
	}
	return nil
}

// open opens the tokenizer alone: the weights need not be there.
func (c *tokenizeCmd) open() (*tokenizer.Tokenizer, error) {
	info, err := os.Stat(c.Model)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return tokenizer.Open(c.Model)
	}
	g, err := weights.OpenGGUF(c.Model)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	return ggufTokenizer(g.Vocabulary(), c.Model)
}

// lines takes standard input line by line; with --decode each line is ids, in brackets or not.
func (c *tokenizeCmd) lines(tok *tokenizer.Tokenizer, out *bufio.Writer) error {
	in := bufio.NewReader(os.Stdin)
	for n := 1; ; n++ {
		line, err := in.ReadString('\n')
		if err == io.EOF && line == "" {
			return nil
		}
		if err != nil && err != io.EOF {
			return err
		}
		line = strings.TrimSuffix(line, "\n")
		if !c.Decode {
			if err := c.encode(tok, out, line); err != nil {
				return err
			}
			continue
		}
		ids, err := parseIDs(line)
		if err == nil {
			err = c.decode(tok, out, ids)
		}
		if err != nil {
			return fmt.Errorf("standard input:%d: %w", n, err)
		}
	}
}

func parseIDs(line string) (ids []int32, err error) {
	line = strings.TrimSpace(line)
	if strings.HasPrefix(line, "{") {
		var in struct {
			IDs []int32 `json:"ids"`
		}
		return in.IDs, json.Unmarshal([]byte(line), &in)
	}
	line = "[" + strings.Join(strings.FieldsFunc(strings.Trim(line, "[]"), func(r rune) bool { return r == ' ' || r == ',' || r == '\t' }), ",") + "]"
	return ids, json.Unmarshal([]byte(line), &ids)
}

func (c *tokenizeCmd) encode(tok *tokenizer.Tokenizer, out *bufio.Writer, text string) error {
	ids := tok.Encode(text, c.Special)
	if ids == nil {
		ids = []int32{}
	}
	if c.JSON {
		return encodeLine(out, map[string]any{"ids": ids})
	}
	return encodeLine(out, ids)
}

func (c *tokenizeCmd) decode(tok *tokenizer.Tokenizer, out *bufio.Writer, ids []int32) error {
	for i, id := range ids {
		if _, ok := tok.Token(id); !ok {
			return fmt.Errorf("id %d at %d is not in the vocabulary", id, i)
		}
	}
	text := tok.Decode(ids, !c.Special)
	if c.JSON {
		return encodeLine(out, map[string]any{"text": text})
	}
	_, err := fmt.Fprintln(out, text)
	return err
}

// encodeLine writes v as one line of JSON, without HTML's escapes.
func encodeLine(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
