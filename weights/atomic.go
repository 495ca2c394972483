package weights

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// WriteFile writes a file that appears whole or not at all: f writes a temporary file in the same
// directory, which is flushed to the disk and renamed over path. When f or anything else fails, what
// was at path stays. What a killed process left behind is removed by the next write of the same path.
func WriteFile(path string, f func(io.Writer) error) (err error) {
	tmp, file, err := temporary(path, func(name string) error {
		w, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
		if err != nil {
			return err
		}
		return w.Close()
	}, os.O_WRONLY)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		file.Close() // gives up the lock
		if err != nil {
			os.Remove(tmp)
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if err := f(file); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if !renameOpen {
		file.Close()
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// WriteDir makes a directory that appears whole or not at all: f fills an empty temporary directory
// beside path, which then takes path's place. What was at path before is kept until then and removed
// after; a crash at any instant leaves the old directory or the new one. Where the system cannot
// exchange two names in one step (see exchange), a crash in between can leave the old one under the
// name .NAME.old, from where the next WriteDir restores it.
func WriteDir(path string, f func(tmp string) error) (err error) {
	path = filepath.Clean(path)
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	old := hidden(path, "old")
	if err := restore(path, old); err != nil {
		return err
	}
	if info, err := os.Lstat(path); err == nil && !info.IsDir() {
		return errors.New("there is something that is not a directory")
	}
	tmp, lock, err := temporary(path, func(name string) error { return os.Mkdir(name, 0o777) }, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer lock.Close()
	defer os.RemoveAll(tmp) // after the exchange: what was at path
	if err := f(tmp); err != nil {
		return err
	}
	if err := syncTree(tmp); err != nil {
		return err
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := os.Rename(tmp, path); err != nil {
			return err
		}
	} else if err := swap(tmp, path, old); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// restore puts back what an interrupted swap left at old, or removes it when path is there.
func restore(path, old string) error {
	if _, err := os.Lstat(old); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return os.Rename(old, path)
	}
	return os.RemoveAll(old)
}

// swap puts tmp at path and what was there at tmp.
func swap(tmp, path, old string) error {
	err := exchange(tmp, path)
	if !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return aside(tmp, path, old)
}

// aside does swap's work in two steps, with the old directory at old between them.
func aside(tmp, path, old string) error {
	if err := os.Rename(path, old); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(err, os.Rename(old, path))
	}
	return os.RemoveAll(old)
}

// hidden is a name beside path for what stands in its place for a while.
func hidden(path, suffix string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+suffix)
}

// temporary makes a file or directory beside path with create, opens it and locks it, so that it can
// be told from what a killed process left behind: that is removed.
func temporary(path string, create func(string) error, flag int) (string, *os.File, error) {
	sweep(path)
	for n := os.Getpid(); ; n++ {
		name := hidden(path, fmt.Sprintf("tmp-%d", n))
		if err := create(name); errors.Is(err, fs.ErrExist) {
			continue
		} else if err != nil {
			return "", nil, err
		}
		f, err := os.OpenFile(name, flag, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another process swept it away before it was locked
		} else if err != nil {
			return "", nil, err
		}
		if _, busy := lock(f); !busy && stands(name, f) {
			return name, f, nil
		}
		f.Close() // as above
	}
}

// sweep removes the temporary files and directories of path that nobody holds locked.
func sweep(path string) {
	prefix := "." + filepath.Base(path) + ".tmp-"
	entries, _ := os.ReadDir(filepath.Dir(path))
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		name := filepath.Join(filepath.Dir(path), e.Name())
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		// What was opened may have been renamed since, and the name be another writer's by now.
		if held, _ := lock(f); held && stands(name, f) {
			os.RemoveAll(name)
		}
		f.Close()
	}
}

// stands reports whether name is still the file or directory that was opened as f.
func stands(name string, f *os.File) bool {
	there, err := os.Lstat(name)
	if err != nil {
		return false
	}
	opened, err := f.Stat()
	return err == nil && os.SameFile(there, opened)
}

// syncTree flushes a directory and all in it to the disk.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() && !e.Type().IsRegular() {
			return err
		}
		return syncDir(path)
	})
}

// writeBytes is WriteFile of b.
func writeBytes(path string, b []byte) error {
	return WriteFile(path, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}
