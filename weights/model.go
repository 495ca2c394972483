package weights

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A Model is an open model: configuration and tensors. It is safe for concurrent use.
type Model struct {
	Config     Config
	Generation Generation
	Path       string // as given to Open

	tensors  map[string]Tensor // by Hugging Face names, as stored
	permuted map[string]int    // heads of the tensors whose rows GGUF permutes
	vocab    *Vocabulary
	files    []io.Closer
}

// Open opens a directory in the Hugging Face layout (config.json, generation_config.json if there is
// one, and model.safetensors or shards with model.safetensors.index.json) or a .gguf file. It checks
// that just the tensors of the configuration are there, with its shapes.
func Open(path string) (*Model, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	m := &Model{Path: path}
	if info.IsDir() {
		err = m.alternative(m.openDir())
	} else {
		err = m.openGGUF()
	}
	if err == nil {
		err = m.check()
	}
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("model: %s: %w", path, err)
	}
	return m, nil
}

func (m *Model) openDir() error {
	b, err := readJSON(filepath.Join(m.Path, "config.json"))
	if err != nil {
		return err
	}
	if m.Config, err = ParseConfig(b); err != nil {
		return fmt.Errorf("config.json: %w", err)
	}
	m.Generation = Generation{BOS: m.Config.BOS, PAD: m.Config.PAD}
	b, err = readJSON(filepath.Join(m.Path, "generation_config.json"))
	switch {
	case err == nil:
		if m.Generation, err = ParseGeneration(b); err != nil {
			return fmt.Errorf("generation_config.json: %w", err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if len(m.Generation.EOS) == 0 {
		m.Generation.EOS = slices.Clone(m.Config.EOS)
	}
	return m.openWeights()
}

// alternative adds to why a folder cannot be opened that a file in it might be.
func (m *Model) alternative(err error) error {
	if err == nil || len(m.tensors) > 0 {
		return err
	}
	if there, _ := filepath.Glob(filepath.Join(m.Path, "*.gguf")); len(there) > 0 {
		return fmt.Errorf("%w; %s is there: to open it, give the file, not the folder", err, filepath.Base(there[0]))
	}
	return err
}

func (m *Model) openGGUF() error {
	g, err := OpenGGUF(m.Path)
	if err != nil {
		return err
	}
	m.files = append(m.files, g)
	if m.Config, err = g.Config(); err != nil {
		return err
	}
	m.vocab = g.Vocabulary()
	m.Generation = Generation{BOS: m.Config.BOS, PAD: m.Config.PAD, EOS: slices.Clone(m.Config.EOS)}
	m.tensors, m.permuted, err = g.named(m.Config)
	return err
}

// check compares the tensors with the configuration: each with its shape, and no others, because
// one that is not read (a bias, a norm, an expert) would change the result.
func (m *Model) check() error {
	known := map[string]bool{}
	for _, p := range m.Config.Parameters() {
		known[p.Name] = true
		t, ok := m.tensors[p.Name]
		if !ok {
			return fmt.Errorf("tensor %q is missing", p.Name)
		}
		if !slices.Equal(t.Shape, p.Shape) {
			return fmt.Errorf("tensor %q has shape %v, the configuration says %v", p.Name, t.Shape, p.Shape)
		}
		if t.Type > Q6_K {
			return fmt.Errorf("tensor %q: weights of type %v are not supported", p.Name, t.Type)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.tensors)) {
		switch {
		case known[name] || strings.HasSuffix(name, ".rotary_emb.inv_freq"): // old transformers stored that
		case name == "lm_head.weight" && m.Config.TieEmbeddings:
			if !same(m.tensors[name], m.tensors["model.embed_tokens.weight"]) {
				return errors.New("tie_word_embeddings is true, but lm_head.weight differs from the embedding")
			}
		default:
			return fmt.Errorf("tensor %q belongs to no %s model of this configuration", name, m.Config.Architecture)
		}
	}
	return nil
}

// same reports whether two tensors hold the same bytes.
func same(a, b Tensor) bool {
	return a.Type == b.Type && slices.Equal(a.Shape, b.Shape) && bytes.Equal(a.Data, b.Data)
}

// Tensor returns a parameter by its Hugging Face name. Data is the mapped file, but for q_proj and
// k_proj of a Llama GGUF, whose rows are copied into Hugging Face's order. Quantised tensors come as
// stored: Type says so and Float32 decodes them.
func (m *Model) Tensor(name string) (Tensor, error) {
	t, ok := m.tensors[name]
	if !ok {
		return Tensor{}, fmt.Errorf("model: %s: there is no tensor %q", m.Path, name)
	}
	if heads := m.permuted[name]; heads > 0 {
		t = halves(t, heads)
	}
	return t, nil
}

// Names returns the names of all parameters, sorted.
func (m *Model) Names() []string {
	var names []string
	for _, p := range m.Config.Parameters() {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return names
}

// Vocabulary returns the tokenizer in a GGUF file's metadata; nil for a directory, whose tokenizer
// is in files of its own.
func (m *Model) Vocabulary() *Vocabulary { return m.vocab }

// Close unmaps the files; Data of the model's tensors must not be used any more.
func (m *Model) Close() error {
	var err error
	for _, f := range m.files {
		err = errors.Join(err, f.Close())
	}
	return err
}
