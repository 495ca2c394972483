package openai

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/r2-reasoner/r2/router"
)

// An answer is what has been read of one.
type answer struct {
	router.Completion
	text     strings.Builder
	finished string
}

// take adds a message, or a part of one.
func (a *answer) take(t *Turn, lp *LogProbs) router.Delta {
	var d router.Delta
	if t != nil && t.Content != nil {
		d.Text = *t.Content
	}
	if lp != nil {
		for _, p := range lp.Content {
			d.LogProbs = append(d.LogProbs, p.LogProb)
			d.Pieces = append(d.Pieces, p.piece())
		}
	}
	a.text.WriteString(d.Text)
	a.LogProbs = append(a.LogProbs, d.LogProbs...)
	a.Pieces = append(a.Pieces, d.Pieces...)
	return d
}

func (a *answer) use(u *Usage) {
	if u != nil {
		a.In, a.Out = max(0, u.Prompt), max(0, u.Completion)
	}
}

// end checks that the whole answer is one to the request.
func (a *answer) end(r router.Request) error {
	a.Text = a.text.String()
	switch a.finished {
	case "length":
		a.Finish = router.FinishLength
	case "content_filter", "tool_calls", "function_call":
		return garbage("it ended by %s", a.finished)
	default:
		a.Finish = router.FinishStop
	}
	if len(r.Choices) > 0 {
		if a.Text = strings.TrimSpace(a.Text); !slices.Contains(r.Choices, a.Text) {
			return garbage("%.100q is not among the %d choices", a.Text, len(r.Choices))
		}
	}
	if r.LogProbs && len(a.LogProbs) == 0 && a.Text != "" {
		return garbage("it has no log-probabilities")
	}
	if !r.LogProbs {
		a.LogProbs, a.Pieces = nil, nil
	}
	return nil
}

// piece is the token's bytes.
func (p TokenLogProb) piece() string {
	if len(p.Bytes) == 0 {
		return p.Token
	}
	b := make([]byte, len(p.Bytes))
	for i, x := range p.Bytes {
		b[i] = byte(x)
	}
	return string(b)
}

// completion reads the body of a whole answer.
func completion(body []byte, r router.Request) (router.Completion, error) {
	var resp Response
	if err := json.Unmarshal(body, &resp); err != nil {
		return router.Completion{}, garbage("not a chat completion: %w: %.200q", err, body)
	}
	if resp.Error != nil {
		return router.Completion{}, garbage("status 200 with an error: %s", resp.Error.Message)
	}
	var a answer
	a.use(resp.Usage)
	if len(resp.Choices) == 0 || resp.Choices[0].Message == nil {
		return a.Completion, garbage("not a chat completion, for it has no message: %.200q", body)
	}
	ch := resp.Choices[0]
	a.take(ch.Message, ch.LogProbs)
	if ch.Finish != nil {
		a.finished = *ch.Finish
	}
	err := a.end(r)
	return a.Completion, err
}

// Stream makes one call, and yields its text as it comes.
func (c *Client) Stream(ctx context.Context, r router.Request) iter.Seq2[router.Delta, error] {
	return func(yield func(router.Delta, error) bool) {
		own, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		resp, err := c.post(own, r, true)
		if err != nil {
			yield(router.Delta{}, c.explain(ctx, err))
			return
		}
		defer resp.Body.Close()
		var a answer
		more, err := a.chunks(&bounded{resp.Body, c.maxBody}, func(d router.Delta) bool { return yield(d, nil) })
		if !more {
			return
		}
		if err == nil {
			err = a.end(r)
		}
		yield(router.Delta{Done: &a.Completion}, c.explain(ctx, err))
	}
}

// chunks reads a stream of server-sent events up to [DONE], and yields what they add. More is false when yield is.
func (a *answer) chunks(body io.Reader, yield func(router.Delta) bool) (more bool, err error) {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	lines.Split(wholeLine)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data:"))
		if !ok {
			continue // a comment, an event's name, or the end of one
		}
		if data = bytes.TrimSpace(data); string(data) == "[DONE]" {
			return true, nil
		}
		var resp Response
		if err := json.Unmarshal(data, &resp); err != nil {
			return true, garbage("not a chunk of a chat completion: %w: %.200q", err, data)
		}
		if resp.Error != nil {
			return true, garbage("it broke off: %s", resp.Error.Message)
		}
		a.use(resp.Usage)
		var d router.Delta
		if resp.R2 != nil {
			d.Event = resp.R2.Event
		}
		if len(resp.Choices) > 0 && resp.Choices[0].Index == 0 {
			ch := resp.Choices[0]
			e := d.Event
			d = a.take(ch.Delta, ch.LogProbs)
			d.Event = e
			if ch.Finish != nil {
				a.finished = *ch.Finish
			}
		}
		if (d.Text != "" || len(d.LogProbs) > 0 || d.Event != nil) && !yield(d) {
			return false, nil
		}
	}
	switch err := lines.Err(); err {
	case nil:
		return true, connection(io.ErrUnexpectedEOF, true)
	case bufio.ErrTooLong:
		return true, garbage("a line of the stream is longer than 1 MiB")
	case errTooLong:
		return true, garbage("%w", err)
	default:
		return true, connection(err, true)
	}
}

// wholeLine splits at line ends. What a broken connection leaves of a line is not one.
func wholeLine(data []byte, atEOF bool) (int, []byte, error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF {
		return len(data), nil, nil
	}
	return 0, nil, nil
}

var errTooLong = errors.New("the answer is longer than allowed")

// A bounded reader fails after left bytes.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
