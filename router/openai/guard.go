package openai

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// A Guard stands before a handler: it lets nobody in without a key, gives each request an id, and tells of it when it
// is over.
type Guard struct {
	Next http.Handler
	Keys Keys         // empty: nobody needs one
	Told func(Record) // of each request, when it is over; nil: nobody is told
}

// Keys are what clients show to be let in, as their hashes.
type Keys [][sha256.Size]byte

// ReadKeys reads keys from text, one a line or separated by white space or commas; what follows # on a line is a comment.
func ReadKeys(text string) (Keys, error) {
	var keys Keys
	for _, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		for _, key := range strings.FieldsFunc(line, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\r' }) {
			if len(key) < leastKey {
				return nil, fmt.Errorf("key %d has %d characters, want at least %d: a short one is guessed", len(keys)+1, len(key), leastKey)
			}
			keys = append(keys, sha256.Sum256([]byte(key)))
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("there are no keys")
	}
	return keys, nil
}

const leastKey = 8

// known compares a key with all, in a time that does not depend on which it is like.
func (k Keys) known(key string) bool {
	sum, found := sha256.Sum256([]byte(key)), 0
	for i := range k {
		found |= subtle.ConstantTimeCompare(sum[:], k[i][:])
	}
	return found == 1
}

// A Record is what can be told of a request: its texts only where Handler.Texts says so, and keys never.
type Record struct {
	ID, Method, Path string
	Status           int
	Time             time.Duration // until all was written
	First            time.Duration // until the first part of an answer was there; 0: there was none
	Model            string        // "" where no model was asked
	User             string        // as the client calls its own
	Stream           bool
	Answers, In, Out int    // how many, tokens read and drawn
	Error            string // OpenAI's code of the error it ended with

	Asked    json.RawMessage // the messages, or the prompt or prompts; nil: they are not to be told
	Answered []Answered      // all that were drawn, as far as they came
}

// An Answered is an answer in a Record.
type Answered struct {
	Text  string     `json:"text"`
	Calls []ToolCall `json:"tool_calls,omitempty"`
}

// keepTexts has the record keep what a call asks, and what will be answered.
func (r *Record) keepTexts(c *Call) {
	r.Answered = make([]Answered, c.Draws())
	var asked any
	if c.Chat != nil {
		asked = c.Chat.Messages
	} else {
		var list []any
		for _, p := range c.Prompts {
			if p.IDs != nil {
				list = append(list, p.IDs)
			} else {
				list = append(list, p.Text)
			}
		}
		if asked = list; len(list) == 1 {
			asked = list[0]
		}
	}
	r.Asked, _ = json.Marshal(asked) // strings, numbers and what came as JSON
}

type recordKey struct{}

// record is the one of a request, to be filled in.
func record(r *http.Request) *Record {
	if rec, ok := r.Context().Value(recordKey{}).(*Record); ok {
		return rec
	}
	return &Record{}
}

// requestID is what an id that a client gives must look like, to be safe in logs and headers.
var requestID = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)

const idHeader = "X-Request-Id"

// open are the paths that need no key: what a load balancer asks, and a page that asks for one.
var open = map[string]bool{"/health": true, "/ready": true, "/": true}

// ServeHTTP lets a request in, or not.
func (g *Guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &Record{ID: r.Header.Get(idHeader), Method: r.Method, Path: r.URL.Path}
	if !requestID.MatchString(rec.ID) {
		rec.ID = rand.Text()
	}
	w.Header().Set(idHeader, rec.ID)
	watched := &statusWriter{ResponseWriter: w}
	began := time.Now()
	if g.Told != nil {
		defer func() {
			rec.Status, rec.Time, rec.Error = watched.status, time.Since(began), watched.code
			g.Told(*rec)
		}()
	}
	if scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " "); len(g.Keys) > 0 && !open[r.URL.Path] &&
		!(strings.EqualFold(scheme, "Bearer") && g.Keys.known(strings.TrimSpace(key))) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		refuse(watched, http.StatusUnauthorized, "want a key that is known here: Authorization: Bearer KEY", "", "invalid_api_key")
		return
	}
	g.Next.ServeHTTP(watched, r.WithContext(context.WithValue(r.Context(), recordKey{}, rec)))
}

// A statusWriter remembers how a request ended.
type statusWriter struct {
	http.ResponseWriter
	status int
	code   string // of an error
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController flush and set deadlines.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// failedWith remembers the code of an error.
func failedWith(w http.ResponseWriter, code *string) {
	if s, ok := w.(*statusWriter); ok && code != nil {
		s.code = *code
	}
}
