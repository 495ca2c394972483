// split.h: f32 numbers as bf16 pieces that threads make themselves, on every machine.
#pragma once
#include "gpu.h"

// The two numbers rounded to bf16, x in the low half, and what is left of them in their place. Three times over, the pieces
// add up to the number. Of an infinity a NaN is left.
GPU u32 split_bf16(float& x, float& y) {
  u32 both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(y), "f"(x));
  x -= __uint_as_float(both << 16);
  y -= __uint_as_float(both & 0xffff0000u);
  return both;
}
