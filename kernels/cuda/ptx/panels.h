// panels.h: rows of q, k and v as bf16 pieces in shared memory, where wgmma reads them along their columns and across:
// what threads bring of a block's queries, keys and values.
#pragma once
#include "hopper.h"
#include "attention.h"

#define KEYS 32        // of a block
#define LINE 128       // bytes of a row of 64 columns
#define ROWS 64        // of a warpgroup

// A tile in shared memory is for each piece and each 64 columns a panel: rows of 128 bytes whose 16-byte parts are
// exchanged as 128-byte swizzling does. It begins at a multiple of 1024.
template <int D, int R> struct Panels {
  enum : int { PANEL = R * LINE, PIECE = D / 64 * PANEL };
};

// Where a piece's column c, a multiple of 16, begins in a tile of R rows.
template <int D, int R> GPU constexpr int at(int piece, int c) {
  return piece * Panels<D, R>::PIECE + c / 64 * Panels<D, R>::PANEL + c % 64 * 2;
}

// One lane of each warp arrives, for what all of them have done.
GPU void warp_arrives(u64* b) {
  __syncwarp();
  if (lane_id() == 0) barrier_arrive(b);
}

// Waits until at most N groups of products are under way, d's not among them, and gives d back to the threads.
template <int N, int R> GPU void wait_older(float (&d)[R]) {
  wait_products<N>();
#pragma unroll
  for (int i = 0; i < R; i++) asm volatile("" : "+f"(d[i])::"memory");
}

// ---- a warpgroup's 64 rows. A thread has rows g = 16 (warp) + lane/4 and g + 8; of a product's columns 8i + 2c and
// the next, c = lane%4.

GPU int row_of(int half) { return warp_id() % 4 * 16 + lane_id() / 4 + 8 * half; }

// s = q·kᵀ: 64 rows of a tile of R, and a block of keys.
GPU void begin_scores(float (&s)[KEYS / 2]) {
#pragma unroll
  for (int i = 0; i < KEYS / 2; i++) s[i] = 0;
  begin_products(s);
}
template <int D, int P, int R> GPU void add_scores(float (&s)[KEYS / 2], const u8* q, const u8* k) {
  u64 rows = operand128(q), columns = operand128(k);
#pragma unroll 1  // descriptors of all pieces are more than there are uniform registers
  for (int small = P - 1; small >= 0; small--)
#pragma unroll 1
    for (int p = 0; p <= small; p++)
#pragma unroll
      for (int c = 0; c < D; c += 16)
        product(s, rows + at<D, R>(p, c) / 16, columns + at<D, KEYS>(small - p, c) / 16);
  end_products();
}
template <int D, int P, int R> GPU void scores(float (&s)[KEYS / 2], const u8* q, const u8* k) {
  begin_scores(s);
  add_scores<D, P, R>(s, q, k);
}

// What 64 rows have of a block's keys as P pieces, as a product takes them from registers. It takes s's numbers away.
template <int P> struct Weights {
  u32 a[P][KEYS / 16][4];

  GPU void take(float (&s)[KEYS / 2]) {
#pragma unroll
    for (int p = 0; p < P; p++)
#pragma unroll
      for (int i = 0; i < KEYS / 4; i++) a[p][i / 4][i % 4] = take_bf16(s[2 * i], s[2 * i + 1]);
  }
  // o += weights·v, of a block of values. Nobody changes the weights until it has been waited for.
  template <int D> GPU void blend(float (&o)[D / 2], const u8* v) {
    u64 values = operand128_across(v, Panels<D, KEYS>::PANEL);
    begin_products(o);
#pragma unroll
    for (int small = P - 1; small >= 0; small--)
#pragma unroll
      for (int p = 0; p <= small; p++)
#pragma unroll
        for (int t = 0; t < KEYS / 16; t++)
          product_across(o, a[p][t], values + (at<D, KEYS>(small - p, 0) + t * 16 * LINE) / 16);
    end_products();
  }
};

// The rows of a block's values that are not finite, a bit each.
GPU u32 bad_rows(const u64* bad) {
  uint4 a = ((const uint4*)bad)[0], b = ((const uint4*)bad)[1];
  return a.x | a.z | b.x | b.z;
}

// ---- threads bring rows: lane i of 16 has columns 4i … 4i+3 of each 64

GPU float4 four(const float* row, int c, int dim, bool wide) {
  if (wide) return c < dim ? *(const float4*)(row + c) : make_float4(0, 0, 0, 0);
  return make_float4(c < dim ? row[c] : 0.f, c + 1 < dim ? row[c + 1] : 0.f, c + 2 < dim ? row[c + 2] : 0.f, c + 3 < dim ? row[c + 3] : 0.f);
}

GPU bool whole16(const float* p, int stride, int dim) { return dim % 4 == 0 && stride % 4 == 0 && aligned16(p); }

// Whether all are finite as bf16 numbers too: what is nearer to 2¹²⁸ than to the largest is not.
GPU bool tame(float4 v) {
  const float most = __int_as_float(0x7f7f7fff);
  return fabsf(v.x) <= most && fabsf(v.y) <= most && fabsf(v.z) <= most && fabsf(v.w) <= most;
}

// Two bf16 numbers' bits 15 and 31 where the numbers are not finite.
GPU u32 wild(u32 both) { return (both & 0x7fff7fff) + 0x00800080; }

// Where columns c … c+3 of row r of a tile of R rows stand.
template <int D, int R> GPU u8* place(u8* tile, int r, int c) {
  return tile + c / 64 * Panels<D, R>::PANEL + r * LINE + (c % 64 / 8 ^ r % 8) * 16 + c % 8 * 2;
}

// Puts v's pieces there, and returns wild of the first.
template <int D, int P, int R> GPU u32 put(u8* to, float4 v) {
  u32 any = 0;
#pragma unroll
  for (int p = 0; p < P; p++) {
    u32 a = take_bf16(v.x, v.y), b = take_bf16(v.z, v.w);
    if (p == 0) any = wild(a) | wild(b);
    *(uint2*)(to + p * Panels<D, R>::PIECE) = make_uint2(a, b);
  }
  return any;
}

// 128 threads bring the 64 rows of q from r0 on, times `sign`; rows that are not there are zeros.
template <int D, int P, int R> GPU void bring_q(u8* tile, const Tile& w, int r0, const float* q, int qs, float sign = 1) {
  bool wide = whole16(q, qs, w.a.dim);
#pragma unroll 1
  for (int r = r0 + threadIdx.x % 128 / 16; r < r0 + ROWS; r += 8) {
    const float* from = q + (size_t)w.row(r) * qs + w.column(r) * w.a.dim;
#pragma unroll
    for (int c = threadIdx.x % 16 * 4; c < D; c += 64) {
      float4 v = r < w.rows ? four(from, c, w.a.dim, wide) : make_float4(0, 0, 0, 0);
      put<D, P, R>(place<D, R>(tile, r, c), make_float4(v.x * sign, v.y * sign, v.z * sign, v.w * sign));
    }
  }
}

// What a thread of 128 brings of a block of keys, or values: rows threadIdx.x/16 + 8i.
template <int D> struct Share {
  float4 of[KEYS / 8][D / 64];

  GPU void fetch(const float* x, int xs, int rows, int head, int dim, bool wide) {
    int row[KEYS / 8];
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++) row[i] = __shfl_sync(FULL, rows, (lane_id() & 16) + i);
    x += head * dim;
    if (wide && dim == D && __all_sync(FULL, rows >= 0)) {
      x += threadIdx.x % 16 * 4;
#pragma unroll
      for (int i = 0; i < KEYS / 8; i++)
#pragma unroll
        for (int h = 0; h < D / 64; h++) of[i][h] = *(const float4*)(x + (size_t)row[i] * xs + 64 * h);
      return;
    }
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++)
#pragma unroll
      for (int h = 0; h < D / 64; h++)
        of[i][h] = row[i] < 0 ? make_float4(0, 0, 0, 0) : four(x + (size_t)row[i] * xs, threadIdx.x % 16 * 4 + 64 * h, dim, wide);
  }
  // Puts them into a tile. With bad, rows that are not finite are zeros there, and bits of the warp's word of four.
  template <int P> GPU void store(u8* tile, u64* bad = nullptr) const {
    u8* to = place<D, KEYS>(tile, threadIdx.x % 128 / 16, threadIdx.x % 16 * 4);
    u32 any = 0;
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++)
#pragma unroll
      for (int h = 0; h < D / 64; h++) any |= put<D, P, KEYS>(to + i * 8 * LINE + h * Panels<D, KEYS>::PANEL, of[i][h]);
    if (!bad) return;
    u32 rows = 0;
    if (__any_sync(FULL, any & 0x80008000)) rows = clean<P>(to);
    if (lane_id() == 0) bad[warp_id() % 4] = rows;
  }
  // Puts zeros in the place of what is not finite, and returns the warp's rows that it was in, a bit each.
  template <int P> GPU u32 clean(u8* to) const {
    u32 rows = 0;
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++) {
      int r = threadIdx.x % 128 / 16 + 8 * i;
      bool good = true;
#pragma unroll
      for (int h = 0; h < D / 64; h++)
        if (!tame(of[i][h])) {
          good = false;
          put<D, P, KEYS>(to + i * 8 * LINE + h * Panels<D, KEYS>::PANEL, make_float4(0, 0, 0, 0));
        }
      u32 any = __ballot_sync(FULL, !good);
      rows |= (u32)((any & 0xffff) != 0) << (r & ~1) | (u32)(any >> 16 != 0) << (r | 1);
    }
    return rows;
  }
};

// The row of k and v that lane i < 4 of 16 finds for the others of the block from j0 on, i of theirs; after the last key the last
// one's again, which no row sees there. Other lanes have 0, and -1 is a failure.
GPU int find(const Tile& w, int j0, int last, u64* fault, u32 tag) {
  int i = threadIdx.x % 16, j = j0 + threadIdx.x % 128 / 16 + 8 * i;
  return i < KEYS / 8 ? key_row(w.a, w.sq, min(j, last - 1), fault, tag) : 0;
}

// ---- exp(x·scale + c), for what is not much more than 1

// By a polynomial on the nearest integer's distance (at Chebyshev's points on [-1/2, 1/2]): 2e-8 away for exact products, and four
// millionths for rounded ones. What is below e⁻⁸⁷ is e⁻⁸⁷, and a NaN stays one.
template <int P> GPU float power(float x, float scale, float c) {
  float y = fmaf(x, scale, c);
  asm("max.NaN.f32 %0, %0, 0fC2AE0000;" : "+f"(y));
  float n = fmaf(y, 1.44269504f, 12582912.f);  // its low bits are the integer
  float r = fmaf(y, 1.44269504f, 12582912.f - n), p;
  if (P == 1) {
    p = fmaf(9.66636837e-3f, r, 5.59219755e-2f);
    p = fmaf(p, r, 2.40223497e-1f);
    p = fmaf(p, r, 6.93121016e-1f);
  } else {
    p = fmaf(1.54614449e-4f, r, 1.34004280e-3f);
    p = fmaf(p, r, 9.61805694e-3f);
    p = fmaf(p, r, 5.55032715e-2f);
    p = fmaf(p, r, 2.40226507e-1f);
    p = fmaf(p, r, 6.93147182e-1f);
  }
  p = fmaf(p, r, 1.f);
  return p * __int_as_float((__float_as_int(n) << 23) + 0x3f800000);
}
