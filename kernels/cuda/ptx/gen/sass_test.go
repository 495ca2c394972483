package main

import (
	"encoding/binary"
	"maps"
	"os"
	"strings"
	"testing"
)

// Instructions as nvdisasm -hex shows them in machine code of NVRTC 12.4: the low and the high word, and the name.
var disassembled = []struct {
	low, high uint64
	name      string
}{
	{0x01e00000101879f0, 0x000fe20008701818, "HGMMA"},   // .64x128x16.F32.BF16 R24, gdesc[UR16], R24
	{0x000000341490723c, 0x00afec0000041890, "HMMA"},    // .16816.F32.BF16 R144, R20, R52, R144
	{0x00000008100075b4, 0x0003d80008010000, "UTMALDG"}, // .3D [UR8], [UR16]
	{0x000000e8000079c8, 0x000e620008000600, "USETMAXREG"},
	{0x000000000e117fae, 0x0005e4000c101c4e, "LDGSTS"}, // .E.BYPASS.128 [R17], desc[UR14][R14.64], !P0
	{0x0000000000007983, 0, "LDL"},                     // R0, [R0]
	{0x0000101001007387, 0, "STL"},                     // .128 [R1+0x10], R16
	{0x0000000400007844, 0, "STSM"},                    // .16.M88.4 [R0], R4
	{0x000000000c1879f1, 0, "IGMMA"},                   // .64x8x32.S8.S8
	{0x00000000041c79f3, 0, "QGMMA"},                   // .64x8x32.F32.E4M3.E4M3
	{0x0000001808187237, 0, "IMMA"},                    // .16832.S8.S8
	{0x00000000000079b7, 0, ""},                        // UTMACMDFLUSH has no name here
}

func TestMix(t *testing.T) {
	var code []byte
	want := map[string]int{}
	for _, d := range disassembled {
		one := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, d.low), d.high)
		code = append(code, one...)
		if all, of := mix(one); all != 1 || d.name != "" && of[d.name] != 1 || d.name == "" && len(of) != 0 {
			t.Errorf("%#x is %v, want %s", d.low, of, d.name)
		}
		if d.name != "" {
			want[d.name]++
		}
	}
	code = append(code, 0x18, 0x79, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) // NOP
	if all, of := mix(code); all != len(disassembled) || !maps.Equal(of, want) {
		t.Errorf("%d instructions: %v, want %d: %v", all, of, len(disassembled), want)
	}
}

// compileTest compiles a source for sm_90a and reads its machine code, where make nvrtc has put the compiler.
func compileTest(t *testing.T, src string) (usage, string) {
	t.Helper()
	const cache = "../../../../.cache/nvrtc"
	if _, err := os.Stat(cache); err != nil {
		t.Skip("no compiler: make nvrtc fetches it")
	}
	c, err := open("", cache)
	if err != nil {
		t.Fatal(err)
	}
	h, err := headersOf("..", "linear90.cu")
	if err != nil {
		t.Fatal(err)
	}
	text, err := c.build("k.cu", src, h, "compute_90a", toPTX)
	if err != nil {
		t.Fatal(err)
	}
	bin, err := c.build("k.cu", src, h, "sm_90a", toCubin)
	if err != nil {
		t.Fatal(err)
	}
	all, err := usages(bin)
	if err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	return all[0], bodyOf(string(text), "k")
}

// An array that is indexed at run time is local memory, and is found.
func TestLocalMemory(t *testing.T) {
	u, text := compileTest(t, `extern "C" __global__ void k(float* out, const int* at, int n) {
  float a[64];
  for (int i = 0; i < 64; i++) a[i] = out[i];
  for (int i = 0; i < n; i++) a[at[i] & 63] += 1.f;
  out[0] = a[at[0] & 63];
}`)
	if u.stack != 256 || u.of["LDL"] == 0 || u.of["STL"] == 0 {
		t.Errorf("64 floats of a thread: %v", u)
	}
	if why := u.missing(text); !strings.Contains(why, "256 bytes of a thread in local memory") {
		t.Errorf("said of it: %q", why)
	}
}

// What the headers' functions of Hopper become.
func TestHopperCode(t *testing.T) {
	u, text := compileTest(t, `#include "hopper.h"
KERNEL(128, 1) k(MAP m, float* out) {
  __shared__ __align__(1024) u8 space[8192];
  __shared__ u64 full;
  fewer_registers<40>();
  if (threadIdx.x == 0) {
    barrier_init(&full, 1);
    barriers_made();
    barrier_expect(&full, 8192);
    bring_box(space, m, 0, 0, 0, &full);
  }
  __syncthreads();
  barrier_wait(&full, 0);
  float d[4] = {};
  begin_products(d);
  product(d, operand64(space, 1024), operand64(space + 4096, 1024));
  end_products();
  wait_products(d);
  out[threadIdx.x] = d[0] + d[1] + d[2] + d[3];
}`)
	if u.of["HGMMA"] != 1 || u.of["UTMALDG"] != 1 || u.of["USETMAXREG"] == 0 || u.of["STG"] != 1 || u.of["LDL"]+u.of["HMMA"] != 0 || u.shared < 8192+8 {
		t.Errorf("one product of one tile: %v", u)
	}
	if why := u.missing(text); why != "" {
		t.Error(why)
	}
	for _, name := range []string{"HGMMA", "UTMALDG", "USETMAXREG"} {
		less := u
		less.of = maps.Clone(u.of)
		delete(less.of, name)
		if why := less.missing(text); !strings.Contains(why, "has no ") || !strings.Contains(why, name) {
			t.Errorf("without %s: %q", name, why)
		}
	}
}
