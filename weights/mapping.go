package weights

import (
	"fmt"
	"math"
	"os"
)

// openRegular opens a regular file and returns its size. (A pipe is refused before it is opened:
// opening it would wait for a writer.)
func openRegular(path string) (*os.File, int, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is not a file", path)
	}
	if info.Size() > math.MaxInt {
		return nil, 0, fmt.Errorf("%s is too large for this machine's addresses", path)
	}
	f, err := os.Open(path)
	return f, int(info.Size()), err
}

// maxJSON is the most bytes of a configuration or an index that are read.
const maxJSON = 64 << 20

// readJSON reads a small file whole.
func readJSON(path string) ([]byte, error) {
	f, n, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	f.Close()
	if n > maxJSON {
		return nil, fmt.Errorf("%s has %d bytes: too many for a JSON file of a model", path, n)
	}
	return os.ReadFile(path)
}
