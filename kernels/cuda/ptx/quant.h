// quant.h: a weight in blocks of 32 integers and a scale (ggml's Q8_0) as kernels read it, and its one order.
//
// It lies in tiles of 8 outputs × 32 terms, QTILE bytes: 32 lanes' 8 bytes, then the 8 outputs' scales as halves. Lane 4r + c
// has of output r the terms 2c, 2c+8, 2c+1, 2c+9 and the same 16 on: what it has of the rows of a matrix instruction. Rows of
// tiles stand end to end, of 32 terms going fastest, padded with zeros to whole tiles.
//
// An integer is a bf16 number exactly. A block's products with each bf16 piece of the activations are summed by the matrix unit
// from zero, two instructions of 16 terms; the pieces' sums are added, the smallest piece first; that, times the scale, is
// added to its segment's sum by one fused multiply-add. Activations that are integers too (kernels.Format's Acts I8) are one piece, with
// a scale for each token and block, by which the weight's is multiplied before. A segment is SEGMENT tiles from zero; the segments' sums are added in order.
#pragma once
#include "gpu.h"

#define QTILE 272    // bytes
#define SEGMENT 16   // tiles

GPU float from_f16(u16 v) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(v));
  return f;
}

// Two bf16 numbers of the signed bytes 0 and 2 of v: 128 and the low seven bits make the number from 128 on, exactly, and 128 or,
// where the sign stands, 256 is taken off.
GPU u32 widen(u32 v) {
  u32 both;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(both) : "r"((v & 0x007f007fu) | 0x43004300u), "r"(0x3f803f80u), "r"((v & 0x00800080u) | 0xc300c300u));
  return both;
}

// A lane's registers of 16 outputs × 32 terms, from the tiles of the first eight outputs and of the others: four for each 16 terms.
GPU void fragment(u32 (&a)[8], const u8* low, const u8* high) {
  uint2 u = *(const uint2*)(low + lane_id() * 8), v = *(const uint2*)(high + lane_id() * 8);
  a[0] = widen(u.x), a[1] = widen(v.x), a[2] = widen(u.x >> 8), a[3] = widen(v.x >> 8);
  a[4] = widen(u.y), a[5] = widen(v.y), a[6] = widen(u.y >> 8), a[7] = widen(v.y >> 8);
}

// The scale of the lane's output of a tile.
GPU float scale_of(const u8* tile) { return from_f16(*(const u16*)(tile + 256 + lane_id() / 4 * 2)); }

// Where element (row, k) of a tile is, a byte.
GPU int place_of(int row, int k) { return row * 32 + k % 8 / 2 * 8 + k / 16 * 4 + k % 2 * 2 + k / 8 % 2; }
