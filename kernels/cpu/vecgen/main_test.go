package main

import (
	"bytes"
	"os"
	"testing"
)

// The committed assembly is what this program writes.
func TestFileIsCurrent(t *testing.T) {
	got, err := os.ReadFile("../vec_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, file()) {
		t.Error("kernels/cpu/vec_amd64.s is stale: go generate ./kernels/cpu")
	}
}
