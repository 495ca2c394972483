package drivertest

import (
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

//go:embed testdata/fakecuda.c
var fake []byte

// FakeLibrary compiles a libcuda.so.1 whose devices are imagined, and returns its folder. Where there is no
// C compiler the test is skipped.
func FakeLibrary(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler")
	}
	source := filepath.Join(dir, "fakecuda.c")
	if err := os.WriteFile(source, fake, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(cc, "-O1", "-shared", "-fPIC", "-o", filepath.Join(dir, "libcuda.so.1"), source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// inChild says in its environment which test a process was started for.
const inChild = "R2_DRIVERTEST_CHILD"

// Child runs one test of this program in a process of its own: one that may lose its device, or, unless lib is
// empty, that loads the libcuda there. env is what is set besides.
func Child(t *testing.T, lib, test string, env ...string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$", "-test.count=1", "-test.v")
	cmd.Env = append(append(os.Environ(), inChild+"="+test), env...)
	if lib != "" {
		cmd.Env = append(cmd.Env, "LD_LIBRARY_PATH="+lib, "R2_DEVICE=cuda:0")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s, with %q: %v\n%s", test, env, err, out)
	}
}

// OnlyChild skips a test unless Child has started this process for it.
func OnlyChild(t *testing.T) {
	t.Helper()
	if os.Getenv(inChild) != t.Name() {
		t.Skip("run in a process of its own by another test")
	}
}
