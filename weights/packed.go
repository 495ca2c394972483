package weights

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// A Packed is a file of matrices as a device packed them, mapped so that the next start need not pack them
// again. It is written whole or not at all, as safetensors of 64-bit words that begin at a cache line, and counts only under the key it was
// written with and while its bytes are those that were written.
type Packed struct {
	path, key string
	file      *Safetensors // nil: there is nothing to map
	added     []Tensor
	formats   map[string]string // of added
}

// Packed opens the file at path for the matrices of m, with which it is closed. One that is not there, was
// written under another key or is damaged counts as empty: Save then replaces it.
func (m *Model) Packed(path, key string) *Packed {
	p := openPacked(path, key)
	m.files = append(m.files, p)
	return p
}

func openPacked(path, key string) *Packed {
	p := &Packed{path: path, key: key, formats: map[string]string{}}
	s, err := OpenSafetensors(path)
	if err != nil {
		return p
	}
	var all []Tensor
	for _, name := range s.Names() {
		all = append(all, s.tensors[name])
	}
	if s.Metadata["key"] != key || s.Metadata["check"] != check(all) {
		s.Close()
		return p
	}
	p.file = s
	return p
}

// Matrix returns what was kept under a name. data is the mapped file: it is read-only, and gone after Close.
func (p *Packed) Matrix(name string) (format string, data []byte, ok bool) {
	if p.file == nil {
		return "", nil, false
	}
	t, ok := p.file.tensors[name]
	return p.file.Metadata["format of "+name], t.Data, ok
}

// Add keeps a matrix for Save, which reads data: whole words of 64 bits.
func (p *Packed) Add(name, format string, data []byte) {
	p.added = append(p.added, Tensor{Name: name, Type: I64, Shape: []int{len(data) / 8}, Data: data})
	p.formats["format of "+name] = format
}

// Save writes what was added, if anything was, in the place of what the file holds.
func (p *Packed) Save() error {
	if len(p.added) == 0 {
		return nil
	}
	slices.SortFunc(p.added, func(a, b Tensor) int { return strings.Compare(a.Name, b.Name) })
	p.formats["key"], p.formats["check"] = p.key, check(p.added)
	err := WriteFile(p.path, func(w io.Writer) error { return encodeAligned(w, p.added, p.formats, 64) })
	p.added = nil
	if err != nil {
		return fmt.Errorf("packed matrices: %w", err)
	}
	return nil
}

// Close unmaps the file.
func (p *Packed) Close() error {
	if p.file == nil {
		return nil
	}
	return p.file.Close()
}

// Sum is a hash of the model's tensors: their names, types, shapes and bytes.
func (m *Model) Sum() string {
	var all []Tensor
	var pieces [][]byte
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(m.tensors)) {
		t := m.tensors[name]
		fmt.Fprintf(h, "%q %v %v %d\n", name, t.Type, t.Shape, m.permuted[name])
		all = append(all, t)
	}
	const piece = 8 << 20 // so that every processor has some
	for _, t := range all {
		pieces = slices.AppendSeq(pieces, slices.Chunk(t.Data, piece))
	}
	sums := make([][sha256.Size]byte, len(pieces))
	each(len(pieces), func(i int) { sums[i] = sha256.Sum256(pieces[i]) })
	for _, s := range sums {
		h.Write(s[:])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// check is the check sums of tensors in order.
func check(ts []Tensor) string {
	sums := make([]uint32, len(ts))
	table := crc32.MakeTable(crc32.Castagnoli)
	each(len(ts), func(i int) { sums[i] = crc32.Checksum(ts[i].Data, table) })
	var b []byte
	for _, s := range sums {
		b = binary.BigEndian.AppendUint32(b, s)
	}
	return hex.EncodeToString(b)
}

// each calls f for 0 … n-1 on all processors.
func each(n int, f func(i int)) {
	var wg sync.WaitGroup
	procs := runtime.GOMAXPROCS(0)
	for p := range procs {
		wg.Go(func() {
			for i := p; i < n; i += procs {
				f(i)
			}
		})
	}
	wg.Wait()
}
