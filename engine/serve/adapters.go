package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/router/openai"
)

// A Source says where adapters come from while a host serves.
type Source struct {
	Host   *Host
	Parent string // the name of the host's base
	Root   *os.Root
	Open   func(dir string) (engine.Adapter, error)
}

// A policy is one generation of an adapter. Its number is given back to the engine when it has been replaced and
// the last call that began with it is over.
type policy struct {
	host    *Host
	number  int
	calls   int
	retired bool
}

// An adapter is a model whose policy may be replaced. Each call is answered by the policy it found, all of it.
type adapter struct {
	catalog *Catalog
	name    string
}

// Answer answers by the present policy.
func (a adapter) Answer(ctx context.Context, c *openai.Call) iter.Seq2[openai.Part, error] {
	return func(yield func(openai.Part, error) bool) {
		p, err := a.catalog.hold(a.name)
		if err != nil {
			yield(openai.Part{}, err)
			return
		}
		defer a.catalog.leave(p)
		m := &Model{Host: p.host, Adapter: p.number}
		for part, err := range m.Answer(ctx, c) {
			if !yield(part, err) {
				return
			}
		}
	}
}

// Tokenize is the base's.
func (a adapter) Tokenize(c *openai.Call) ([]int32, error) {
	p, err := a.catalog.hold(a.name)
	if err != nil {
		return nil, err
	}
	defer a.catalog.leave(p)
	return (&Model{Host: p.host}).Tokenize(c)
}

// Detokenize is the base's.
func (a adapter) Detokenize(ids []int32) (string, []string, error) {
	p, err := a.catalog.hold(a.name)
	if err != nil {
		return "", nil, err
	}
	defer a.catalog.leave(p)
	return (&Model{Host: p.host}).Detokenize(ids)
}

// hold finds the policy of a name and keeps it from being unloaded.
func (c *Catalog) hold(name string) (*policy, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.entries[name].policy
	if p == nil {
		return nil, fmt.Errorf("model %q: %w", name, openai.ErrNotFound)
	}
	p.calls++
	return p, nil
}

func (c *Catalog) leave(p *policy) {
	c.mu.Lock()
	p.calls--
	last := p.retired && p.calls == 0
	c.mu.Unlock()
	if last {
		p.host.Engine.Unload(p.number) // fails only where the engine has stopped
	}
}

// retire gives a policy back when nobody has it any more.
func (c *Catalog) retire(p *policy) {
	if p != nil {
		c.mu.Lock()
		p.retired = true
		p.calls++
		c.mu.Unlock()
		c.leave(p)
	}
}

const longestName = 256

// Load brings an adapter in from the source's root, or replaces one.
func (c *Catalog) Load(ctx context.Context, l openai.AdapterLoad) (generation int, err error) {
	if c.Source == nil || c.Source.Root == nil {
		return 0, fmt.Errorf("loading adapters: %w: the server was started without a directory for them (--adapter-root)", openai.ErrForbidden)
	}
	if strings.ContainsFunc(l.Name, unicode.IsControl) || len(l.Name) > longestName {
		return 0, refuse("lora_name", "want at most %d bytes without control characters", longestName)
	}
	c.loading.Lock() // one at a time, so that a generation is what its caller expects it to be
	defer c.loading.Unlock()
	if err := c.free(l); err != nil {
		return 0, err
	}
	a, err := c.Source.read(l.Path)
	if err != nil {
		return 0, refuse("lora_path", "%v", err)
	}
	number, err := c.Source.Host.Engine.Load(ctx, a)
	if err != nil {
		if errors.Is(err, engine.ErrStopped) || ctx.Err() != nil {
			return 0, err
		}
		return 0, refuse("lora_path", "%s: %v", l.Path, err)
	}
	return c.install(l.Name, l.Path, number), nil
}

// free reports why an adapter cannot be loaded under its name.
func (c *Catalog) free(l openai.AdapterLoad) error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e, there := c.entries[l.Name]
	present := c.generations[l.Name]
	switch {
	case there && e.policy == nil:
		return fmt.Errorf("lora_name %q: %w: it is the name of a model that is no adapter", l.Name, openai.ErrConflict)
	case there && !l.InPlace:
		return refuse("lora_name", "%q is loaded already: set load_inplace to replace it", l.Name)
	case l.Expected != nil && *l.Expected != present:
		return fmt.Errorf("expected_generation %d: %w: the present one of %q is %d", *l.Expected, openai.ErrConflict, l.Name, present)
	}
	return nil
}

// install puts a policy in the place of the present one.
func (c *Catalog) install(name, root string, number int) (generation int) {
	c.mu.Lock()
	old := c.entries[name]
	if c.entries == nil {
		c.entries = map[string]entry{}
	}
	if c.generations == nil {
		c.generations = map[string]int{}
	}
	c.generations[name]++
	generation = c.generations[name]
	s := c.Source
	c.entries[name] = entry{card: openai.Card{Name: name, Root: root, Parent: s.Parent, Context: s.Host.Context, Created: time.Now().Unix()},
		model: adapter{c, name}, policy: &policy{host: s.Host, number: number}}
	c.mu.Unlock()
	c.retire(old.policy)
	return generation
}

// AddAdapter brings in an adapter that was opened elsewhere.
func (c *Catalog) AddAdapter(ctx context.Context, name, root string, a engine.Adapter) error {
	c.loading.Lock()
	defer c.loading.Unlock()
	if _, taken := c.Find(name); taken {
		return fmt.Errorf("two models are named %q", name)
	}
	number, err := c.Source.Host.Engine.Load(ctx, a)
	if err != nil {
		return err
	}
	c.install(name, root, number)
	return nil
}

// Unload takes an adapter away. Calls that have begun finish on it.
func (c *Catalog) Unload(_ context.Context, name string) error {
	c.mu.Lock()
	e, there := c.entries[name]
	if there && e.policy != nil {
		delete(c.entries, name)
	}
	c.mu.Unlock()
	switch {
	case !there:
		return fmt.Errorf("adapter %q: %w", name, openai.ErrNotFound)
	case e.policy == nil:
		return refuse("lora_name", "%q is no adapter, and stays", name)
	}
	c.retire(e.policy)
	return nil
}

// The files of an adapter, and the most bytes each may have.
var adapterFiles = []struct {
	name string
	most int64
}{{"adapter_config.json", 1 << 20}, {"adapter_model.safetensors", 8 << 30}}

// read opens an adapter below the root. Its files are copied first: what changes them while they are read cannot
// change what is loaded, and what is not below the root is not reached, by symbolic links either.
func (s *Source) read(path string) (a engine.Adapter, err error) {
	rel := path
	if filepath.IsAbs(path) {
		if rel, err = filepath.Rel(s.Root.Name(), path); err != nil {
			return a, err
		}
	}
	if !filepath.IsLocal(rel) {
		return a, fmt.Errorf("%q is outside the directory of adapters", path)
	}
	dir, err := os.MkdirTemp("", "adapter-")
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, f := range adapterFiles {
		if err := s.copy(filepath.Join(rel, f.name), filepath.Join(dir, f.name), f.most); err != nil {
			return a, fmt.Errorf("%q: %w", path, err)
		}
	}
	if a, err = s.Open(dir); err != nil {
		return a, errors.New(strings.ReplaceAll(err.Error(), dir, path))
	}
	return a, nil
}

// copy copies a file that does not change meanwhile.
func (s *Source) copy(from, to string, most int64) error {
	in, err := s.Root.Open(from)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return fmt.Errorf("%s: %w", filepath.Base(from), err)
	}
	defer in.Close()
	before, err := in.Stat()
	switch {
	case err != nil:
		return err
	case !before.Mode().IsRegular():
		return fmt.Errorf("%s is no regular file", filepath.Base(from))
	case before.Size() > most:
		return fmt.Errorf("%s has %d bytes, more than %d", filepath.Base(from), before.Size(), most)
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	n, err := io.Copy(out, io.LimitReader(in, before.Size()+1))
	if err = cmp.Or(err, out.Close()); err != nil {
		return err
	}
	after, err := s.Root.Stat(from)
	if err != nil || n != before.Size() || !os.SameFile(before, after) || after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) {
		return fmt.Errorf("%s changed while it was read: nothing was loaded; write it elsewhere and rename it", filepath.Base(from))
	}
	return nil
}
