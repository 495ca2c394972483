package openai

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"slices"
	"sync"

	"github.com/r2-reasoner/r2/router"
)

// A part is the next of one of the answers.
type part struct {
	index int
	delta router.Delta
	err   error
}

// partsOf makes all requests at once and yields what comes, as it comes. When the consumer leaves, the requests are
// cancelled, and have ended when the sequence has.
func partsOf(ctx context.Context, m router.Completer, rs []router.Request) iter.Seq[part] {
	return func(yield func(part) bool) {
		ctx, cancel := context.WithCancel(ctx)
		ch := make(chan part)
		var wg sync.WaitGroup
		for i, r := range rs {
			wg.Go(func() {
				for d, err := range deltas(ctx, m, r) {
					select {
					case ch <- part{i, d, err}:
					case <-ctx.Done():
						return
					}
					if err != nil {
						return
					}
				}
			})
		}
		go func() { wg.Wait(); close(ch) }()
		defer func() {
			cancel()
			for range ch {
			}
		}()
		for p := range ch {
			if !yield(p) {
				return
			}
		}
	}
}

// deltas streams from a model that can, and has it answer in one piece when it cannot.
func deltas(ctx context.Context, m router.Completer, r router.Request) iter.Seq2[router.Delta, error] {
	if s, ok := m.(router.Streamer); ok {
		return s.Stream(ctx, r)
	}
	return func(yield func(router.Delta, error) bool) {
		c, err := m.Complete(ctx, r)
		yield(router.Delta{Text: c.Text, LogProbs: c.LogProbs, Pieces: c.Pieces, Done: &c}, err)
	}
}

// stream writes the answers as server-sent events. An error before the first of them is an ordinary response.
func (f *format) stream(w http.ResponseWriter, r *http.Request, m router.Completer) {
	rs := f.requests()
	s := &sender{w: w, flush: http.NewResponseController(w).Flush}
	got := make([]router.Completion, len(rs))
	offsets := make([]int, len(rs))
	begun, done := make([]bool, len(rs)), make([]bool, len(rs))
	for p := range partsOf(r.Context(), m, rs) {
		if p.err != nil {
			var x *Extension
			if p.delta.Done != nil {
				x = f.extension(*p.delta.Done)
			}
			s.fail(p.err, x)
			return
		}
		if p.delta.Event != nil {
			resp := f.chunk(p.index, router.Delta{}, "", 0)
			resp.R2 = &Extension{Event: p.delta.Event}
			s.send(resp)
		}
		role := ""
		if !begun[p.index] && p.delta.Event == nil {
			role, begun[p.index] = "assistant", true
		}
		if d := p.delta; d.Text != "" || len(d.LogProbs) > 0 || role != "" {
			s.send(f.chunk(p.index, d, role, offsets[p.index]))
			for _, piece := range d.Pieces {
				offsets[p.index] += len([]rune(piece))
			}
		}
		if c := p.delta.Done; c != nil {
			got[p.index], done[p.index] = *c, true
			resp := f.chunk(p.index, router.Delta{}, "", 0)
			resp.Choices[0].Finish = new(string(c.Finish))
			resp.R2 = f.extension(*c)
			s.send(resp)
		}
		if s.err != nil {
			return // the client is gone
		}
	}
	if r.Context().Err() != nil {
		return
	}
	if slices.Contains(done, false) {
		s.fail(errors.New("the model stopped without an end to its answer"), nil)
		return
	}
	if f.usage {
		resp := f.response("chat.completion.chunk")
		resp.Usage = f.total(got)
		s.send(resp)
	}
	s.write("[DONE]")
}

// chunk is one with a part of an answer in it.
func (f *format) chunk(index int, d router.Delta, role string, offset int) *Response {
	resp := f.response("chat.completion.chunk")
	ch := Choice{Index: index}
	if len(d.LogProbs) > 0 {
		ch.LogProbs = f.logProbs(d.LogProbs, d.Pieces, offset)
	}
	if f.chat {
		ch.Delta = &Turn{Role: role}
		if d.Text != "" || role != "" {
			ch.Delta.Content = &d.Text
		}
	} else {
		ch.Text = &d.Text
	}
	resp.Choices = append(resp.Choices, ch)
	return resp
}

// A sender writes server-sent events. The first error stays, and ends it.
type sender struct {
	w     http.ResponseWriter
	flush func() error
	begun bool
	err   error
}

func (s *sender) send(v any) {
	data, err := json.Marshal(v)
	if err != nil {
		s.fail(err, nil)
		return
	}
	s.write(string(data))
}

func (s *sender) write(data string) {
	if s.err != nil {
		return
	}
	if !s.begun {
		s.begun = true
		s.w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		s.w.Header().Set("Cache-Control", "no-store")
		s.w.WriteHeader(http.StatusOK)
	}
	if _, s.err = s.w.Write([]byte("data: " + data + "\n\n")); s.err == nil {
		s.err = s.flush()
	}
}

// fail tells the error, and ends the stream without its mark of a good end.
func (s *sender) fail(err error, x *Extension) {
	if s.err != nil {
		return
	}
	if !s.begun {
		s.begun = true
		fail(s.w, err, x)
	} else if data, merr := json.Marshal(failed{second(shape(err)), x}); merr == nil {
		s.write(string(data))
	}
	s.err = err
}

func second(_ int, e Error) Error { return e }
