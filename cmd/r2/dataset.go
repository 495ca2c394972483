package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
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

// rowFiles are the rows of JSON lines files. Only their places are held: a row is read when its turn
// comes, so files may be larger than memory.
type rowFiles struct {
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

// openRows reads all rows once, to check, measure and hash them: look gives a row's tokens, or what is wrong with it.
func openRows(paths []string, f dataFlags, look func(row) (tokens int, err error)) (_ *rowFiles, err error) {
	d := &rowFiles{sieve: sieve{dataFlags: f}}
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
		if err := d.scan(i, io.TeeReader(file, h), look); err != nil {
			return nil, err
		}
	}
	d.hash = hex.EncodeToString(h.Sum(nil))
	return d, d.some(strings.Join(paths, ", "), len(d.places))
}

// some is an error unless rows are left of those that what was read has.
func (s *sieve) some(what string, left int) error {
	switch {
	case left > 0:
		return nil
	case s.bad+s.long > 0:
		return fmt.Errorf("%s: all %d rows were left out", what, s.bad+s.long)
	}
	return fmt.Errorf("%s: there are no rows", what)
}

func (d *rowFiles) scan(file int, r io.Reader, look func(row) (int, error)) error {
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
		n, err := look(d.rowAt(sc.Bytes(), p))
		if err != nil {
			if err := d.out(err); err != nil {
				return err
			}
			continue
		}
		d.longest = max(d.longest, n)
		d.places = append(d.places, p)
	}
	if errors.Is(sc.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("%s: a line is longer than %d MiB", d.files[file].Name(), maxLine>>20)
	}
	return sc.Err()
}

func (d *rowFiles) rowAt(raw []byte, p place) row {
	return row{raw: bytes.TrimSpace(raw), place: fmt.Sprintf("%s:%d", d.files[p.file].Name(), p.line)}
}

// row reads row i.
func (d *rowFiles) row(i int) (row, error) {
	p := d.places[i]
	raw := make([]byte, p.size)
	_, err := d.files[p.file].ReadAt(raw, p.offset)
	r := d.rowAt(raw, p)
	if err != nil {
		err = fmt.Errorf("%s: %w", r.place, err)
	}
	return r, err
}

// changed is an error about a row that was right when the run began.
func changed(err error) error { return fmt.Errorf("%w; the file was changed since the run began", err) }

// Close closes the files.
func (d *rowFiles) Close() {
	for _, f := range d.files {
		f.Close()
	}
}

// A dataset is the training rows of files.
type dataset struct {
	v *vocabulary
	*rowFiles
}

// openDataset reads all rows once.
func openDataset(v *vocabulary, paths []string, context int, f dataFlags) (_ *dataset, err error) {
	d := &dataset{v: v}
	d.rowFiles, err = openRows(paths, f, func(r row) (int, error) {
		x, err := d.example(r)
		if err == nil && len(x.Tokens) > context {
			err = r.errorf("%d tokens %w of %d; --long drop leaves such rows out", len(x.Tokens), errLong, context)
		}
		return len(x.Tokens), err
	})
	return d, err
}

func (d *dataset) example(r row) (sft.Example, error) {
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

// read gives rows by their numbers, and where they stand.
func (d *dataset) read(rows []int) (out []sft.Example, names []string, err error) {
	for _, i := range rows {
		r, err := d.row(i)
		if err != nil {
			return nil, nil, err
		}
		x, err := d.example(r)
		if err != nil {
			return nil, nil, changed(err)
		}
		out, names = append(out, x), append(names, r.place)
	}
	return out, names, nil
}

// all gives one row after another.
func (d *dataset) all() iter.Seq2[sft.Example, error] {
	return func(yield func(sft.Example, error) bool) {
		for i := range d.places {
			x, _, err := d.read([]int{i})
			if err != nil {
				yield(sft.Example{}, err)
				return
			}
			if !yield(x[0], nil) {
				return
			}
		}
	}
}

// A shuffle is the order of n rows in each epoch: a permutation by seed and epoch, or as they stand.
type shuffle struct {
	seed  uint64
	n     int
	plain bool
	epoch int
	order []int // in epoch
}

// in gives the rows in the order of an epoch. It is valid until the next call.
func (s *shuffle) in(epoch int) []int {
	switch {
	case s.order == nil && s.plain:
		s.order = make([]int, s.n)
		for i := range s.order {
			s.order[i] = i
		}
	case !s.plain && (s.order == nil || s.epoch != epoch):
		s.epoch, s.order = epoch, rand.New(rand.NewPCG(s.seed, uint64(epoch))).Perm(s.n)
	}
	return s.order
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
