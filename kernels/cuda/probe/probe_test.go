package probe

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/kernels/cuda/ptx"
)

// Each wrapper of gpu.h that a machine decides about has a probe, and each probe an entry here.
func TestEveryWrapper(t *testing.T) {
	header, err := os.ReadFile("../ptx/gpu.h")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("../ptx/probe.cu")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(string(header), "\n// ---- ") {
		title, _, _ := strings.Cut(part, "\n")
		if !slices.ContainsFunc([]string{"failures", "warps", "numbers", "shared memory", "rows in", "matrix"}, func(s string) bool { return strings.HasPrefix(title, s) }) {
			continue
		}
		for _, m := range regexp.MustCompile(`(?m)GPU \w+ (\w+)\(`).FindAllStringSubmatch(part, -1) {
			if inner := []string{"lane_id", "warp_id", "shared_address"}; !slices.Contains(inner, m[1]) && !regexp.MustCompile(`\b`+m[1]+`\b[(<]`).Match(source) {
				t.Errorf("%s of gpu.h has no probe", m[1])
			}
		}
	}
	var have, want []string
	entries, err := ptx.Entries(ptx.Text(ptx.Probe))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name != "probe_rate" {
			have = append(have, strings.TrimPrefix(e.Name, "probe_"))
		}
	}
	sizes := map[string][2]string{}
	for _, m := range regexp.MustCompile(`(?m)^PROBE\((\w+), (\d+), (\d+)\)`).FindAllStringSubmatch(string(source), -1) {
		sizes[m[1]] = [2]string{m[2], m[3]}
	}
	for _, w := range Wrappers() {
		want = append(want, w.Name)
		if s := sizes[w.Name]; s != [2]string{strconv.Itoa(len(w.In)), strconv.Itoa(len(w.Out))} {
			t.Errorf("%s takes %d words and gives %d here, %v in probe.cu", w.Name, len(w.In), len(w.Out), s)
		}
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Errorf("the probes are %v, the wrappers %v", have, want)
	}
}

func TestInputs(t *testing.T) {
	for _, w := range Wrappers() {
		in := w.Inputs(3, 2)
		if len(in) != 2*threads*4*len(w.In) || !slices.Equal(in, w.Inputs(3, 2)) || slices.Equal(in, w.Inputs(4, 2)) {
			t.Errorf("%s: inputs of %d bytes, or not of the seed", w.Name, len(in))
		}
	}
}

// A difference of one bit is found, and a NaN is a NaN.
func TestCompare(t *testing.T) {
	w := Wrapper{"x", "u", "fudD"}
	words := func(a float32, b uint32, c float64) []byte {
		one := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, math.Float32bits(a)), b)
		return slices.Repeat(binary.LittleEndian.AppendUint64(one, math.Float64bits(c)), threads)
	}
	r := Record{"x", 1, make([]byte, 4*threads), words(math.Float32frombits(0x7fc00001), 7, math.NaN())}
	if err := w.compare(r, words(math.Float32frombits(0xffc00000), 7, math.Float64frombits(0xfff8000000000003))); err != nil {
		t.Error(err)
	}
	for _, out := range [][]byte{words(1, 7, math.NaN()), words(float32(math.NaN()), 6, math.NaN()), words(float32(math.NaN()), 7, 1)} {
		if err := w.compare(r, out); err == nil {
			t.Error("a difference is not found")
		}
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "one.json.gz")
	want := File{"a device", []Record{{"exp32", 1, []byte{1, 2}, []byte{3}}}}
	if err := want.Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := ReadFile(path)
	if err != nil || got.Device != want.Device || len(got.Records) != 1 || !slices.Equal(got.Records[0].Out, []byte{3}) {
		t.Errorf("%v came back as %v (%v)", want, got, err)
	}
	if _, err := wrapperOf(got.Records[0]); err == nil || !strings.Contains(err.Error(), "exp32 has 2 and 1 bytes") {
		t.Errorf("a record that is cut short: %v", err)
	}
	if err := os.WriteFile(path, []byte("not so"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a file that is not one: %v", err)
	}
}

// Where the layout of shared memory has an element: by hand, for the ones that tell the order.
func TestCore(t *testing.T) {
	v := make([]float32, 16*16*widthSteps)
	for i := range v {
		v[i] = float32(i % 256) // which bf16 has exactly
	}
	b := core(v, 16, 0)
	at := func(i int) float32 { return math.Float32frombits(uint32(binary.LittleEndian.Uint16(b[2*i:])) << 16) }
	row := 16 * widthSteps
	for _, c := range []struct{ place, row, k int }{{0, 0, 0}, {8, 1, 0}, {64, 0, 8}, {128, 8, 0}, {128 + 64 + 8*3 + 5, 11, 13}, {256, 0, 16}} {
		if want := v[c.row*row+c.k]; at(c.place) != want {
			t.Errorf("at %d there is %g, want row %d's %d: %g", c.place, at(c.place), c.row, c.k, want)
		}
	}
	if moved := core(v, 16, 8); !slices.Equal(moved[256:512], b[:256]) {
		t.Error("moved rows are not where they should be")
	}
}
