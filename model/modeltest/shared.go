// Package modeltest finds the reference models and numbers that tests compare with, and makes tiny
// models with random weights.
package modeltest

import (
	"os"
	"path/filepath"
	"testing"
)

// Shared returns the path of a file or folder of the reference data: below $R2_SHARED, or below the
// folder shared beside the repository. Without it the test is skipped with the reason.
func Shared(t testing.TB, elem ...string) string {
	t.Helper()
	path := filepath.Join(append([]string{SharedRoot()}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("reference data not there: %v (set R2_SHARED to the folder that holds it)", err)
	}
	return path
}

// SharedRoot is the folder of the reference data, whether it is there or not.
func SharedRoot() string {
	if dir := os.Getenv("R2_SHARED"); dir != "" {
		return dir
	}
	dir, err := os.Getwd()
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(filepath.Dir(dir), "shared")
		}
		up := filepath.Dir(dir)
		if up == dir {
			break
		}
		dir = up
	}
	return "shared"
}
