//go:build unix

package weights

import (
	"os"

	"golang.org/x/sys/unix"
)

// renameOpen says that a file can be renamed while it is open.
const renameOpen = true

// lock takes the file's lock, which ends with f or with the process. It is busy when another holds
// it; where a file system has no locks it is neither held nor busy.
func lock(f *os.File) (held, busy bool) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	return err == nil, err == unix.EWOULDBLOCK
}

// syncDir flushes a file or a directory to the disk.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
