package probe

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
)

// A File is what one device gave.
type File struct {
	Device  string
	Records []Record
}

// Write writes a file: JSON, compressed.
func (f File) Write(path string) error {
	to, err := os.Create(path)
	if err != nil {
		return err
	}
	z := gzip.NewWriter(to)
	if err := json.NewEncoder(z).Encode(f); err != nil {
		to.Close()
		return err
	}
	if err := z.Close(); err != nil {
		to.Close()
		return err
	}
	return to.Close()
}

// ReadFile reads what Write wrote.
func ReadFile(path string) (f File, err error) {
	from, err := os.Open(path)
	if err != nil {
		return f, err
	}
	defer from.Close()
	z, err := gzip.NewReader(from)
	if err != nil {
		return f, fmt.Errorf("%s: %w", path, err)
	}
	if err := json.NewDecoder(z).Decode(&f); err != nil {
		return f, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}
