package reward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// A URL is a server that computes rewards. A batch is one POST whose body is the lines that a Command
// reads, and whose answer, with status 200, is the lines that a Command writes.
//
// A connection that fails and the statuses 408, 429 and 5xx are tried again, after 0.25 s and then twice
// as long each time up to 8 s or what Retry-After asks for, until Tries are used or Timeout is over.
// Whatever else happens is an error of the whole batch, never a reward of 0.
type URL struct {
	Address string
	Timeout time.Duration // for a batch with all its tries
	Tries   int           // 0: 6
	Client  *http.Client  // nil: http.DefaultClient
}

const (
	firstWait = 250 * time.Millisecond
	mostWait  = 8 * time.Second
)

// Score asks the server about rows and returns a reward for each, with what was sent and answered.
func (u *URL) Score(ctx context.Context, rows []Row) ([]Reward, *Exchange, error) {
	if len(rows) == 0 {
		return nil, nil, nil
	}
	input, err := encode(rows)
	if err != nil {
		return nil, nil, err
	}
	out, err := u.ask(ctx, input, headroom+mostOutput*len(rows))
	if err != nil {
		return nil, nil, fmt.Errorf("reward: %s: %w", u.Address, err)
	}
	rewards, err := decode(out, len(rows))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", u.Address, err)
	}
	return rewards, &Exchange{Request: input, Response: out}, nil
}

func (u *URL) ask(ctx context.Context, input []byte, limit int) ([]byte, error) {
	timed, cancel := ctx, context.CancelFunc(func() {})
	if u.Timeout > 0 {
		timed, cancel = context.WithTimeout(ctx, u.Timeout)
	}
	defer cancel()
	tries := u.Tries
	if tries == 0 {
		tries = 6
	}
	wait := firstWait
	for try := 1; ; try++ {
		out, again, err := u.once(timed, input, limit)
		switch {
		case err == nil:
			return out, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case timed.Err() != nil:
			return nil, fmt.Errorf("no answer within %v (try %d: %w)", u.Timeout, try, err)
		case again == nil:
			return nil, err
		case try == tries:
			return nil, fmt.Errorf("given up after %d tries: %w", tries, err)
		}
		select {
		case <-time.After(min(max(wait, *again), mostWait)):
		case <-timed.Done():
		}
		wait *= 2
	}
}

// once makes one request. again is not nil when it is worth repeating: the least time to wait.
func (u *URL) once(ctx context.Context, input []byte, limit int) (out []byte, again *time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.Address, bytes.NewReader(input))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Content-Type", "application/jsonl")
	client := u.Client
	if client == nil {
		client = http.DefaultClient
	}
	none := new(time.Duration)
	resp, err := client.Do(req)
	if err != nil {
		return nil, none, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, keptStderr))
		err := fmt.Errorf("status %s: %.200q", resp.Status, bytes.TrimSpace(text))
		switch c := resp.StatusCode; {
		case c == http.StatusRequestTimeout, c == http.StatusTooManyRequests, c >= 500:
			return nil, retryAfter(resp.Header), err
		}
		return nil, nil, err
	}
	out, err = io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	switch {
	case err != nil:
		return nil, none, err // the connection broke off
	case len(out) > limit:
		return nil, nil, errors.New("the answer is longer than " + strconv.Itoa(limit) + " bytes: one short line a completion is expected")
	}
	return out, nil, nil
}

func retryAfter(h http.Header) *time.Duration {
	s, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || s < 0 {
		return new(time.Duration)
	}
	return new(time.Duration(min(s, int(mostWait/time.Second))) * time.Second)
}
