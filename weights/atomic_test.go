package weights

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("R2_TEST_KILL"); dir != "" {
		rewriteForever(dir)
	}
	os.Exit(m.Run())
}

var errTest = errors.New("on purpose")

// entries are the names in dir.
func entries(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	for _, text := range []string{"one", "a longer two", "3"} {
		if err := writeBytes(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		err := WriteFile(path, func(w io.Writer) error {
			io.WriteString(w, "half of it")
			return errTest
		})
		if !errors.Is(err, errTest) || !strings.Contains(err.Error(), path) {
			t.Errorf("error %v", err)
		}
		if got := content(t, path); got != text {
			t.Errorf("%q, want %q", got, text)
		}
	}
	if got := entries(t, dir); got != "a" {
		t.Errorf("left: %s", got)
	}
	if err := writeBytes(filepath.Join(dir, "none", "a"), nil); err == nil {
		t.Error("wrote into a directory that is not there")
	}
	if err := writeBytes(dir, nil); err == nil {
		t.Error("wrote over a directory")
	}
}

func fillDir(names ...string) func(string) error {
	return func(tmp string) error {
		for _, n := range names {
			if err := writeBytes(filepath.Join(tmp, n), []byte(n)); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestWriteDir(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "d")
	for _, names := range [][]string{{"a", "b"}, {"c"}, {}} {
		if err := WriteDir(path, fillDir(names...)); err != nil {
			t.Fatal(err)
		}
		err := WriteDir(path, func(tmp string) error { return errors.Join(fillDir("x")(tmp), errTest) })
		if !errors.Is(err, errTest) {
			t.Errorf("error %v", err)
		}
		if got := entries(t, path); got != strings.Join(names, " ") {
			t.Errorf("holds %q, want %q", got, names)
		}
	}
	if got := entries(t, dir); got != "d" {
		t.Errorf("left: %s", got)
	}
	file := filepath.Join(dir, "f")
	if err := writeBytes(file, []byte("mine")); err != nil {
		t.Fatal(err)
	}
	if err := WriteDir(file, fillDir("a")); err == nil || content(t, file) != "mine" {
		t.Errorf("replaced a file: %v", err)
	}
}

// Where names cannot be exchanged in one step, a crash between the two renames leaves the old
// directory aside: the next write puts it back before anything else.
func TestWriteDirRestores(t *testing.T) {
	dir := t.TempDir()
	path, old := filepath.Join(dir, "d"), filepath.Join(dir, ".d.old")
	if err := WriteDir(old, fillDir("old")); err != nil {
		t.Fatal(err)
	}
	if err := WriteDir(path, func(string) error { return errTest }); !errors.Is(err, errTest) {
		t.Fatal(err)
	}
	if got := entries(t, path); got != "old" {
		t.Errorf("holds %q", got)
	}
	// And with the new one in place, what is aside goes.
	if err := WriteDir(old, fillDir("older")); err != nil {
		t.Fatal(err)
	}
	if err := WriteDir(path, fillDir("new")); err != nil {
		t.Fatal(err)
	}
	if got := entries(t, dir) + ": " + entries(t, path); got != "d: new" {
		t.Error(got)
	}
}

func TestAside(t *testing.T) {
	dir := t.TempDir()
	path, tmp, old := filepath.Join(dir, "d"), filepath.Join(dir, "tmp"), filepath.Join(dir, "old")
	if err := errors.Join(WriteDir(path, fillDir("a")), WriteDir(tmp, fillDir("b"))); err != nil {
		t.Fatal(err)
	}
	if err := aside(filepath.Join(dir, "nothing"), path, old); err == nil || entries(t, path) != "a" {
		t.Errorf("%v, then %s", err, entries(t, dir))
	}
	if err := aside(tmp, path, old); err != nil || entries(t, dir) != "d" || entries(t, path) != "b" {
		t.Errorf("%v, then %s", err, entries(t, dir))
	}
}

// Leftovers of a killed process go; the temporary file of a live one stays.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	if err := os.WriteFile(filepath.Join(dir, ".a.tmp-1"), []byte("dead"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := fillDir("x")(mkdir(t, filepath.Join(dir, ".a.tmp-2"))); err != nil {
		t.Fatal(err)
	}
	err := WriteFile(path, func(w io.Writer) error {
		if got := strings.Count(entries(t, dir), ".tmp-"); got != 1 {
			t.Errorf("%d temporary files, want one: %s", got, entries(t, dir))
		}
		io.WriteString(w, "outer")
		return writeBytes(path, []byte("inner")) // a second writer must not sweep the first's away
	})
	if err != nil || content(t, path) != "outer" {
		t.Errorf("%v, holds %q", err, content(t, path))
	}
	if got := entries(t, dir); got != "a" {
		t.Errorf("left: %s", got)
	}
}

func mkdir(t *testing.T, path string) string {
	t.Helper()
	if err := os.Mkdir(path, 0o777); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWritersTogether(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 5 {
				if err := writeBytes(path, []byte(strings.Repeat(fmt.Sprint(i), 1000))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got := content(t, path)
	if len(got) != 1000 || strings.Trim(got, got[:1]) != "" {
		t.Errorf("a mixture of %d bytes", len(got))
	}
	if got := entries(t, dir); got != "a" {
		t.Errorf("left: %s", got)
	}
}

// rewriteForever replaces a file and a directory of two files, each time with another number in all.
func rewriteForever(dir string) {
	for n := 0; ; n++ {
		text := []byte(strings.Repeat(fmt.Sprintf("%d ", n), 5000))
		err := errors.Join(
			writeBytes(filepath.Join(dir, "file"), text),
			WriteDir(filepath.Join(dir, "dir"), func(tmp string) error {
				return errors.Join(writeBytes(filepath.Join(tmp, "a"), text), writeBytes(filepath.Join(tmp, "b"), text))
			}))
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
}

// A process that is killed again and again, wherever it happens to be, leaves whole files, whole
// directories and, after the next write, no litter.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	for i := range 12 {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), "R2_TEST_KILL="+dir)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(40+7*i) * time.Millisecond)
		c.Process.Kill()
		c.Wait()
		for _, names := range [][]string{{"file"}, {"dir/a", "dir/b"}} {
			var first string
			for _, name := range names {
				b, err := os.ReadFile(filepath.Join(dir, name))
				if errors.Is(err, os.ErrNotExist) && name == names[0] {
					break // killed before the first write
				}
				got := string(b)
				if number, _, _ := strings.Cut(got, " "); err != nil || got != strings.Repeat(number+" ", 5000) {
					t.Fatalf("%s: %d bytes, %v", name, len(b), err)
				}
				if first == "" {
					first = got
				}
				if got != first {
					t.Fatal("files of two writes in one directory")
				}
			}
		}
	}
	if err := errors.Join(writeBytes(filepath.Join(dir, "file"), nil), WriteDir(filepath.Join(dir, "dir"), fillDir())); err != nil {
		t.Fatal(err)
	}
	if got := entries(t, dir); got != "dir file" {
		t.Errorf("left: %s", got)
	}
}
