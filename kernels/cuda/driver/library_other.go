//go:build !unix

package driver

// library loads the driver where there is one: not on this system.
func library(string, []string) (map[string]uintptr, error) { return nil, ErrNoDriver }
