//go:build !unix

package weights

import "io"

// A mapping is a file's bytes: here read into memory.
type mapping struct{ data []byte }

func mapFile(path string) (*mapping, error) {
	f, n, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, err
	}
	return &mapping{b}, nil
}

func (m *mapping) Close() error { m.data = nil; return nil }
