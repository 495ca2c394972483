//go:build unix

package tasks

import (
	"os/exec"
	"syscall"
)

// apart puts a command into a group of its own, which is ended as one.
func apart(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
