package main

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/r2-reasoner/r2/router"
)

// The miniature is a router and a pool of tiny models for SCAN, trained by the recipe in
// bench/miniature: small enough to be part of the program.
//
//go:embed all:miniature
var miniatureFiles embed.FS

// unpackMiniature writes the miniature to a folder of its own and returns it.
func unpackMiniature() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "r2-miniature-"); err != nil {
		return "", err
	}
	files, err := fs.Sub(miniatureFiles, "miniature")
	if err == nil {
		err = os.CopyFS(dir, files)
	}
	if err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("unpack the miniature: %w", err)
	}
	return dir, nil
}

// A miniature is the router over a pool that is served, and reached, over HTTP on loopback.
type miniature struct {
	*stack
	dir   string
	hosts []*host // of the pool
	stop  func() error
}

// openMiniature serves the pool's models and opens the router that asks them.
func openMiniature(ctx context.Context, f deviceFlags) (m *miniature, err error) {
	m = &miniature{}
	defer func() {
		if err != nil {
			m.Close()
		}
	}()
	if m.dir, err = unpackMiniature(); err != nil {
		return m, err
	}
	c, err := readConfig(filepath.Join(m.dir, "r2.yaml"))
	if err != nil {
		return m, err
	}
	be, err := f.open() // one device for all: each step has it to itself
	if err != nil {
		return m, err
	}
	served := map[string]router.Completer{}
	for i := range c.Pool {
		p := &c.Pool[i]
		h, err := openModel(be, c.path(p.Model), nil, f)
		if err != nil {
			return m, err
		}
		if err := h.start(hostOptions{}); err != nil {
			return m, err
		}
		m.hosts = append(m.hosts, h)
		if served[p.Name], err = h.text(0); err != nil {
			return m, err
		}
		p.Model = ""
	}
	url, stop, err := serveLoopback(served)
	if err != nil {
		return m, err
	}
	m.stop = stop
	for i := range c.Pool {
		c.Pool[i].URL = url
	}
	m.stack, err = openStackOn(be, c, f)
	return m, err
}

// Close stops everything and removes the folder.
func (m *miniature) Close() error {
	if m.stack != nil {
		m.stack.Close()
	}
	if m.stop != nil {
		m.stop()
	}
	for _, h := range m.hosts {
		h.Close()
	}
	return os.RemoveAll(m.dir)
}
