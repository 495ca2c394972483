package train

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/weights"
)

// A State is what a checkpoint says of itself: how far training had come, and the hashes of the
// files beside it.
type State struct {
	Step   int               `json:"step"`
	Files  map[string]string `json:"sha256"`
	Config json.RawMessage   `json:"config,omitempty"`
}

const (
	optimizerFile = "optimizer.safetensors"
	stateFile     = "state.json"
)

// Save writes a checkpoint to root/<step>, whole or not at all, and removes all before it but the newest
// keep and those of the steps in also. Later ones, which a resumed run will come to again, stay.
// An adapter is written in PEFT's layout; all weights as model.safetensors in float32.
func (l *Learner) Save(root string, keep int, also ...int) error {
	if err := l.dec.Backend().Attach(); err != nil {
		return err
	}
	defer l.dec.Backend().Detach()
	dir := filepath.Join(root, strconv.Itoa(l.Step))
	if err := os.MkdirAll(root, 0o777); err != nil {
		return err
	}
	err := weights.WriteDir(dir, func(tmp string) error {
		if err := l.write(tmp); err != nil {
			return err
		}
		st := State{Step: l.Step, Files: map[string]string{}}
		files, err := os.ReadDir(tmp)
		if err != nil {
			return err
		}
		for _, f := range files {
			if st.Files[f.Name()], err = hash(filepath.Join(tmp, f.Name())); err != nil {
				return err
			}
		}
		b, err := json.MarshalIndent(st, "", "  ")
		if err != nil {
			return err
		}
		return weights.WriteFile(filepath.Join(tmp, stateFile), func(w io.Writer) error {
			_, err := w.Write(append(b, '\n'))
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("checkpoint %s: %w", dir, err)
	}
	return prune(root, l.Step, keep, also)
}

// write puts the files of a checkpoint into dir.
func (l *Learner) write(dir string) error {
	if l.ad != nil {
		a, err := l.dec.SaveAdapter(l.ad)
		if err != nil {
			return err
		}
		if err := a.WriteFiles(dir); err != nil {
			return err
		}
	} else if err := l.writeWeights(dir, weights.F32); err != nil {
		return err
	}
	var ts []weights.Tensor
	for i, p := range l.params {
		for _, s := range []struct {
			name string
			t    kernels.Tensor
		}{{"m.", l.m[i]}, {"v.", l.v[i]}} {
			b := make([]byte, 4*s.t.Rows*s.t.Cols)
			if err := l.dec.Backend().Read(b, s.t); err != nil {
				return err
			}
			ts = append(ts, weights.Tensor{Name: s.name + p.Name, Type: weights.F32, Shape: []int{s.t.Rows, s.t.Cols}, Data: b})
		}
	}
	return weights.WriteSafetensors(filepath.Join(dir, optimizerFile), ts, nil)
}

func (l *Learner) writeWeights(dir string, dt weights.DType) error {
	ts, err := l.dec.SaveWeights(dt)
	if err != nil {
		return err
	}
	return weights.WriteSafetensors(filepath.Join(dir, "model.safetensors"), ts, map[string]string{"format": "pt"})
}

// Export writes what was trained: an adapter in PEFT's layout, or model.safetensors in dt.
func (l *Learner) Export(dir string, dt weights.DType) error {
	if err := l.dec.Backend().Attach(); err != nil {
		return err
	}
	defer l.dec.Backend().Detach()
	if l.ad == nil {
		return l.writeWeights(dir, dt)
	}
	a, err := l.dec.SaveAdapter(l.ad)
	if err != nil {
		return err
	}
	return weights.WriteAdapter(dir, a)
}

// Checkpoints lists the steps there are checkpoints of below root, oldest first.
func Checkpoints(root string) ([]int, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var steps []int
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && e.IsDir() {
			steps = append(steps, n)
		}
	}
	slices.Sort(steps)
	return steps, err
}

func prune(root string, last, keep int, also []int) error {
	steps, err := Checkpoints(root)
	if err != nil || keep <= 0 {
		return err
	}
	steps = slices.DeleteFunc(steps, func(s int) bool { return s > last })
	for _, s := range steps[:max(0, len(steps)-keep)] {
		if slices.Contains(also, s) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(root, strconv.Itoa(s))); err != nil {
			return err
		}
	}
	return nil
}

// Verify checks a checkpoint's files against their hashes.
func Verify(dir string) (*State, error) {
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return nil, err
	}
	st := &State{}
	if err := json.Unmarshal(b, st); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, stateFile), err)
	}
	if _, ok := st.Files[optimizerFile]; !ok {
		return nil, fmt.Errorf("%s is damaged: it does not list %s", filepath.Join(dir, stateFile), optimizerFile)
	}
	for name, want := range st.Files {
		got, err := hash(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		if got != want {
			return nil, fmt.Errorf("%s is damaged: its hash is not the one in %s", filepath.Join(dir, name), stateFile)
		}
	}
	return st, nil
}

// Resume loads the newest checkpoint below root whose files are whole, and reports the ones it had to
// pass over. Without any it leaves the learner at step 0.
func (l *Learner) Resume(root string) (passed []error, err error) {
	if err := l.dec.Backend().Attach(); err != nil {
		return nil, err
	}
	defer l.dec.Backend().Detach()
	steps, err := Checkpoints(root)
	if err != nil {
		return nil, err
	}
	for _, s := range slices.Backward(steps) {
		dir := filepath.Join(root, strconv.Itoa(s))
		st, err := Verify(dir)
		if err != nil {
			passed = append(passed, err)
			continue
		}
		return passed, l.load(dir, st)
	}
	return passed, nil
}

// load replaces the learner's tensors by a checkpoint's.
func (l *Learner) load(dir string, st *State) error {
	opt, err := weights.OpenSafetensors(filepath.Join(dir, optimizerFile))
	if err != nil {
		return err
	}
	defer opt.Close()
	for i, p := range l.params {
		for name, t := range map[string]kernels.Tensor{"m." + p.Name: l.m[i], "v." + p.Name: l.v[i]} {
			if err := l.fill(t, opt, name); err != nil {
				return fmt.Errorf("%s: %w", dir, err)
			}
		}
	}
	if l.ad != nil {
		a, err := weights.OpenAdapter(dir)
		if err != nil {
			return err
		}
		err = l.dec.SetAdapter(l.ad, a)
		l.Step = st.Step
		return err
	}
	w, err := weights.OpenSafetensors(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		return err
	}
	defer w.Close()
	l.Step = st.Step
	return l.dec.SetWeights(w)
}

func (l *Learner) fill(t kernels.Tensor, f *weights.Safetensors, name string) error {
	w, err := f.Tensor(name)
	if err != nil {
		return err
	}
	if len(w.Shape) != 2 || w.Shape[0] != t.Rows || w.Shape[1] != t.Cols || w.Type != weights.F32 {
		return fmt.Errorf("tensor %s is %v %v, this run needs %d × %d F32", name, w.Type, w.Shape, t.Rows, t.Cols)
	}
	l.dec.Backend().Write(t, w.Data)
	return nil
}

func hash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func float32At(b []byte, i int) float32 {
	return math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
}
