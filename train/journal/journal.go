// Package journal is a training run's record of what the outside world answered: every exchange with
// whoever scores completions, and every reward, in one SQLite file. Both are committed before they are
// used, so a run that is killed and goes on takes them from here and asks nobody twice; a step that is
// taken again must have drawn the same completions, or it is an error.
package journal

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // the driver
)

// A Journal is the file. It is used by one goroutine.
type Journal struct{ db *sql.DB }

// A Call is one batch of rewards: the training step it belongs to and its place in that step.
type Call struct{ Step, Number int }

// A Reward is what a completion was worth, or why that is not known. Prompt and Sample are its place
// in the call; Input is what was judged.
type Reward struct {
	Prompt, Sample int
	Input          []byte // as it was sent; only its SHA-256 is kept
	Value          float32
	Failure        string // not empty: there is no value
}

// An Exchange is what was sent and answered for a call, whole. Source says to whom.
type Exchange struct {
	Source            string
	Request, Response []byte
}

// Everything but seconds and at is the same for a run that was killed and one that was not.
const schema = `
CREATE TABLE IF NOT EXISTS exchanges (
	step     INTEGER NOT NULL,
	call     INTEGER NOT NULL,
	source   TEXT NOT NULL,
	request  BLOB NOT NULL,
	response BLOB NOT NULL,
	seconds  REAL NOT NULL,
	at       TEXT NOT NULL, -- UTC
	PRIMARY KEY (step, call)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rewards (
	step    INTEGER NOT NULL,
	call    INTEGER NOT NULL,
	prompt  INTEGER NOT NULL,
	sample  INTEGER NOT NULL,
	input   TEXT NOT NULL, -- SHA-256
	reward  REAL,          -- NULL: could not be computed
	failure TEXT,
	PRIMARY KEY (step, call, prompt, sample)
) WITHOUT ROWID;`

// Open opens a journal and makes it when it is not there.
func Open(path string) (*Journal, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	// FULL: a reward that was used is on the disk.
	q := url.Values{"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: abs, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("journal: %s: %w", path, err)
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(schema); err != nil {
		return nil, errors.Join(fmt.Errorf("journal: %s cannot be used: %w", path, err), db.Close())
	}
	return &Journal{db}, nil
}

// Close closes the file.
func (j *Journal) Close() error { return j.db.Close() }

// Replay sets Value and Failure of rewards from an earlier run of the call; ok is false when there was
// none. Rewards of other completions than these are an error.
func (j *Journal) Replay(ctx context.Context, c Call, rewards []Reward) (ok bool, err error) {
	rows, err := j.db.QueryContext(ctx,
		"SELECT prompt, sample, input, reward, failure FROM rewards WHERE step = ? AND call = ? ORDER BY prompt, sample", c.Step, c.Number)
	if err != nil {
		return false, fmt.Errorf("journal: read: %w", err)
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		var prompt, sample int
		var input string
		var value sql.NullFloat64
		var failure sql.NullString
		if err := rows.Scan(&prompt, &sample, &input, &value, &failure); err != nil {
			return false, fmt.Errorf("journal: read: %w", err)
		}
		if n >= len(rewards) || rewards[n].Prompt != prompt || rewards[n].Sample != sample || digest(rewards[n].Input) != input {
			return false, fmt.Errorf("journal: step %d, call %d, prompt %d, sample %d: another completion was judged before; "+
				"the journal is of another run", c.Step+1, c.Number, prompt, sample)
		}
		rewards[n].Value, rewards[n].Failure = float32(value.Float64), failure.String
	}
	if err := rows.Err(); err != nil {
		return false, fmt.Errorf("journal: read: %w", err)
	}
	if n != 0 && n != len(rewards) {
		return false, fmt.Errorf("journal: step %d, call %d: %d rewards where %d are needed; the journal is of another run", c.Step+1, c.Number, n, len(rewards))
	}
	return n > 0, nil
}

// Record commits a call's exchange and rewards, all or none. x is nil where nobody was asked.
func (j *Journal) Record(ctx context.Context, c Call, x *Exchange, rewards []Reward, took time.Duration) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("journal: write: %w", err)
		}
	}()
	tx, err := j.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after Commit
	if x != nil {
		_, err := tx.ExecContext(ctx, "INSERT INTO exchanges (step, call, source, request, response, seconds, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
			c.Step, c.Number, x.Source, x.Request, x.Response, took.Seconds(), time.Now().UTC().Format(time.RFC3339Nano))
		if err != nil {
			return err
		}
	}
	insert, err := tx.PrepareContext(ctx, "INSERT INTO rewards (step, call, prompt, sample, input, reward, failure) VALUES (?, ?, ?, ?, ?, ?, ?)")
	if err != nil {
		return err
	}
	defer insert.Close()
	for _, r := range rewards {
		value, failure := sql.NullFloat64{Float64: float64(r.Value), Valid: r.Failure == ""}, sql.NullString{String: r.Failure, Valid: r.Failure != ""}
		if _, err := insert.ExecContext(ctx, c.Step, c.Number, r.Prompt, r.Sample, digest(r.Input), value, failure); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// Forget drops all that is recorded of a step: for one whose rewards turned out to be of no use.
func (j *Journal) Forget(ctx context.Context, step int) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("journal: forget: %w", err)
		}
	}()
	tx, err := j.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after Commit
	for _, table := range []string{"rewards", "exchanges"} {
		if _, err := tx.ExecContext(ctx, "DELETE FROM "+table+" WHERE step = ?", step); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func digest(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}
