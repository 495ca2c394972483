package openai

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"slices"
	"time"
)

// A streaming is a format that writes server-sent events as parts come.
type streaming struct {
	*format
	sender
	done    []*Done
	begun   []bool
	offsets []int
	in, out int
}

// stream writes the answers as server-sent events. An error before the first of them is an ordinary response.
func (f *format) stream(w http.ResponseWriter, r *http.Request, parts iter.Seq2[Part, error]) {
	n := f.Draws()
	c := http.NewResponseController(w)
	s := &streaming{format: f, sender: sender{w: w, control: c}, done: make([]*Done, n), begun: make([]bool, n), offsets: make([]int, n)}
	for p, err := range parts {
		if err != nil {
			s.fail(err, f.extension(p.Done))
			return
		}
		f.note(&p)
		s.part(p)
		if s.err != nil {
			return // the client is gone
		}
	}
	switch {
	case r.Context().Err() != nil:
		s.fail(context.Cause(r.Context()), nil)
	case slices.Contains(s.done, nil):
		s.fail(errNoEnd, nil)
	default:
		if f.Usage {
			resp := f.response("chat.completion.chunk")
			resp.Usage = f.total(s.done)
			s.send(resp)
		}
		s.write("[DONE]")
	}
}

// part writes the chunks of one.
func (s *streaming) part(p Part) {
	s.count(p)
	if p.Event != nil {
		resp := s.chunk(p, "")
		resp.R2 = &Extension{Event: p.Event}
		s.send(resp)
		p.Event = nil
	}
	role := ""
	if !s.begun[p.Index] && (p.Text != "" || len(p.Tokens) > 0 || len(p.Calls) > 0 || p.Done != nil) {
		s.begun[p.Index] = true
		if s.Chat != nil {
			role = s.role()
		}
	}
	if p.Text != "" || len(p.Tokens) > 0 || len(p.Calls) > 0 || role != "" || p.Prompt != nil {
		s.send(s.chunk(p, role))
	}
	if p.Done == nil {
		return
	}
	s.done[p.Index] = p.Done
	resp := s.chunk(Part{Index: p.Index}, "")
	resp.Choices[0].Finish, resp.Choices[0].Stop = &p.Done.Finish, p.Done.Stop
	resp.R2 = s.extension(p.Done)
	s.send(resp)
}

// chunk is one with a part of an answer in it.
func (s *streaming) chunk(p Part, role string) *Response {
	f := s.format
	resp := f.response("chat.completion.chunk")
	ch := Choice{Index: p.Index}
	if len(p.Tokens) > 0 {
		ch.LogProbs, ch.IDs = f.logProbs(p.Tokens, &s.offsets[p.Index]), f.ids(p.Tokens)
	}
	if p.Prompt != nil {
		if ids := f.promptIDs(p.Prompt); f.Chat != nil {
			resp.PromptIDs = ids
		} else {
			ch.PromptIDs = ids
		}
	}
	if f.Chat != nil {
		ch.Delta = &Turn{Role: role, Calls: p.Calls}
		if p.Text != "" || role != "" {
			ch.Delta.Content = &p.Text
		}
	} else {
		ch.Text = &p.Text
	}
	if f.ContinuousUsage {
		resp.Usage = &Usage{Prompt: s.in, Completion: s.out, Total: s.in + s.out}
	}
	resp.Choices = append(resp.Choices, ch)
	return resp
}

// count adds what is known so far to a usage that is told with every chunk.
func (s *streaming) count(p Part) {
	if p.In > 0 && p.Index%s.BestOf == 0 {
		s.in += p.In
	}
	s.out += p.Out
}

// A sender writes server-sent events. The first error stays, and ends it.
type sender struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
	err     error
}

// slowest is how long a client may take to read one event, once the connection's buffers are full.
const slowest = 30 * time.Second

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
	s.control.SetWriteDeadline(time.Now().Add(slowest)) // where the writer has none, there is nothing to wait for
	if _, s.err = s.w.Write([]byte("data: " + data + "\n\n")); s.err == nil {
		s.err = s.control.Flush()
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
	} else {
		_, e := shape(err)
		failedWith(s.w, e.Code)
		if data, merr := json.Marshal(failed{e, x}); merr == nil {
			s.write(string(data))
		}
	}
	s.err = err
}
