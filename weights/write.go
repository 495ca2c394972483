package weights

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
)

// WriteSafetensors writes a safetensors file, whole or not at all. The same tensors give the same
// bytes whatever their order, namely those of the format's own library: wide types first, then by
// name. Only F64, I64, F32, BF16 and F16 can be written.
func WriteSafetensors(path string, tensors []Tensor, metadata map[string]string) error {
	err := WriteFile(path, func(w io.Writer) error { return encodeSafetensors(w, tensors, metadata) })
	if err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	return nil
}

// writeOrder is the order of types in a file.
var writeOrder = map[DType]int{I64: 1, F64: 2, F32: 3, BF16: 4, F16: 5}

func encodeSafetensors(w io.Writer, tensors []Tensor, metadata map[string]string) error {
	return encodeAligned(w, tensors, metadata, 8) // as the format's library does
}

// encodeAligned has the tensors begin at a multiple of align.
func encodeAligned(w io.Writer, tensors []Tensor, metadata map[string]string, align int) error {
	tensors = slices.Clone(tensors)
	slices.SortFunc(tensors, func(a, b Tensor) int {
		return cmp.Or(writeOrder[a.Type]-writeOrder[b.Type], cmp.Compare(a.Name, b.Name))
	})
	var h bytes.Buffer
	h.WriteByte('{')
	if len(metadata) > 0 {
		h.WriteString(`"__metadata__":{`)
		for i, k := range slices.Sorted(maps.Keys(metadata)) {
			comma(&h, i)
			quote(&h, k)
			h.WriteByte(':')
			quote(&h, metadata[k])
		}
		h.WriteByte('}')
	}
	seen := map[string]bool{"__metadata__": true}
	at := 0
	for i, t := range tensors {
		want, ok := size(t.Type, t.Shape)
		switch {
		case writeOrder[t.Type] == 0:
			return fmt.Errorf("tensor %q: a safetensors file holds no %v", t.Name, t.Type)
		case !ok || want != len(t.Data):
			return fmt.Errorf("tensor %q: %d bytes for %v%v", t.Name, len(t.Data), t.Type, t.Shape)
		case seen[t.Name]:
			return fmt.Errorf("tensor %q cannot be written twice", t.Name)
		}
		seen[t.Name] = true
		comma(&h, i+len(metadata))
		quote(&h, t.Name)
		shape, _ := json.Marshal(append([]int{}, t.Shape...))
		fmt.Fprintf(&h, `:{"dtype":"%v","shape":%s,"data_offsets":[%d,%d]}`, t.Type, shape, at, at+want)
		at += want
	}
	h.WriteByte('}')
	for (8+h.Len())%align != 0 {
		h.WriteByte(' ')
	}
	if h.Len() > maxHeader {
		return fmt.Errorf("a header of %d bytes; the format allows %d", h.Len(), maxHeader)
	}
	b := bufio.NewWriterSize(w, 1<<20)
	b.Write(binary.LittleEndian.AppendUint64(nil, uint64(h.Len())))
	b.Write(h.Bytes())
	for _, t := range tensors {
		b.Write(t.Data) // the first error stays in b
	}
	return b.Flush()
}

func comma(b *bytes.Buffer, i int) {
	if i > 0 {
		b.WriteByte(',')
	}
}

// quote writes a JSON string, escaping no more than JSON demands.
func quote(b *bytes.Buffer, s string) {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	e.Encode(s) // a string cannot fail
	b.Truncate(b.Len() - 1)
}
