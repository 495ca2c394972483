package tasks

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// Read returns the tasks of a file in the benchmark's own format. Only SCAN comes with the program;
// the others are read from where they were put.
func (b Benchmark) Read(path string) ([]Task, error) {
	if b.Parse == nil {
		return nil, fmt.Errorf("%s: there is no file format to read", b.Name)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := b.Parse(f, b.Name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	case len(all) == 0:
		return nil, fmt.Errorf("%s: there are no tasks", path)
	}
	return all, nil
}

// elsewhere is the Load of a benchmark that is not embedded.
func elsewhere(name string) func(string) ([]Task, error) {
	return func(string) ([]Task, error) {
		return nil, fmt.Errorf("benchmark %s is not part of the program: give its file with --data", name)
	}
}

// most is the longest line of a file.
const most = 1 << 24

// lines reads JSON lines, or one JSON array of the same objects, each by one.
func lines(r io.Reader, name string, one func(d []byte) (Task, error)) (all []Task, err error) {
	in := bufio.NewScanner(r)
	in.Buffer(nil, most)
	for n := 1; in.Scan(); n++ {
		if strings.TrimSpace(in.Text()) == "" {
			continue
		}
		t, err := one(in.Bytes())
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		t.ID = fmt.Sprintf("%s/%d", name, len(all))
		all = append(all, t)
	}
	return all, in.Err()
}

// fields decodes an object into what it must have.
func fields(b []byte, into any, need ...*string) error {
	if err := json.Unmarshal(b, into); err != nil {
		return err
	}
	for _, s := range need {
		if *s == "" {
			return fmt.Errorf("a field is missing or empty in %.80q", b)
		}
	}
	return nil
}
