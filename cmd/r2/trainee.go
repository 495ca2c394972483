package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/tokenizer"
	"github.com/r2-reasoner/r2/train"
	"github.com/r2-reasoner/r2/weights"
)

// trainFlags say what to train: an adapter over a base, or all its weights.
type trainFlags struct {
	model, lora, init string
	full              bool
	masks             bool
	deviceFlags
}

// A trainee is what a run trains, opened.
type trainee struct {
	be     kernels.Backend
	base   *weights.Model // nil for a new model
	config weights.Config
	dec    *model.Decoder
	ad     *model.Adapter // nil: all weights
	tok    *tokenizer.Tokenizer
	files  string // where config and tokenizer files are
	dtype  string
	masks  bool
	eos    []int32
}

// open loads a base to train an adapter over it, or all of it.
func (f *trainFlags) open(o outputFlags) (*trainee, error) {
	be, err := f.deviceFlags.open()
	if err != nil {
		return nil, err
	}
	opts, err := f.options()
	if err != nil {
		return nil, err
	}
	base, err := weights.Open(f.model)
	if err != nil {
		return nil, err
	}
	t := &trainee{be: be, base: base, config: base.Config, files: f.model, dtype: f.DType, masks: f.masks}
	if t.tok, err = openTokenizer(base); err != nil {
		return nil, err
	}
	for _, id := range base.Generation.EOS {
		t.eos = append(t.eos, int32(id))
	}
	opts.Train = f.full
	if err := weightsFit(be, base, opts); err != nil {
		return nil, err
	}
	if t.dec, err = f.load(be, base, opts); err != nil {
		return nil, err
	}
	if f.full {
		return t, nil
	}
	a, err := f.adapter(base.Config)
	if err != nil {
		return nil, err
	}
	t.ad, err = t.dec.LoadAdapter(a)
	return t, err
}

// adapter is the one to begin from.
func (f *trainFlags) adapter(c weights.Config) (*weights.Adapter, error) {
	if f.init != "" {
		a, err := weights.OpenAdapter(f.init)
		if err == nil && a.Config.Dropout != 0 {
			err = fmt.Errorf("%s: lora_dropout %v: training with dropout is not supported; set it to 0", f.init, a.Config.Dropout)
		}
		return a, err
	}
	cfg, err := parseLoRA(f.lora)
	if err != nil {
		return nil, err
	}
	cfg.Base = filepath.Base(f.model)
	return model.RandomAdapter(c, cfg, f.Seed)
}

// openNew makes a new model of random weights, to train all of them.
func openNew(f deviceFlags, seed uint64, config, tokens string) (*trainee, error) {
	be, err := f.open()
	if err != nil {
		return nil, err
	}
	opts, err := f.options()
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(config)
	if err != nil {
		return nil, err
	}
	t := &trainee{be: be, dtype: f.DType, files: filepath.Dir(config)}
	if t.config, err = weights.ParseConfig(b); err != nil {
		return nil, fmt.Errorf("%s: %w", config, err)
	}
	if tokens != "" {
		if t.tok, err = tokenizer.Open(tokens); err != nil {
			return nil, err
		}
		t.files = tokens
		if t.tok.Size() > t.config.Vocab {
			return nil, fmt.Errorf("%s has %d ids, %s a vocabulary of %d", tokens, t.tok.Size(), config, t.config.Vocab)
		}
	}
	for _, id := range t.config.EOS {
		t.eos = append(t.eos, int32(id))
	}
	src := &model.Random{Config: t.config, Seed: seed, Std: 0.02}
	t.dec, err = model.Load(be, t.config, src, model.Options{Train: true, Acts: opts.Acts})
	return t, err
}

func (t *trainee) vocabulary() *vocabulary {
	return &vocabulary{text: t.tok, size: t.config.Vocab, eos: t.eos}
}

func (t *trainee) context() int { return t.dec.Context }

// learner makes the learner for sequences of at most longest tokens.
func (t *trainee) learner(longest, micro int, o train.Optimizer, out outputFlags) (*train.Learner, error) {
	size := trainSize(longest, micro)
	size.Masks = t.masks
	size, err := plan(out, t.dec, t.ad, size)
	if err != nil {
		return nil, err
	}
	return train.New(t.dec, t.ad, nil, size, o)
}

// export writes the result of a run: its adapter, or a whole model with configuration and tokenizer.
func (t *trainee) export(run *runDir, l *train.Learner) (string, error) {
	if t.ad != nil {
		path := run.file("adapter")
		return path, l.Export(path, weights.F32)
	}
	path := run.file("model")
	dt := exportType(t.dtype, t.config)
	cfg := t.config
	cfg.DType = map[weights.DType]string{weights.F32: "float32", weights.BF16: "bfloat16"}[dt]
	return path, weights.WriteDir(path, func(tmp string) error {
		if err := l.Export(tmp, dt); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(tmp, "config.json"), cfg.JSON(), 0o666); err != nil {
			return err
		}
		return copyFiles(t.files, tmp, "generation_config.json", "tokenizer.json", "tokenizer_config.json",
			"chat_template.jinja", "special_tokens_map.json")
	})
}

// Close gives the base's files back.
func (t *trainee) Close() error {
	if t.base == nil {
		return nil
	}
	return t.base.Close()
}

// openTokenizer opens the tokenizer of a model: in files beside it, or in a GGUF's metadata. A folder
// without tokenizer.json has none.
func openTokenizer(m *weights.Model) (*tokenizer.Tokenizer, error) {
	if v := m.Vocabulary(); v != nil {
		return ggufTokenizer(v, m.Path)
	}
	if _, err := os.Stat(filepath.Join(m.Path, "tokenizer.json")); os.IsNotExist(err) {
		return nil, nil
	}
	return tokenizer.Open(m.Path)
}

// ggufTokenizer makes the tokenizer of a GGUF's metadata.
func ggufTokenizer(v *weights.Vocabulary, path string) (*tokenizer.Tokenizer, error) {
	if v == nil {
		return nil, fmt.Errorf("%s has no tokenizer in its metadata", path)
	}
	t, err := tokenizer.FromGGUF(tokenizer.GGUF{Model: v.Model, Pre: v.Pre, Tokens: v.Tokens, Types: v.Types, Merges: v.Merges,
		BOS: v.BOS, EOS: v.EOS, AddBOS: v.AddBOS, AddEOS: v.AddEOS, Template: v.ChatTemplate})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}
