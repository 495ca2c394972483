package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/r2-reasoner/r2/train/sft"
)

// dataFlags say what becomes of rows that cannot be trained on.
type dataFlags struct {
	SkipBad bool   `help:"Leave out rows that cannot be read, and count them; otherwise the first is an error."`
	Long    string `default:"error" enum:"drop,error" help:"Rows longer than the context: drop (counted) or error."`
}

func (f dataFlags) settings() []setting {
	return []setting{{"skip_bad", f.SkipBad}, {"long", f.Long}}
}

// errLong is in the errors about rows that do not fit into the context.
var errLong = errors.New("do not fit into the context")

// A sieve counts the rows that are left out.
type sieve struct {
	dataFlags
	bad, long int
	first     error // of the bad
}

// out gives nil when the row that err is about is left out, else err.
func (s *sieve) out(err error) error {
	switch {
	case errors.Is(err, errLong) && s.Long == "drop":
		s.long++
	case !errors.Is(err, errLong) && s.SkipBad:
		if s.bad++; s.first == nil {
			s.first = err
		}
	default:
		return err
	}
	return nil
}

// say tells how many were left out.
func (s *sieve) say(o outputFlags) {
	if s.bad > 0 {
		o.note("%d rows left out that cannot be read; the first: %v", s.bad, s.first)
	}
	if s.long > 0 {
		o.note("%d rows left out that are longer than the context", s.long)
	}
}

// A dataset is the training rows of files. Only their places are held: a row is read when its turn
// comes, so files may be larger than memory.
type dataset struct {
	v       *vocabulary
	files   []*os.File
	places  []place
	longest int // tokens
	hash    string
	sieve
}

// A place is where a row is.
type place struct {
	file, line, size int32
	offset           int64
}

// openDataset reads all rows once, to check, measure and hash them.
func openDataset(v *vocabulary, paths []string, context int, f dataFlags) (_ *dataset, err error) {
	d := &dataset{v: v, sieve: sieve{dataFlags: f}}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	h := sha256.New()
	for i, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		d.files = append(d.files, file)
		if err := d.scan(i, io.TeeReader(file, h), context); err != nil {
			return nil, err
		}
	}
	d.hash = hex.EncodeToString(h.Sum(nil))
	if len(d.places) == 0 {
		if d.bad+d.long > 0 {
			return nil, fmt.Errorf("%s: all %d rows were left out", strings.Join(paths, ", "), d.bad+d.long)
		}
		return nil, fmt.Errorf("%s: there are no rows", strings.Join(paths, ", "))
	}
	return d, nil
}

func (d *dataset) scan(file int, r io.Reader, context int) error {
	var begin, end int64
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, maxLine)
	sc.Split(func(data []byte, eof bool) (int, []byte, error) {
		n, token, err := bufio.ScanLines(data, eof)
		if token != nil {
			begin, end = end, end+int64(n)
		}
		return n, token, err
	})
	for line := 1; sc.Scan(); line++ {
		if len(bytes.TrimSpace(sc.Bytes())) == 0 {
			continue
		}
		p := place{file: int32(file), line: int32(line), size: int32(len(sc.Bytes())), offset: begin}
		x, err := d.example(sc.Bytes(), p)
		if err == nil && len(x.Tokens) > context {
			err = fmt.Errorf("%s: %d tokens %w of %d; --long drop leaves such rows out", d.name(p), len(x.Tokens), errLong, context)
		}
		if err != nil {
			if err := d.out(err); err != nil {
				return err
			}
			continue
		}
		d.longest = max(d.longest, len(x.Tokens))
		d.places = append(d.places, p)
	}
	if errors.Is(sc.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("%s: a line is longer than %d MiB", d.files[file].Name(), maxLine>>20)
	}
	return sc.Err()
}

func (d *dataset) example(raw []byte, p place) (sft.Example, error) {
	r := row{raw: bytes.TrimSpace(raw), place: d.name(p)}
	var e example
	if err := r.decode(&e, false); err != nil {
		return sft.Example{}, err
	}
	x, err := d.v.learn(&e, true)
	if err != nil {
		return x, r.errorf("%w", err)
	}
	return x, nil
}

// name is a row's file and line.
func (d *dataset) name(p place) string { return fmt.Sprintf("%s:%d", d.files[p.file].Name(), p.line) }

// read gives rows by their numbers, and where they stand.
func (d *dataset) read(rows []int) (out []sft.Example, names []string, err error) {
	for _, i := range rows {
		p := d.places[i]
		raw := make([]byte, p.size)
		if _, err := d.files[p.file].ReadAt(raw, p.offset); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", d.name(p), err)
		}
		x, err := d.example(raw, p)
		if err != nil {
			return nil, nil, fmt.Errorf("%w; the file was changed since the run began", err)
		}
		out, names = append(out, x), append(names, d.name(p))
	}
	return out, names, nil
}

// all gives every row.
func (d *dataset) all() ([]sft.Example, error) {
	rows := make([]int, len(d.places))
	for i := range rows {
		rows[i] = i
	}
	out, _, err := d.read(rows)
	return out, err
}

// Close closes the files.
func (d *dataset) Close() {
	for _, f := range d.files {
		f.Close()
	}
}

// mostNamed rows are named in an error.
const mostNamed = 8

// ofRows is an error of a step, with the rows of its batch where they are known.
func ofRows(step int, names []string, err error) error {
	if len(names) == 0 {
		return fmt.Errorf("step %d: %w; nothing of this step was written", step, err)
	}
	more := ""
	if n := len(names) - mostNamed; n > 0 {
		names, more = names[:mostNamed], fmt.Sprintf(" and %d more", n)
	}
	return fmt.Errorf("step %d: %w; the batch's rows: %s%s; nothing of this step was written", step, err, strings.Join(names, " "), more)
}
