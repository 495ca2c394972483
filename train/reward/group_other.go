//go:build !unix

package reward

import "os/exec"

// ownGroup does nothing: without process groups only the command itself is ended.
func ownGroup(*exec.Cmd) {}
