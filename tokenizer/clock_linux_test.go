package tokenizer

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// busy is how long the processor works on f, whatever else runs on the machine.
func busy(f func()) time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	now := func() time.Duration {
		var t unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
			panic(err)
		}
		return time.Duration(t.Nano())
	}
	start := now()
	f()
	return now() - start
}
