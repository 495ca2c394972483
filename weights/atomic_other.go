//go:build !unix

package weights

import (
	"errors"
	"os"
)

// renameOpen says that a file can be renamed while it is open.
const renameOpen = false

// lock does nothing here, so what a killed process left behind stays.
func lock(*os.File) (held, busy bool) { return false, false }

// syncDir does nothing: files are flushed as they are written, and directories cannot be here.
func syncDir(string) error { return nil }

// exchange is not there: see swap.
func exchange(_, _ string) error { return errors.ErrUnsupported }
