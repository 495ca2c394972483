package weights

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// maxHeader is the largest header that the safetensors format allows.
const maxHeader = 100 << 20

// Safetensors is an open safetensors file. It is safe for concurrent use.
type Safetensors struct {
	Metadata map[string]string // the header's __metadata__; never nil
	file     *mapping
	tensors  map[string]Tensor
}

// OpenSafetensors maps a safetensors file and checks its whole header: each tensor's type, shape and
// bytes must agree, and the tensors must fill the file without gap or overlap. Types: F64, F32, F16,
// BF16 and I64.
func OpenSafetensors(path string) (*Safetensors, error) {
	file, err := mapFile(path)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	s, err := parseSafetensors(file.data)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("safetensors: %s: %w", path, err)
	}
	s.file = file
	return s, nil
}

// Tensor returns the tensor of that name. Its Data is the mapped file.
func (s *Safetensors) Tensor(name string) (Tensor, error) {
	t, ok := s.tensors[name]
	if !ok {
		return Tensor{}, fmt.Errorf("safetensors: there is no tensor %q", name)
	}
	return t, nil
}

// Names returns the names of all tensors, sorted.
func (s *Safetensors) Names() []string { return slices.Sorted(maps.Keys(s.tensors)) }

// Close unmaps the file; Data of its tensors must not be used any more.
func (s *Safetensors) Close() error { return s.file.Close() }

// parseSafetensors reads a whole file: eight bytes with the header's length, the header (JSON), and
// the tensors' bytes.
func parseSafetensors(b []byte) (*Safetensors, error) {
	if len(b) < 8 {
		return nil, fmt.Errorf("truncated: %d bytes, and the length of the header alone takes 8", len(b))
	}
	n := binary.LittleEndian.Uint64(b)
	if n > maxHeader {
		return nil, fmt.Errorf("a header of %d bytes; the format allows %d: not a safetensors file?", n, maxHeader)
	}
	if n > uint64(len(b)-8) {
		return nil, fmt.Errorf("truncated: a header of %d bytes in a file of %d", n, len(b))
	}
	list, err := members(b[8 : 8+n])
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	s := &Safetensors{Metadata: map[string]string{}, tensors: make(map[string]Tensor, len(list))}
	body := b[8+n:]
	var spans []span
	for _, m := range list {
		if m.name == "__metadata__" {
			if err := json.Unmarshal(m.value, &s.Metadata); err != nil || s.Metadata == nil {
				return nil, errors.New("header: __metadata__: want an object of strings")
			}
			continue
		}
		t, at, err := entry(m, body)
		if err != nil {
			return nil, fmt.Errorf("header: tensor %q: %w", m.name, err)
		}
		s.tensors[m.name] = t
		spans = append(spans, at)
	}
	return s, fill(spans, len(body))
}

// A span is the bytes from begin to before end that a tensor takes.
type span struct {
	name       string
	begin, end int
}

// entry reads one tensor's description and cuts its bytes out of body.
func entry(m member, body []byte) (Tensor, span, error) {
	o, err := parseObject(m.value)
	if err != nil {
		return Tensor{}, span{}, err
	}
	for _, name := range []string{"dtype", "shape", "data_offsets"} {
		if !o.has(name) {
			return Tensor{}, span{}, fmt.Errorf("no %s", name)
		}
	}
	t := Tensor{Name: m.name, Shape: []int{}}
	var at []int
	dtype := o.text("dtype", "")
	o.decode("shape", "a list of integers", &t.Shape)
	o.decode("data_offsets", "two offsets in bytes", &at)
	if o.err != nil {
		return t, span{}, o.err
	}
	if t.Type, err = safetensorsType(dtype); err != nil {
		return t, span{}, err
	}
	want, ok := size(t.Type, t.Shape)
	if !ok {
		return t, span{}, fmt.Errorf("impossible shape %v", t.Shape)
	}
	if len(at) != 2 || at[0] < 0 || at[1] < at[0] {
		return t, span{}, fmt.Errorf("impossible data_offsets %v", at)
	}
	if at[1] > len(body) {
		return t, span{}, fmt.Errorf("truncated: its data ends at byte %d, the file's at %d", at[1], len(body))
	}
	if at[1]-at[0] != want {
		return t, span{}, fmt.Errorf("%d bytes, but %v%v takes %d", at[1]-at[0], t.Type, t.Shape, want)
	}
	t.Data = body[at[0]:at[1]:at[1]]
	return t, span{m.name, at[0], at[1]}, nil
}

func safetensorsType(s string) (DType, error) {
	for t, l := range layouts {
		if l.name == s && l.block == 1 {
			return DType(t), nil
		}
	}
	return 0, fmt.Errorf("dtype %q is not supported (F64, F32, F16, BF16 and I64 are)", s)
}

// fill checks that the spans fill total bytes without gap or overlap, as the format demands.
func fill(spans []span, total int) error {
	slices.SortFunc(spans, func(a, b span) int {
		if a.begin != b.begin {
			return a.begin - b.begin
		}
		return a.end - b.end
	})
	end := 0
	for i, s := range spans {
		if s.begin < end {
			return fmt.Errorf("tensors %q and %q overlap", spans[i-1].name, s.name)
		}
		if s.begin > end {
			return fmt.Errorf("%d bytes before tensor %q belong to none", s.begin-end, s.name)
		}
		end = s.end
	}
	if end != total {
		return fmt.Errorf("%d bytes after the last tensor belong to none", total-end)
	}
	return nil
}
