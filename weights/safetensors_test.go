package weights

import (
	"bytes"
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// safetensorsFile is a file with that header, and n bytes of tensors.
func safetensorsFile(header string, n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, n)...)
}

// hostileSafetensors are broken files and a word of the error each must give.
var hostileSafetensors = map[string]struct {
	file []byte
	want string
}{
	"empty":              {nil, "truncated"},
	"seven bytes":        {make([]byte, 7), "truncated"},
	"no header":          {make([]byte, 8), "header"},
	"huge header":        {[]byte("\xff\xff\xff\xff\xff\xff\xff\xff{}"), "a header of"},
	"cut header":         {safetensorsFile(`{}`, 0)[:9], "truncated"},
	"a list":             {safetensorsFile(`[]`, 0), "not a JSON object"},
	"text after":         {safetensorsFile(`{}{}`, 0), "text follows"},
	"not UTF-8":          {safetensorsFile("{\"\xff\":1}", 0), "UTF-8"},
	"cut data":           {safetensorsFile(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 4), "truncated"},
	"data left over":     {safetensorsFile(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 8), "4 bytes after"},
	"gap":                {safetensorsFile(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8), "4 bytes before"},
	"overlap":            {safetensorsFile(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8), "overlap"},
	"same bytes":         {safetensorsFile(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4), "overlap"},
	"twice":              {safetensorsFile(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8), "occurs twice"},
	"dtype twice":        {safetensorsFile(`{"a":{"dtype":"F32","dtype":"BF16","shape":[1],"data_offsets":[0,4]}}`, 4), "occurs twice"},
	"shape and offsets":  {safetensorsFile(`{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}`, 8), "F32[3] takes 12"},
	"negative dimension": {safetensorsFile(`{"a":{"dtype":"F32","shape":[-1,-1],"data_offsets":[0,4]}}`, 4), "impossible shape"},
	"overflowing shape":  {safetensorsFile(`{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0), "impossible shape"},
	"wrapping shape":     {safetensorsFile(`{"a":{"dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]}}`, 4), "impossible shape"},
	"backward offsets":   {safetensorsFile(`{"a":{"dtype":"F32","shape":[0],"data_offsets":[8,4]}}`, 8), "impossible data_offsets"},
	"negative offset":    {safetensorsFile(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}`, 4), "impossible data_offsets"},
	"three offsets":      {safetensorsFile(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}`, 4), "impossible data_offsets"},
	"offset too large":   {safetensorsFile(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,99999999999999999999]}}`, 4), "data_offsets: want"},
	"fractional shape":   {safetensorsFile(`{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}`, 4), "shape: want"},
	"no shape":           {safetensorsFile(`{"a":{"dtype":"F32","data_offsets":[0,4]}}`, 4), "no shape"},
	"other dtype":        {safetensorsFile(`{"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}`, 4), `dtype "F8_E4M3"`},
	"a quantised dtype":  {safetensorsFile(`{"a":{"dtype":"Q8_0","shape":[32],"data_offsets":[0,34]}}`, 34), `dtype "Q8_0"`},
	"a number as dtype":  {safetensorsFile(`{"a":{"dtype":3,"shape":[1],"data_offsets":[0,4]}}`, 4), "dtype: want a string"},
	"metadata":           {safetensorsFile(`{"__metadata__":{"a":1}}`, 0), "__metadata__"},
	"deep":               {safetensorsFile(strings.Repeat(`{"a":`, 20000), 0), "JSON"},
}

// allocates fails the test when parsing a file of n bytes asks for memory out of proportion.
func allocates(t *testing.T, name string, n int, parse func() error) error {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := parse()
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > uint64(1<<17+64*n) {
		t.Errorf("%s: %d bytes allocated for a file of %d", name, got, n)
	}
	return err
}

func TestSafetensorsHostile(t *testing.T) {
	for name, tt := range hostileSafetensors {
		err := allocates(t, name, len(tt.file), func() error { _, err := parseSafetensors(tt.file); return err })
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
		path := filepath.Join(t.TempDir(), "x.safetensors")
		if err := os.WriteFile(path, tt.file, 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenSafetensors(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: opened: %v", name, err)
		}
	}
	if _, err := OpenSafetensors(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a file") {
		t.Errorf("a directory: %v", err)
	}
}

// A header may be padded and its tensors empty or in any order of bytes.
func TestSafetensorsOdd(t *testing.T) {
	s, err := parseSafetensors(safetensorsFile(`{"b":{"dtype":"BF16","shape":[],"data_offsets":[4,6]},"z":{"dtype":"F32","shape":[0,3],"data_offsets":[4,4]},"a":{"shape":[2,1],"dtype":"F16","data_offsets":[0,4]}}      `, 6))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][3]int{"a": {2, 1, 2}, "b": {1, 1, 1}, "z": {0, 3, 0}} {
		x, err := s.Tensor(name)
		if have := [3]int{x.Rows(), x.Cols(), len(x.Float32(nil))}; err != nil || have != want {
			t.Errorf("%s: %v, want %v, %v", name, have, want, err)
		}
	}
}

func TestEncodeSafetensorsRefuses(t *testing.T) {
	a := Encode("a", F32, []int{2}, []float32{1, 2})
	short, quantised, meta := a, a, a
	short.Data = a.Data[:4]
	quantised.Type, quantised.Shape, quantised.Data = Q8_0, []int{32}, make([]byte, 34)
	meta.Name = "__metadata__"
	for name, list := range map[string][]Tensor{"twice": {a, a}, "short": {short}, "quantised": {quantised}, "named as the metadata": {meta}} {
		path := filepath.Join(t.TempDir(), "x")
		if err := WriteSafetensors(path, list, nil); err == nil {
			t.Errorf("%s: written", name)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s: left a file", name)
		}
	}
}

// The order of the list has no part in the file, and any name comes back.
func TestSafetensorsRoundTrip(t *testing.T) {
	list := []Tensor{
		Encode("b", F32, []int{2, 2}, []float32{1, 2, 3, 4}), Encode(`<&"\`+"\n\u2028é", F16, []int{3}, []float32{1, 2, 3}),
		Encode("", BF16, nil, []float32{5}), {Name: "n", Type: I64, Shape: []int{1}, Data: make([]byte, 8)},
	}
	metadata := map[string]string{"format": "pt", "a": "\x00"}
	var one, two bytes.Buffer
	if err := encodeSafetensors(&one, list, metadata); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(list)
	if err := encodeSafetensors(&two, list, metadata); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("two orders, two files")
	}
	s, err := parseSafetensors(one.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range list {
		if have, err := s.Tensor(want.Name); err != nil || !same(have, want) {
			t.Errorf("%q: %v", want.Name, err)
		}
	}
	if !maps.Equal(s.Metadata, metadata) || len(s.Names()) != len(list) {
		t.Errorf("%v, %q", s.Metadata, s.Names())
	}
}

// Any file is refused or can be read to the end, and written again with the same tensors.
func FuzzSafetensors(f *testing.F) {
	for _, tt := range hostileSafetensors {
		f.Add(tt.file)
	}
	f.Add(safetensorsFile(`{"__metadata__":{"format":"pt"},"a":{"dtype":"F16","shape":[2,1],"data_offsets":[0,4]},"b":{"dtype":"F64","shape":[],"data_offsets":[4,12]}}`, 12))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSafetensors(b)
		if err != nil {
			return
		}
		var list []Tensor
		for _, name := range s.Names() {
			x, err := s.Tensor(name)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(x.Float32(nil)); n != x.Rows()*x.Cols() {
				t.Fatalf("%q: %d values of %v", name, n, x.Shape)
			}
			x.Finite()
			list = append(list, x)
		}
		var w bytes.Buffer
		if err := encodeSafetensors(&w, list, s.Metadata); err != nil {
			t.Fatal(err)
		}
		again, err := parseSafetensors(w.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range list {
			if y, err := again.Tensor(x.Name); err != nil || !same(x, y) {
				t.Fatalf("%q: %v", x.Name, err)
			}
		}
	})
}
