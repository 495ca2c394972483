package openai

import (
	"errors"
	"strings"
	"testing"

	sdk "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/r2-reasoner/r2/router"
)

// dial is OpenAI's own client of a handler over the models.
func dial(t *testing.T, models map[string]router.Completer) sdk.Client {
	t.Helper()
	s := serve(t, models)
	return sdk.NewClient(option.WithBaseURL(s.URL+"/v1"), option.WithAPIKey("any"), option.WithMaxRetries(0),
		option.WithHTTPClient(s.Client()))
}

func chatParams(text string) sdk.ChatCompletionNewParams {
	return sdk.ChatCompletionNewParams{
		Model:    "m",
		Messages: []sdk.ChatCompletionMessageParamUnion{sdk.SystemMessage("Be brief."), sdk.UserMessage(text)},
	}
}

func TestSDKChat(t *testing.T) {
	e := &echo{}
	c := dial(t, map[string]router.Completer{"m": e})
	p := chatParams("one two")
	p.N, p.Seed, p.Logprobs, p.MaxCompletionTokens = sdk.Int(2), sdk.Int(40), sdk.Bool(true), sdk.Int(9)
	p.Stop = sdk.ChatCompletionNewParamsStopUnion{OfString: sdk.String("end")}
	got, err := c.Chat.Completions.New(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Choices) != 2 || got.Object != "chat.completion" || got.Model != "m" || !strings.HasPrefix(got.ID, "chatcmpl-") {
		t.Fatalf("%s", got.RawJSON())
	}
	for i, ch := range got.Choices {
		if ch.Index != int64(i) || ch.Message.Content != "one two" || ch.Message.Role != "assistant" || ch.FinishReason != "stop" {
			t.Errorf("choice %d: %s", i, ch.RawJSON())
		}
		if lp := ch.Logprobs.Content; len(lp) != 2 || lp[1].Token != "two" || lp[1].Logprob != -0.25 || string(rune(lp[1].Bytes[0])) != "t" {
			t.Errorf("log-probabilities %d: %s", i, ch.Logprobs.RawJSON())
		}
	}
	// two answers of two tokens to one prompt of two
	if u := got.Usage; u.PromptTokens != 2 || u.CompletionTokens != 4 || u.TotalTokens != 6 {
		t.Errorf("usage %s", u.RawJSON())
	}
	seeds := map[uint64]bool{*e.seen[0].Seed: true, *e.seen[1].Seed: true}
	if !seeds[40] || !seeds[41] || e.seen[0].Limit != 9 || e.seen[0].Stop[0] != "end" {
		t.Errorf("the model saw %+v, seeds %v", e.seen[0], seeds)
	}
}

func TestSDKStream(t *testing.T) {
	c := dial(t, map[string]router.Completer{"m": &echo{}})
	p := chatParams("one two three")
	p.N = sdk.Int(3)
	p.StreamOptions.IncludeUsage = sdk.Bool(true)
	s := c.Chat.Completions.NewStreaming(t.Context(), p)
	var acc sdk.ChatCompletionAccumulator
	texts := 0
	for s.Next() {
		chunk := s.Current()
		if !acc.AddChunk(chunk) {
			t.Errorf("the client's accumulator does not take %s", chunk.RawJSON())
		}
		for _, ch := range chunk.Choices {
			if ch.Delta.Content != "" {
				texts++
			}
		}
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	if len(acc.Choices) != 3 || texts != 9 {
		t.Fatalf("%d choices in %d texts, want 3 in 9", len(acc.Choices), texts)
	}
	for i, ch := range acc.Choices {
		if ch.Message.Content != "one two three" || ch.FinishReason != "stop" || ch.Message.Role != "assistant" {
			t.Errorf("choice %d: %+v", i, ch.Message.Content)
		}
	}
	if acc.Usage.CompletionTokens != 9 || acc.Usage.PromptTokens != 3 {
		t.Errorf("usage %+v", acc.Usage)
	}
}

func TestSDKErrors(t *testing.T) {
	c := dial(t, map[string]router.Completer{"m": &echo{err: router.ErrBusy}})
	for _, x := range []struct {
		name         string
		change       func(*sdk.ChatCompletionNewParams)
		status       int
		param, kind  string
		messageHolds string
	}{
		{"model", func(p *sdk.ChatCompletionNewParams) { p.Model = "other" }, 404, "model", "invalid_request_error", `"other" is not here`},
		{"range", func(p *sdk.ChatCompletionNewParams) { p.Temperature = sdk.Float(-1) }, 400, "temperature", "invalid_request_error", "from 0 to 2, got -1"},
		{"unsupported", func(p *sdk.ChatCompletionNewParams) { p.PromptCacheKey = sdk.String("me") }, 400, "prompt_cache_key", "invalid_request_error", "use cache_salt"},
		{"busy", func(p *sdk.ChatCompletionNewParams) {
			p.Messages = []sdk.ChatCompletionMessageParamUnion{sdk.UserMessage("fail")}
		}, 503, "", "server_error", "busy"},
	} {
		p := chatParams("hi")
		x.change(&p)
		check := func(err error) {
			var e *sdk.Error
			if !errors.As(err, &e) {
				t.Errorf("%s: %v is not an API error", x.name, err)
				return
			}
			if e.StatusCode != x.status || e.Param != x.param || e.Type != x.kind || !strings.Contains(e.Message, x.messageHolds) {
				t.Errorf("%s: %d %q %q %q", x.name, e.StatusCode, e.Param, e.Type, e.Message)
			}
		}
		_, err := c.Chat.Completions.New(t.Context(), p)
		check(err)
		s := c.Chat.Completions.NewStreaming(t.Context(), p) // an error before the first chunk has its status
		for s.Next() {
			t.Errorf("%s: a chunk: %s", x.name, s.Current().RawJSON())
		}
		check(s.Err())
	}

	s := c.Chat.Completions.NewStreaming(t.Context(), chatParams("well, fail")) // and after it, an error event
	n := 0
	for s.Next() {
		n++
	}
	if err := s.Err(); err == nil || !strings.Contains(err.Error(), "busy") || n == 0 {
		t.Errorf("after %d chunks: %v", n, err)
	}
}

func TestSDKCompletion(t *testing.T) {
	c := dial(t, map[string]router.Completer{"m": &echo{}})
	p := sdk.CompletionNewParams{
		Model:    "m",
		Prompt:   sdk.CompletionNewParamsPromptUnion{OfArrayOfStrings: []string{"é b", "c"}},
		N:        sdk.Int(2),
		Logprobs: sdk.Int(0),
	}
	got, err := c.Completions.New(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Choices) != 4 || got.Choices[1].Text != "é b" || got.Choices[3].Text != "c" || got.Object != "text_completion" {
		t.Fatalf("%s", got.RawJSON())
	}
	if lp := got.Choices[0].Logprobs; len(lp.Tokens) != 2 || lp.TokenLogprobs[0] != -0.125 || lp.TextOffset[1] != 2 {
		t.Errorf("log-probabilities %s", lp.RawJSON())
	}
	if u := got.Usage; u.PromptTokens != 3 || u.CompletionTokens != 6 {
		t.Errorf("usage %s", u.RawJSON())
	}

	p.Prompt = sdk.CompletionNewParamsPromptUnion{OfString: sdk.String("a b c")}
	p.N = sdk.Int(1)
	s := c.Completions.NewStreaming(t.Context(), p)
	text, finish := "", ""
	for s.Next() {
		ch := s.Current().Choices[0]
		text += ch.Text
		finish += string(ch.FinishReason)
	}
	if err := s.Err(); err != nil || text != "a b c" || finish != "stop" {
		t.Errorf("%q %q %v", text, finish, err)
	}
}

func TestSDKModels(t *testing.T) {
	c := dial(t, map[string]router.Completer{"b": &echo{}, "a/x": &echo{}})
	page, err := c.Models.List(t.Context())
	if err != nil || len(page.Data) != 2 || page.Data[0].ID != "a/x" || page.Data[1].ID != "b" {
		t.Fatalf("%+v, %v", page, err)
	}
	m, err := c.Models.Get(t.Context(), "b")
	if err != nil || m.ID != "b" || m.Object != "model" {
		t.Errorf("%+v, %v", m, err)
	}
	var e *sdk.Error
	if _, err := c.Models.Get(t.Context(), "c"); !errors.As(err, &e) || e.StatusCode != 404 {
		t.Errorf("a model that is not there: %v", err)
	}
}
