package main

import (
	"os"
	"path/filepath"
	"testing"
)

// The committed files are what this generator writes.
func TestFilesAreFresh(t *testing.T) {
	for name, want := range files() {
		got, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s is stale: run go generate ./kernels/cpu", name)
		}
	}
}
