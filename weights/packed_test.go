package weights

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"unsafe"
)

// What was saved is mapped again under its key, at a cache line; anything else counts as nothing, and is
// replaced by the next Save.
func TestPacked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.r2packed")
	data := bytes.Repeat([]byte("abcdefgh"), 40)
	save := func() {
		t.Helper()
		p := openPacked(path, "key")
		if _, _, ok := p.Matrix("a b"); ok {
			t.Fatal("an unusable file was used")
		}
		p.Add("c", "f32", data[:64])
		p.Add("a b", "q8_0 by int8", data)
		if err := p.Save(); err != nil {
			t.Fatal(err)
		}
		p = openPacked(path, "key")
		defer p.Close()
		format, got, ok := p.Matrix("a b")
		if !ok || format != "q8_0 by int8" || !bytes.Equal(got, data) || uintptr(unsafe.Pointer(&got[0]))%64 != 0 {
			t.Fatalf("read %v, %q, %d bytes at %p", ok, format, len(got), &got[0])
		}
		if _, got, ok := p.Matrix("c"); !ok || !bytes.Equal(got, data[:64]) {
			t.Fatalf("read %v, %q", ok, got)
		}
		if err := p.Save(); err != nil { // nothing is new: the file stays
			t.Fatal(err)
		}
	}
	save()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := range len(whole) / 7 {
		damaged := bytes.Clone(whole)
		damaged[7*at] ^= 0x10
		if err := os.WriteFile(path, damaged, 0o666); err != nil {
			t.Fatal(err)
		}
		p := openPacked(path, "key")
		if _, got, ok := p.Matrix("a b"); ok && !bytes.Equal(got, data) {
			t.Fatalf("damaged at byte %d, and used", 7*at)
		}
		p.Close()
	}
	for _, b := range [][]byte{whole[:len(whole)-8], whole[:3], {}, []byte("something else altogether")} {
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		save()
	}
	if p := openPacked(path, "another key"); p.file != nil {
		t.Error("used under another key")
	}
	if err := openPacked(filepath.Join(path, "x"), "key").Save(); err != nil {
		t.Errorf("nothing to save: %v", err)
	}
	p := openPacked(filepath.Join(path, "x"), "key")
	p.Add("a", "f32", data)
	if err := p.Save(); err == nil {
		t.Error("saved below a file")
	}
}

// A model's sum is of every byte of its tensors, and of what they are.
func TestSum(t *testing.T) {
	tensor := func(name string, typ DType, n int) Tensor {
		return Tensor{Name: name, Type: typ, Shape: []int{n}, Data: make([]byte, typ.RowSize(n))}
	}
	of := func(ts ...Tensor) string {
		m := &Model{tensors: map[string]Tensor{}}
		for _, t := range ts {
			m.tensors[t.Name] = t
		}
		return m.Sum()
	}
	a, b := tensor("a", F32, 3<<20), tensor("b", BF16, 16)
	sums := map[string]bool{of(a, b): true}
	if !sums[of(b, a)] {
		t.Error("the order counts")
	}
	last := tensor("a", F32, 3<<20)
	last.Data[len(last.Data)-1] = 1
	first := tensor("a", F32, 3<<20)
	first.Data[0] = 1
	for i, s := range []string{of(a), of(b), of(last, b), of(first, b), of(a, tensor("b", F16, 16)), of(a, tensor("c", BF16, 16)), of(a, tensor("b", BF16, 17))} {
		if sums[s] {
			t.Errorf("model %d has another's sum", i)
		}
		sums[s] = true
	}
}
