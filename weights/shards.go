package weights

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	oneFile   = "model.safetensors"
	indexFile = "model.safetensors.index.json"
)

// openWeights opens the model's safetensors: one file, or those that an index names.
func (m *Model) openWeights() error {
	m.tensors = map[string]Tensor{}
	if _, err := os.Stat(filepath.Join(m.Path, oneFile)); err == nil {
		_, err := m.addFile(oneFile)
		return err
	}
	b, err := readJSON(filepath.Join(m.Path, indexFile))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("neither %s nor %s (weights in other formats are not read)", oneFile, indexFile)
	}
	if err != nil {
		return err
	}
	place, err := parseIndex(b)
	if err != nil {
		return fmt.Errorf("%s: %w", indexFile, err)
	}
	return m.addShards(place)
}

// addShards opens the files of an index, which gives each tensor's file. Index and files must agree:
// one of them is stale otherwise.
func (m *Model) addShards(place map[string]string) error {
	files := map[string]bool{}
	for _, file := range place {
		files[file] = true
	}
	shards := map[string]*Safetensors{}
	for _, file := range slices.Sorted(maps.Keys(files)) {
		s, err := m.addFile(file)
		if err != nil {
			return err
		}
		shards[file] = s
	}
	for file, s := range shards {
		for _, name := range s.Names() {
			if place[name] != file {
				return fmt.Errorf("%s holds tensor %q, which %s does not place there", file, name, indexFile)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(place)) {
		if _, ok := m.tensors[name]; !ok {
			return fmt.Errorf("%s places tensor %q in %s, which lacks it", indexFile, name, place[name])
		}
	}
	return nil
}

// addFile opens one safetensors file of the model's directory.
func (m *Model) addFile(name string) (*Safetensors, error) {
	s, err := OpenSafetensors(filepath.Join(m.Path, name))
	if err != nil {
		return nil, err
	}
	m.files = append(m.files, s)
	for name, t := range s.tensors {
		m.tensors[name] = t
	}
	return s, nil
}

// parseIndex returns the file of each tensor. A file must stand in the index's own directory.
func parseIndex(b []byte) (map[string]string, error) {
	o, err := parseObject(b)
	if err != nil {
		return nil, err
	}
	if !o.has("weight_map") {
		return nil, errors.New("no weight_map")
	}
	list, err := members(o.at["weight_map"])
	if err != nil {
		return nil, fmt.Errorf("weight_map: %w", err)
	}
	place := make(map[string]string, len(list))
	for _, m := range list {
		var file string
		if json.Unmarshal(m.value, &file) != nil || strings.ContainsAny(file, `\/`) || !filepath.IsLocal(file) || file == "." {
			return nil, fmt.Errorf("weight_map: %q: %s is not the name of a file beside the index", m.name, short(m.value))
		}
		place[m.name] = file
	}
	return place, nil
}
