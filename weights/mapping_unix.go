//go:build unix

package weights

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// A mapping is a file's bytes, read-only.
type mapping struct {
	data  []byte
	once  sync.Once
	close error
}

// mapFile maps a regular file into memory.
func mapFile(path string) (*mapping, error) {
	f, n, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if n == 0 {
		return &mapping{}, nil
	}
	b, err := unix.Mmap(int(f.Fd()), 0, n, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	return &mapping{data: b}, nil
}

// Close unmaps the file, once.
func (m *mapping) Close() error {
	m.once.Do(func() {
		if m.data != nil {
			m.close = unix.Munmap(m.data)
			m.data = nil
		}
	})
	return m.close
}
