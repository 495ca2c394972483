// Package reward asks a program or a server of the user's what completions are worth.
//
// The program is started once a batch, by the shell. It reads JSON lines from standard input until
// its end, one a completion: the fields of the data's row (answer and whatever else it has), "prompt"
// and "completion". It writes as many lines to standard output, in the same order: {"reward": 0.5},
// or {"error": "why"} for a completion whose reward it could not compute; other fields are ignored.
// Then it exits with status 0. Whatever else happens is an error of the whole batch, never a reward
// of 0. A judge that is slow to start should be a server: see [URL].
package reward

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os/exec"
	"strings"
	"time"
)

// A Row is one completion to be judged.
type Row struct {
	Prompt     string                     // sent as "prompt" where Fields has none
	Completion string                     // sent as "completion", over one that Fields has
	Fields     map[string]json.RawMessage // the row of the data that the prompt came from
}

// A Reward is what a completion is worth, or why that is not known.
type Reward struct {
	Value   float32
	Failure string // not empty: there is no value
}

// An Exchange is what was sent for a batch and what was answered, whole.
type Exchange struct{ Request, Response []byte }

// Line is the row as it is sent, without the line's end.
func (r Row) Line() ([]byte, error) {
	b, err := encode([]Row{r})
	return bytes.TrimSuffix(b, []byte("\n")), err
}

// A Command is a program that computes rewards.
type Command struct {
	Line    string        // for the shell
	Timeout time.Duration // for a batch; 0: none
}

const (
	mostOutput = 1 << 10 // bytes of standard output for a row, on average …
	headroom   = 1 << 20 // … and this much besides
	keptStderr = 2 << 10
	grace      = 2 * time.Second // for pipes held open by what the program left behind
)

// Score runs the program on rows and returns a reward for each, with what was sent and answered. It is
// safe for concurrent use if running the program twice at a time is.
func (c *Command) Score(ctx context.Context, rows []Row) ([]Reward, *Exchange, error) {
	if len(rows) == 0 {
		return nil, nil, nil
	}
	input, err := encode(rows)
	if err != nil {
		return nil, nil, err
	}
	out, err := c.run(ctx, input, headroom+mostOutput*len(rows))
	if err != nil {
		return nil, nil, err
	}
	rewards, err := decode(out, len(rows))
	if err != nil {
		return nil, nil, err
	}
	return rewards, &Exchange{Request: input, Response: out}, nil
}

func encode(rows []Row) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	for i, r := range rows {
		line := map[string]any{"prompt": r.Prompt}
		for k, v := range r.Fields {
			line[k] = v
		}
		line["completion"] = r.Completion
		if err := e.Encode(line); err != nil {
			return nil, fmt.Errorf("reward: row %d: %w", i, err)
		}
	}
	return b.Bytes(), nil
}

// run gives the program input and returns what it wrote, at most limit bytes.
func (c *Command) run(ctx context.Context, input []byte, limit int) ([]byte, error) {
	timed := ctx
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		timed, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	cmd := exec.CommandContext(timed, "sh", "-c", c.Line)
	ownGroup(cmd)
	cmd.WaitDelay = grace
	out, complaints := capped{left: limit}, tail{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &out, &complaints
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("reward: command %q: %w", c.Line, ctx.Err())
	case timed.Err() != nil:
		return nil, fmt.Errorf("reward: command %q: no answer within %v%s", c.Line, c.Timeout, &complaints)
	case out.over:
		return nil, fmt.Errorf("reward: command %q: more than %d bytes of output: one short line a completion is expected", c.Line, limit)
	case err != nil:
		return nil, fmt.Errorf("reward: command %q: %w%s", c.Line, err, &complaints)
	}
	return out.buf.Bytes(), nil
}

// decode reads n lines.
func decode(out []byte, n int) ([]Reward, error) {
	lines := strings.Split(strings.TrimRight(string(out), "\r\n"), "\n")
	if len(out) == 0 {
		lines = nil
	}
	if len(lines) != n {
		return nil, fmt.Errorf("reward: %d lines of output for %d completions: one line each is expected", len(lines), n)
	}
	rewards := make([]Reward, n)
	for i, line := range lines {
		var err error
		if rewards[i], err = decodeLine(line); err != nil {
			return nil, fmt.Errorf("reward: output line %d: %.80q: %w", i+1, line, err)
		}
	}
	return rewards, nil
}

var errLine = errors.New(`expected {"reward": NUMBER} or {"error": "why"}`)

func decodeLine(line string) (Reward, error) {
	var v struct {
		Reward *float64 `json:"reward"`
		Error  *string  `json:"error"`
	}
	err := json.Unmarshal([]byte(line), &v)
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		return Reward{}, fmt.Errorf("%w, not %s", errLine, wrong.Value)
	}
	if err != nil {
		return Reward{}, fmt.Errorf("%w: %w", errLine, err)
	}
	switch {
	case v.Error != nil && v.Reward == nil && *v.Error != "":
		return Reward{Failure: *v.Error}, nil
	case v.Reward == nil || v.Error != nil:
		return Reward{}, errLine
	case math.IsInf(float64(float32(*v.Reward)), 0):
		return Reward{}, errors.New("the reward is too large for a 32-bit float")
	}
	return Reward{Value: float32(*v.Reward)}, nil
}

// capped is a buffer that refuses what is over its limit.
type capped struct {
	buf  bytes.Buffer
	left int
	over bool
}

func (c *capped) Write(p []byte) (int, error) {
	if len(p) > c.left {
		c.over = true
		return 0, io.ErrShortWrite
	}
	c.left -= len(p)
	return c.buf.Write(p)
}

// tail keeps the end of what is written.
type tail struct{ kept []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if n := len(t.kept) - keptStderr; n > 0 {
		t.kept = append(t.kept[:0], t.kept[n:]...)
	}
	return len(p), nil
}

// String is the last line, ready to follow an error.
func (t *tail) String() string {
	s := strings.TrimSpace(string(t.kept))
	if s == "" {
		return ""
	}
	return ": " + s[strings.LastIndexByte(s, '\n')+1:]
}
