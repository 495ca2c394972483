package weights

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
)

// GGUF is an open GGUF file (version 2 or 3): metadata and tensors under the file's own names.
// Model, from Open, gives its tensors Hugging Face names and row order. It is safe for concurrent use.
type GGUF struct {
	file    *mapping
	meta    map[string]metadatum
	tensors map[string]Tensor
}

// OpenGGUF maps a GGUF file and checks its whole header. A file without tensors, which holds a
// vocabulary alone, is fine here.
func OpenGGUF(path string) (*GGUF, error) {
	file, err := mapFile(path)
	if err != nil {
		return nil, fmt.Errorf("gguf: %w", err)
	}
	g, err := parseGGUF(file.data)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("gguf: %s: %w", path, err)
	}
	g.file = file
	return g, nil
}

// Tensor returns the tensor of that name in the file, as stored.
func (g *GGUF) Tensor(name string) (Tensor, error) {
	t, ok := g.tensors[name]
	if !ok {
		return Tensor{}, fmt.Errorf("gguf: there is no tensor %q", name)
	}
	return t, nil
}

// Names returns the names of all tensors in the file, sorted.
func (g *GGUF) Names() []string { return slices.Sorted(maps.Keys(g.tensors)) }

// Keys returns the names of all metadata, sorted.
func (g *GGUF) Keys() []string { return slices.Sorted(maps.Keys(g.meta)) }

// Close unmaps the file; Data of its tensors must not be used any more.
func (g *GGUF) Close() error { return g.file.Close() }

// The types of metadata, as the file numbers them.
const (
	ggufU8 = iota
	ggufI8
	ggufU16
	ggufI16
	ggufU32
	ggufI32
	ggufF32
	ggufBool
	ggufString
	ggufArray
	ggufU64
	ggufI64
	ggufF64
)

// scalarSize holds the bytes of each metadata type, 0 for strings and arrays.
var scalarSize = [...]int{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8}

// A metadatum is one value of the metadata, or an array of n: checked, not yet decoded. Decoding on
// demand keeps a file from asking for more memory than it has bytes.
type metadatum struct {
	kind  uint32
	array bool
	n     int
	data  []byte
}

// ggmlTypes are the tensor types by number, for what is read here.
var ggmlTypes = map[uint32]DType{0: F32, 1: F16, 2: Q4_0, 3: Q4_1, 6: Q5_0, 7: Q5_1, 8: Q8_0, 10: Q2_K, 11: Q3_K, 12: Q4_K, 13: Q5_K,
	14: Q6_K, 30: BF16}

// ggmlNames are the other types' names, for the error.
var ggmlNames = map[uint32]string{
	9: "Q8_1", 15: "Q8_K",
	16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS",
	24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}

// A reader walks over bytes; the first failure is kept and everything after it is zero.
type reader struct {
	b   []byte
	at  int
	err error
}

func (r *reader) take(n uint64) []byte {
	if r.err == nil && n > uint64(len(r.b)-r.at) {
		r.err = fmt.Errorf("truncated: %d bytes needed at byte %d of %d", n, r.at, len(r.b))
	}
	if r.err != nil {
		return nil
	}
	b := r.b[r.at : r.at+int(n)]
	r.at += int(n)
	return b
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// count is a number of things of at least size bytes each, so that the rest of the file bounds it.
func (r *reader) count(what string, size int) int {
	n := r.u64()
	if r.err == nil && n > uint64(len(r.b)-r.at)/uint64(size) {
		r.err = fmt.Errorf("truncated: %d %s do not fit in the %d bytes from byte %d", n, what, len(r.b)-r.at, r.at)
	}
	if r.err != nil {
		return 0
	}
	return int(n)
}

func (r *reader) text() string { return string(r.take(r.u64())) }

// parseGGUF reads a whole file: magic, version, two counts, metadata, tensor descriptions, then the
// aligned tensors.
func parseGGUF(b []byte) (*GGUF, error) {
	r := &reader{b: b}
	if magic := r.take(4); string(magic) != "GGUF" {
		return nil, errors.New("not a GGUF file: it does not start with GGUF")
	}
	switch v := r.u32(); {
	case r.err != nil:
		return nil, r.err
	case v&0xffff == 0:
		return nil, errors.New("a big-endian GGUF file is not supported")
	case v != 2 && v != 3:
		return nil, fmt.Errorf("GGUF version %d is not supported (2 and 3 are)", v)
	}
	tensors := r.count("tensors", 24)
	keys := r.count("metadata", 13)
	g := &GGUF{meta: map[string]metadatum{}, tensors: map[string]Tensor{}}
	for range keys {
		if err := g.readMeta(r); err != nil {
			return nil, err
		}
	}
	if n, ok := g.integer("split.count"); ok && n > 1 {
		return nil, fmt.Errorf("one of %d parts of a split GGUF: join them first (llama-gguf-split --merge)", n)
	}
	return g, g.readTensors(r, tensors)
}

func (g *GGUF) readMeta(r *reader) error {
	key := r.text()
	m := metadatum{kind: r.u32(), n: 1}
	if r.err == nil && m.kind == ggufArray {
		m.array, m.kind = true, r.u32()
		m.n = r.count("elements of "+key, max(1, elementSize(m.kind)))
	}
	start := r.at
	switch {
	case r.err != nil:
	case m.kind == ggufArray:
		r.err = errors.New("an array of arrays is not supported")
	case m.kind == ggufString:
		for range m.n {
			r.take(r.u64())
		}
	case int(m.kind) >= len(scalarSize):
		r.err = fmt.Errorf("unknown type %d", m.kind)
	default:
		r.take(uint64(m.n) * uint64(scalarSize[m.kind]))
	}
	if r.err != nil {
		return fmt.Errorf("metadata %q: %w", key, r.err)
	}
	if _, twice := g.meta[key]; twice {
		return fmt.Errorf("metadata %q occurs twice", key)
	}
	m.data = r.b[start:r.at]
	g.meta[key] = m
	return nil
}

// elementSize is the least number of bytes of an array's element.
func elementSize(kind uint32) int {
	switch {
	case kind == ggufString:
		return 8
	case int(kind) < len(scalarSize):
		return scalarSize[kind]
	}
	return 1
}

// readTensors reads n descriptions and cuts the tensors' bytes out of the rest of the file.
func (g *GGUF) readTensors(r *reader, n int) error {
	align := 32
	if a, ok := g.integer("general.alignment"); ok {
		if a < 1 || a > 1<<20 || a&(a-1) != 0 {
			return fmt.Errorf("general.alignment %d is not a power of two", a)
		}
		align = a
	}
	list := make([]Tensor, 0, min(n, 1<<16))
	offsets := make([]uint64, 0, min(n, 1<<16))
	for range n {
		t, offset, err := readTensorInfo(r)
		if err != nil {
			return err
		}
		list, offsets = append(list, t), append(offsets, offset)
	}
	if r.err != nil {
		return r.err
	}
	start := (r.at + align - 1) / align * align
	var body []byte
	if start < len(r.b) {
		body = r.b[start:]
	}
	var spans []span
	for i, t := range list {
		need, ok := size(t.Type, t.Shape)
		if !ok {
			return fmt.Errorf("tensor %q: impossible shape %v for %v", t.Name, t.Shape, t.Type)
		}
		if offsets[i]%uint64(align) != 0 {
			return fmt.Errorf("tensor %q: offset %d is not aligned to %d", t.Name, offsets[i], align)
		}
		if offsets[i] > uint64(len(body)) || need > len(body)-int(offsets[i]) {
			return fmt.Errorf("truncated: tensor %q takes %d bytes at offset %d, of %d bytes of tensors", t.Name, need, offsets[i], len(body))
		}
		at := int(offsets[i])
		t.Data = body[at : at+need : at+need]
		if _, twice := g.tensors[t.Name]; twice {
			return fmt.Errorf("tensor %q occurs twice", t.Name)
		}
		g.tensors[t.Name] = t
		spans = append(spans, span{t.Name, at, at + need})
	}
	return disjoint(spans)
}

func readTensorInfo(r *reader) (t Tensor, offset uint64, err error) {
	t.Name = r.text()
	dims := r.u32()
	if r.err == nil && (dims < 1 || dims > 4) {
		return t, 0, fmt.Errorf("tensor %q: %d dimensions", t.Name, dims)
	}
	for range dims {
		d := r.u64()
		if d > math.MaxInt32*32 {
			return t, 0, fmt.Errorf("tensor %q: a dimension of %d", t.Name, d)
		}
		t.Shape = append(t.Shape, int(d))
	}
	slices.Reverse(t.Shape) // the file has the fastest first
	kind := r.u32()
	offset = r.u64()
	if r.err != nil {
		return t, 0, fmt.Errorf("tensor %q: %w", t.Name, r.err)
	}
	var ok bool
	if t.Type, ok = ggmlTypes[kind]; !ok {
		name := ggmlNames[kind]
		if name == "" {
			name = fmt.Sprintf("number %d", kind)
		}
		return t, 0, fmt.Errorf("tensor %q: type %s is not supported (F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 and Q2_K to Q6_K are)", t.Name, name)
	}
	return t, offset, nil
}

// disjoint checks that no two spans overlap.
func disjoint(spans []span) error {
	slices.SortFunc(spans, func(a, b span) int { return a.begin - b.begin })
	for i := 1; i < len(spans); i++ {
		if a, b := spans[i-1], spans[i]; b.begin < a.end {
			return fmt.Errorf("tensors %q and %q overlap", a.name, b.name)
		}
	}
	return nil
}
