//go:build !linux

package tokenizer

import "time"

// busy is how long f takes, on a machine that has nothing else to do.
func busy(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}
