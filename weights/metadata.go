package weights

import (
	"encoding/binary"
	"math"
	"strconv"
)

func (g *GGUF) has(key string) bool { _, ok := g.meta[key]; return ok }

// tokenID returns the id of a special token ("bos", "eos", …), or -1.
func (g *GGUF) tokenID(name string) int {
	if n, ok := g.integer("tokenizer.ggml." + name + "_token_id"); ok && n >= 0 && n < math.MaxInt32 {
		return n
	}
	return -1
}

// integer returns an integer of the metadata; ok is false when there is none of that name.
func (g *GGUF) integer(key string) (n int, ok bool) {
	m := g.meta[key]
	if m.array || m.data == nil {
		return 0, false
	}
	return m.integer(0)
}

// integer decodes element i of a metadatum of a type that holds integers.
func (m metadatum) integer(i int) (int, bool) {
	le := binary.LittleEndian
	switch m.kind {
	case ggufU8, ggufBool:
		return int(m.data[i]), true
	case ggufI8:
		return int(int8(m.data[i])), true
	case ggufU16:
		return int(le.Uint16(m.data[2*i:])), true
	case ggufI16:
		return int(int16(le.Uint16(m.data[2*i:]))), true
	case ggufU32:
		return int(le.Uint32(m.data[4*i:])), true
	case ggufI32:
		return int(int32(le.Uint32(m.data[4*i:]))), true
	case ggufU64, ggufI64:
		v := le.Uint64(m.data[8*i:])
		return int(v), v <= math.MaxInt || m.kind == ggufI64
	}
	return 0, false
}

// number returns a floating-point number of the metadata: the decimal number that was meant, where
// it is stored as float32 (1e-5, not 9.999999747378752e-06).
func (g *GGUF) number(key string) (v float64, ok bool) {
	m := g.meta[key]
	switch {
	case m.array || m.data == nil:
		return 0, false
	case m.kind == ggufF32:
		s := strconv.FormatFloat(float64(math.Float32frombits(binary.LittleEndian.Uint32(m.data))), 'g', -1, 32)
		v, _ = strconv.ParseFloat(s, 64)
		return v, true
	case m.kind == ggufF64:
		return math.Float64frombits(binary.LittleEndian.Uint64(m.data)), true
	}
	n, ok := m.integer(0)
	return float64(n), ok
}

func (g *GGUF) boolean(key string, def bool) bool {
	if m := g.meta[key]; m.kind == ggufBool && !m.array && m.data != nil {
		return m.data[0] != 0
	}
	return def
}

// Text returns a string of the metadata, or "".
func (g *GGUF) Text(key string) string {
	if m := g.meta[key]; m.kind == ggufString && !m.array && m.data != nil {
		return string(m.data[8:])
	}
	return ""
}

// texts returns an array of strings, or nil.
func (g *GGUF) texts(key string) []string {
	m := g.meta[key]
	if m.kind != ggufString || !m.array {
		return nil
	}
	out := make([]string, m.n)
	r := &reader{b: m.data}
	for i := range out {
		out[i] = r.text()
	}
	return out
}

// integers returns an array of integers, or nil.
func (g *GGUF) integers(key string) []int32 {
	m := g.meta[key]
	if !m.array {
		return nil
	}
	out := make([]int32, m.n)
	for i := range out {
		v, ok := m.integer(i)
		if !ok {
			return nil
		}
		out[i] = int32(v)
	}
	return out
}

// numbers returns an array of float32, or nil.
func (g *GGUF) numbers(key string) []float32 {
	m := g.meta[key]
	if !m.array || m.kind != ggufF32 {
		return nil
	}
	return Tensor{Type: F32, Shape: []int{m.n}, Data: m.data}.Float32(nil)
}
