//go:build unix && !linux

package weights

import "errors"

// exchange is not there: see swap.
func exchange(_, _ string) error { return errors.ErrUnsupported }
