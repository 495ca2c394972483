// Package replay keeps every exchange with a model in a SQLite journal and answers from it, so that a run can be
// repeated, or go on where it stopped, without asking and paying again.
//
// An exchange is found by its model's name and the exact request: messages, sampling settings, seed. When the same
// request was made more than once, the first answer is the one that is given.
package replay

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"time"
	"unicode/utf8"

	_ "modernc.org/sqlite" // the driver

	"github.com/r2-reasoner/r2/router"
)

// A Mode says when a model is asked.
type Mode string

const (
	Off  Mode = "off"  // always
	Fill Mode = "fill" // when the journal has no answer
	Only Mode = "only" // never
)

// UnmarshalText reads off, fill or only.
func (m *Mode) UnmarshalText(text []byte) error {
	switch v := Mode(text); v {
	case Off, Fill, Only:
		*m = v
		return nil
	}
	return fmt.Errorf("replay %q is none of off, fill, only", text)
}

// A Journal is the file. It is safe for concurrent use, and a process that is killed loses no exchange whose answer
// was given.
type Journal struct {
	db   *sql.DB
	mode Mode
}

const schema = `
CREATE TABLE IF NOT EXISTS exchanges (
	id         INTEGER PRIMARY KEY,
	key        BLOB NOT NULL, -- SHA-256 of model and request
	model      TEXT NOT NULL,
	request    TEXT NOT NULL, -- JSON
	completion TEXT,          -- JSON; NULL when the call failed
	error      TEXT,
	seconds    REAL NOT NULL,
	at         TEXT NOT NULL  -- UTC
);
CREATE INDEX IF NOT EXISTS exchanges_key ON exchanges (key, id);`

// Open opens a journal, and makes it when it is not there and the mode is not Only.
func Open(path string, mode Mode) (*Journal, error) {
	if mode != Off && mode != Fill && mode != Only {
		return nil, fmt.Errorf("replay: mode %q is none of off, fill, only", mode)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("replay: %w", err)
	}
	q := url.Values{"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(NORMAL)"}}
	if mode == Only {
		q = url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(10000)"}}
	}
	dsn := (&url.URL{Scheme: "file", Path: abs, RawQuery: q.Encode()}).String()
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("replay: %s: %w", path, err)
	}
	db.SetMaxOpenConns(1) // SQLite has one writer; waiting here is fairer than in its lock
	check := schema
	if mode == Only {
		check = "SELECT id, key, model, request, completion, error, seconds, at FROM exchanges LIMIT 0"
	}
	if _, err := db.Exec(check); err != nil {
		return nil, errors.Join(fmt.Errorf("replay: %s is not a journal of exchanges: %w", path, err), db.Close())
	}
	return &Journal{db, mode}, nil
}

// Close closes the file.
func (j *Journal) Close() error { return j.db.Close() }

// Len is the number of exchanges, those that failed included.
func (j *Journal) Len(ctx context.Context) (n int, err error) {
	err = j.db.QueryRowContext(ctx, "SELECT count(*) FROM exchanges").Scan(&n)
	return n, err
}

// Completer is c under that name, through the journal.
func (j *Journal) Completer(name string, c router.Completer) router.Completer {
	return router.CompleteFunc(func(ctx context.Context, r router.Request) (router.Completion, error) {
		return j.exchange(ctx, name, r, c)
	})
}

// Pool is p, through the journal. An answer from the journal has the cost it had, and spends nothing.
func (j *Journal) Pool(p router.Pool) router.Pool { return &pool{p, j} }

type pool struct {
	router.Pool
	j *Journal
}

func (p *pool) Complete(ctx context.Context, model string, r router.Request) (router.Completion, error) {
	return p.j.exchange(ctx, model, r, router.CompleteFunc(func(ctx context.Context, r router.Request) (router.Completion, error) {
		return p.Pool.Complete(ctx, model, r)
	}))
}

func (j *Journal) exchange(ctx context.Context, model string, r router.Request, c router.Completer) (router.Completion, error) {
	request, key, err := keyOf(model, r)
	if err != nil {
		return router.Completion{}, err
	}
	if j.mode != Off {
		got, ok, err := j.find(ctx, key)
		if ok || err != nil {
			return got, err
		}
		if j.mode == Only {
			return router.Completion{}, fmt.Errorf("replay: no answer of %s to this request in the journal (key %.8x…): %w", model, key, router.ErrRefused)
		}
	}
	start := time.Now()
	got, err := c.Complete(ctx, r)
	if kept := j.keep(context.WithoutCancel(ctx), key, model, request, got, err, start); kept != nil {
		return got, errors.Join(err, kept)
	}
	if err != nil || j.mode == Off {
		return got, err
	}
	got, _, err = j.find(ctx, key) // the first, when the same request was under way twice
	return got, err
}

// keyOf is the request as JSON, and the key of its exchange.
func keyOf(model string, r router.Request) (string, []byte, error) {
	texts := append([]string{model, r.Prompt}, append(r.Stop, r.Choices...)...)
	for _, m := range r.Messages {
		texts = append(texts, m.Role, m.Content)
	}
	for _, s := range texts {
		if !utf8.ValidString(s) { // JSON would make different bytes the same
			return "", nil, &router.ParamError{Param: "messages", Reason: fmt.Sprintf("not valid UTF-8: %.40q", s)}
		}
	}
	b, err := json.Marshal(r)
	if err != nil {
		return "", nil, fmt.Errorf("replay: %w", err)
	}
	h := sha256.New()
	fmt.Fprintf(h, "%d:%s", len(model), model)
	h.Write(b)
	return string(b), h.Sum(nil), nil
}

// A stored completion keeps pieces as bytes, which need not be whole runes.
type stored struct {
	router.Completion
	Pieces [][]byte `json:"pieces,omitempty"`
}

func (j *Journal) keep(ctx context.Context, key []byte, model, request string, c router.Completion, err error, start time.Time) error {
	var completion, failure *string
	if err != nil {
		failure = new(err.Error())
	} else {
		s := stored{Completion: c}
		for _, p := range c.Pieces {
			s.Pieces = append(s.Pieces, []byte(p))
		}
		b, err := json.Marshal(s)
		if err != nil {
			return fmt.Errorf("replay: the answer of %s cannot be kept: %w", model, err)
		}
		completion = new(string(b))
	}
	_, err = j.db.ExecContext(ctx,
		"INSERT INTO exchanges (key, model, request, completion, error, seconds, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
		key, model, request, completion, failure, time.Since(start).Seconds(), start.UTC().Format(time.RFC3339Nano))
	if err != nil {
		return fmt.Errorf("replay: write: %w", err)
	}
	return nil
}

func (j *Journal) find(ctx context.Context, key []byte) (c router.Completion, ok bool, err error) {
	var text string
	err = j.db.QueryRowContext(ctx,
		"SELECT completion FROM exchanges WHERE key = ? AND completion IS NOT NULL ORDER BY id LIMIT 1", key).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return c, false, nil
	}
	if err != nil {
		return c, false, fmt.Errorf("replay: read: %w", err)
	}
	var s stored
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return c, false, fmt.Errorf("replay: the journal's answer cannot be read (key %.8x…): %w", key, err)
	}
	c = s.Completion
	for _, p := range s.Pieces {
		c.Pieces = append(c.Pieces, string(p))
	}
	return c, true, nil
}
