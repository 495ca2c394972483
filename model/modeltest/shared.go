// Package modeltest finds the reference models and numbers that tests compare with, and makes tiny
// models with random weights.
package modeltest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	_ "embed"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// archive holds the smaller goldens: testdata/README.md says which and where they come from.
//
//go:embed testdata/goldens.tar.gz
var archive []byte

// Shared returns the path of a file or folder of the reference data: below $R2_SHARED, or below the
// folder shared beside the repository, or else unpacked from the archive that the repository ships.
// Where none has it, the test is skipped with the reason.
func Shared(t testing.TB, elem ...string) string {
	t.Helper()
	want := filepath.Join(append([]string{SharedRoot()}, elem...)...)
	_, missing := os.Stat(want)
	if missing == nil {
		return want
	}
	// The folder of all goldens is not in the archive: a test that walks it expects every case.
	if len(elem) > 1 {
		dir := t.TempDir()
		if err := unpack(dir, path.Join(elem[:2]...)+"/"); err != nil {
			t.Fatalf("the goldens' archive: %v", err)
		}
		want = filepath.Join(append([]string{dir}, elem...)...)
		if _, err := os.Stat(want); err == nil {
			return want
		}
	}
	t.Skipf("reference data not there: %v (set R2_SHARED to the folder that holds it)", missing)
	return ""
}

// unpack writes the archive's files below prefix into dir.
func unpack(dir, prefix string) error {
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg || !strings.HasPrefix(h.Name, prefix) {
			continue
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, filepath.FromSlash(h.Name))
		if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
			return err
		}
		if err := os.WriteFile(to, b, 0o666); err != nil {
			return err
		}
	}
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
