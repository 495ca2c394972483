package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"reflect"
)

// maxLine is the longest line of an input file.
const maxLine = 64 << 20

// rows yields the lines of a JSON lines file, "-" for standard input, each with its place for errors.
// Empty lines are passed over.
func rows(path string) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		in, name := io.Reader(os.Stdin), "standard input"
		if path != "-" {
			f, err := os.Open(path)
			if err != nil {
				yield(row{}, err)
				return
			}
			defer f.Close()
			in, name = f, path
		}
		sc := bufio.NewScanner(in)
		sc.Buffer(nil, maxLine)
		for n := 1; sc.Scan(); n++ {
			line := bytes.TrimSpace(sc.Bytes())
			if len(line) > 0 && !yield(row{raw: bytes.Clone(line), place: fmt.Sprintf("%s:%d", name, n)}, nil) {
				return
			}
		}
		if err := sc.Err(); err != nil {
			if errors.Is(err, bufio.ErrTooLong) {
				err = fmt.Errorf("%s: a line is longer than %d MiB", name, maxLine>>20)
			}
			yield(row{}, err)
		}
	}
}

// A row is one line of an input file.
type row struct {
	raw   []byte
	place string // file and line
}

// decode reads the row into v; with strict, a field that v does not have is an error.
func (r row) decode(v any, strict bool) error {
	d := json.NewDecoder(bytes.NewReader(r.raw))
	if strict {
		d.DisallowUnknownFields()
	}
	err := d.Decode(v)
	if err == nil && d.More() {
		err = errors.New("more than one JSON value on the line")
	}
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		err = mistyped(wrong)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", r.place, err)
	}
	return nil
}

// mistyped says in JSON's words what stands where something else is wanted.
func mistyped(e *json.UnmarshalTypeError) error {
	want := map[reflect.Kind]string{reflect.String: "a string", reflect.Slice: "an array", reflect.Int: "a whole number", reflect.Int32: "a whole number",
		reflect.Float64: "a number", reflect.Bool: "true or false"}[e.Type.Kind()]
	if want == "" {
		want = "an object"
	}
	if e.Field == "" {
		return fmt.Errorf("%s where %s is wanted", e.Value, want)
	}
	return fmt.Errorf("%q: %s where %s is wanted", e.Field, e.Value, want)
}

// errorf is an error about the row.
func (r row) errorf(format string, args ...any) error {
	return fmt.Errorf("%s: %w", r.place, fmt.Errorf(format, args...))
}
