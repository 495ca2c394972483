package main

import (
	"strings"
	"testing"
)

// What NVRTC 12.4 has said of kernels, and what is made of it.
func TestSlow(t *testing.T) {
	const said = "ptxas info    : (C7515) Potential Performance Loss: wgmma.mma_async instructions are serialized due to non wgmma " +
		"instructions defining accumulator registers of a wgmma between start and end of the pipeline stage in the function 'NAME'\n"
	for _, c := range []struct{ log, want string }{
		{"", ""},
		{strings.Replace(said, "NAME", "linear90_v1", 1), ""},
		{strings.Replace(said, "NAME", "linear90_v1", 1) + strings.Replace(said, "NAME", "linear90_8_3", 1), "linear90_8_3's speed: (C7515)"},
		{"ptxas info    : 0 bytes gmem\n", ""},
	} {
		err := slow(c.log)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q gives %v, want %q", c.log, err, c.want)
		}
	}
}
