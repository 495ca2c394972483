package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/r2-reasoner/r2/router"
)

// Options say what a client talks to.
type Options struct {
	URL     string        // base of the API, such as https://example.org/v1
	Model   string        // its name there
	KeyEnv  string        // the environment variable that holds the key; "": no key
	Timeout time.Duration // of one call, the reading of a whole stream included; 0: five minutes
	MaxBody int64         // most bytes of an answer; 0: 8 MiB
	Fresh   bool          // a connection for each call: some servers close the last one's just when the next is on its way
}

// A Client is a model behind an HTTP endpoint: a router.Completer and a router.Streamer over chat completions. It
// makes one attempt a call; its errors are router.CallErrors, which say whether another may help.
// It is safe for concurrent use.
type Client struct {
	url, model, key string
	timeout         time.Duration
	maxBody         int64
	fresh           bool
	http            *http.Client
}

// NewClient returns a client. The key is read now, and appears in no error.
func NewClient(o Options) (*Client, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("openai: url %q: want http(s)://host/path without user, query or fragment", redactURL(u))
	}
	if o.Model == "" {
		return nil, errors.New("openai: no model named")
	}
	c := &Client{
		url: strings.TrimRight(u.String(), "/") + "/chat/completions", model: o.Model,
		timeout: o.Timeout, maxBody: o.MaxBody, fresh: o.Fresh,
	}
	if o.KeyEnv != "" {
		if c.key = strings.TrimSpace(os.Getenv(o.KeyEnv)); c.key == "" {
			return nil, fmt.Errorf("openai: the environment variable %s, which should hold the key of %s, is not set", o.KeyEnv, u.Host)
		}
	}
	if c.timeout == 0 {
		c.timeout = 5 * time.Minute
	}
	if c.maxBody == 0 {
		c.maxBody = 8 << 20
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	t.MaxIdleConnsPerHost = 64
	c.http = &http.Client{
		Transport: t,
		// a redirect would send the question, and perhaps the key, somewhere nobody named
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

func redactURL(u *url.URL) string {
	if u == nil {
		return "…"
	}
	shown := *u
	if shown.RawQuery != "" {
		shown.RawQuery = "…"
	}
	return shown.Redacted()
}

// Close closes the connections that are not in use.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Complete makes one call.
func (c *Client) Complete(ctx context.Context, r router.Request) (router.Completion, error) {
	own, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	resp, err := c.post(own, r, false)
	if err != nil {
		return router.Completion{}, c.explain(ctx, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, c.maxBody+1))
	switch {
	case err != nil:
		return router.Completion{}, c.explain(ctx, connection(err, true))
	case int64(len(body)) > c.maxBody:
		return router.Completion{}, c.explain(ctx, garbage("the answer is longer than %d bytes", c.maxBody))
	}
	got, err := completion(body, r)
	return got, c.explain(ctx, err)
}

// post sends the request and returns a response whose status is 200.
func (c *Client) post(ctx context.Context, r router.Request, stream bool) (*http.Response, error) {
	if len(r.Messages) == 0 || r.Prompt != "" {
		return nil, &router.ParamError{Param: "prompt", Reason: "a model over HTTP takes messages, not a bare prompt"}
	}
	q := ChatRequest{
		Model: c.model, Messages: r.Messages, MaxTokens: r.Limit, Temperature: r.Temperature, TopP: r.TopP, TopK: r.TopK,
		MinP: r.MinP, Stop: r.Stop, LogProbs: r.LogProbs, IgnoreEOS: r.IgnoreEOS, Stream: stream,
	}
	if r.Seed != nil {
		q.Seed = new(int64(*r.Seed))
	}
	if len(r.Choices) > 0 || r.Pattern != "" || r.Schema != "" || r.JSONObject {
		q.Structured = &StructuredOutputs{Choice: r.Choices, Regex: r.Pattern, JSON: json.RawMessage(r.Schema), JSONObject: r.JSONObject}
	}
	if stream {
		q.StreamOptions = &StreamOptions{IncludeUsage: true}
	}
	body, err := json.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", router.ErrRefused, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", router.ErrRefused, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Close = c.fresh
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var op *net.OpError
		return nil, connection(err, !errors.As(err, &op) || op.Op != "dial")
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, status(resp)
	}
	return resp, nil
}

// connection is the failure of a connection.
func connection(err error, worked bool) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // the caller names the URL
	}
	return &router.CallError{Err: fmt.Errorf("%w: %w", router.ErrBusy, err), Worked: worked}
}

// garbage is an answer that cannot be used.
func garbage(format string, a ...any) error {
	return &router.CallError{Err: fmt.Errorf("%w: "+format, append([]any{router.ErrAnswer}, a...)...), Worked: true}
}

// status makes an error of a response that is not 200.
func status(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var e failed
	text := strings.TrimSpace(string(body))
	if json.Unmarshal(body, &e) == nil && e.Error.Message != "" {
		text = e.Error.Message
		if e.Error.Param != nil && !strings.Contains(text, *e.Error.Param) {
			text = *e.Error.Param + ": " + text
		}
	}
	if len(text) > 300 {
		text = strings.ToValidUTF8(text[:300], "") + "…"
	}
	sentinel, code := router.ErrRefused, resp.StatusCode
	if code == http.StatusTooManyRequests || code >= 500 {
		sentinel = router.ErrBusy
	}
	if to := resp.Header.Get("Location"); code >= 300 && code < 400 && to != "" {
		text = "it redirects to " + to
	}
	return &router.CallError{
		Err:        fmt.Errorf("%w: status %d: %s", sentinel, code, text),
		RetryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now()),
		Worked:     code == http.StatusGatewayTimeout, // others did not get to work, or do not charge
		Overloaded: code == http.StatusTooManyRequests,
	}
}

// retryAfter reads seconds or a date; 0 when it is neither.
func retryAfter(h string, now time.Time) time.Duration {
	if n, err := strconv.Atoi(strings.TrimSpace(h)); err == nil {
		return time.Duration(max(0, min(n, 1<<30))) * time.Second
	}
	if t, err := http.ParseTime(h); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}

// explain names the endpoint in an error, keeps the key out of it, and tells the caller's own end from a timeout.
func (c *Client) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	var pe *router.ParamError
	if errors.As(err, &pe) {
		return err
	}
	ce := &router.CallError{Err: err}
	if was := (*router.CallError)(nil); errors.As(err, &was) {
		*ce = *was
	}
	switch {
	case ctx.Err() != nil:
		ce.Err = ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		ce.Err = fmt.Errorf("%w: no answer in %v", router.ErrBusy, c.timeout)
	}
	ce.Err = &endpointError{c.url, c.key, ce.Err}
	return ce
}

// An endpointError is an error with the endpoint's name and without its key, which servers like to repeat.
type endpointError struct {
	url, key string
	err      error
}

func (e *endpointError) Error() string {
	s := e.url + ": " + e.err.Error()
	if e.key != "" {
		s = strings.ReplaceAll(s, e.key, "[key]")
	}
	return s
}

func (e *endpointError) Unwrap() error { return e.err }
