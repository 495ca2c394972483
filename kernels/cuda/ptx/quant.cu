// quant: a weight of quant.h brought to the device, its rows looked up, and its product out = x·Wᵀ + bias by mma.sync
// m16n8k16, in quant.h's order; tokens come in linear's tiles, as pack_tokens lays them (order 1).
//   quant_v1   a warp 16 outputs × 8 tokens, segment after segment: the definition
//   quant_fewN a block of 8 warps 16 outputs × N tokens, segments side by side, added in order through shared memory: for few
//              tokens the weight is read once, 1.06 bytes a number
//   next       for many tokens (they take quant_few32, and turn the weight's bytes again for each 32) tiles as linear_many's
// pack_ints rounds activations to integers. unpack_quant makes bf16 tiles of linear's of it, in pieces that add up to it exactly: what the gradient multiplies with.
#include "quant.h"

#define TILE 512  // bytes of linear's

// Rows from `first` on of a weight in ggml's blocks, row by row, to its tiles; thread (row, block).
KERNEL(128) pack_quant(u8* out, const u16* x, int first, int rows, int wide, u64* fault, u32 tag) {
  if (stopped(fault, tag)) return;
  int b = blockIdx.x * 128 + threadIdx.x;
  if (b >= wide) return;
  for (int i = blockIdx.y; i < rows; i += gridDim.y) {
    const u16* from = x + ((size_t)i * wide + b) * 17;
    int n = first + i, r = n % 8;
    u8* to = out + ((size_t)(n / 8) * wide + b) * QTILE;
    *(u16*)(to + 256 + 2 * r) = from[0];
#pragma unroll
    for (int k = 0; k < 32; k += 2) {
      u16 two = from[1 + k / 2];
      to[place_of(r, k)] = (u8)two, to[place_of(r, k + 1)] = (u8)(two >> 8);
    }
  }
}

// Tokens to tiles of linear's, as integers with a scale for each block of 32 (kernels.Format's Acts I8), at scales[(token / 8 · wide + block)·8
// + token % 8]; thread (row, 4 columns). Order 1 and rows up to a multiple of 8 are pack_tokens'; other orders are its order 2.
KERNEL(256) pack_ints(u16* out, float* scales, const float* x, int xs, int rows, int wide, int order, u64* fault, u32 tag) {
  if (stopped(fault, tag)) return;
  int k = (blockIdx.x * 256 + threadIdx.x) * 4, t = blockIdx.y, c = k % 32 / 8;
  bool in = k < wide * 32;
  float v[4] = {};
  const float* from = x + (size_t)t * xs + k;
  if (in && t < rows) {
    if (aligned16(from)) *(float4*)v = *(const float4*)from;
    else v[0] = from[0], v[1] = from[1], v[2] = from[2], v[3] = from[3];
  }
  u32 most = 0;  // |v|, as an integer: a NaN is larger than all
#pragma unroll
  for (int e = 0; e < 4; e++) most = max(most, __float_as_uint(v[e]) & 0x7fffffffu);
  for (int o = 4; o; o >>= 1) most = max(most, __shfl_xor_sync(FULL, most, o));
  float m = __uint_as_float(most), scale = m / 127, inverse = 127 / m;
  if (most < 0x0d800000u) scale = inverse = 0;                                // below 2^-100
  if (most >= 0x7f800000u) scale = __uint_as_float(0x7fffffffu), inverse = 0;  // not finite
  if (!in) return;
  u32 b[4];
#pragma unroll
  for (int e = 0; e < 4; e++) b[e] = inverse ? __float_as_uint(rintf(v[e] * inverse)) >> 16 : 0;
  size_t tile = (size_t)(t / 8) * wide + k / 32;
  u16* to = out + tile * (TILE / 2) + t % 8 * 32;
  u32 low = b[0] | b[1] << 16, high = b[2] | b[3] << 16;
  if (order == 1) {
    u32* pair = (u32*)to + k % 8 / 2 * 4 + c;
    pair[0] = low, pair[4] = high;
  } else {
    *(u64*)(to + (c ^ (t % 8 / 2)) * 8 + k % 8) = low | (u64)high << 32;
  }
  if (k % 32 == 0) scales[tile * 8 + t % 8] = scale;
}

GPU float element(const u8* tile, int row, int k) { return from_f16(*(const u16*)(tile + 256 + 2 * row)) * (float)(signed char)tile[place_of(row, k)]; }

// Row ids[i] of a table of n rows.
KERNEL(256) embed_quant(float* out, int os, const u8* table, int n, const int* ids, int is, int rows, int cols, u64* fault, u32 tag) {
  if (stopped(fault, tag)) return;
  int c = blockIdx.x * 256 + threadIdx.x, wide = cols / 32;
  for (int i = blockIdx.y; i < rows; i += gridDim.y) {
    int r = ids[(size_t)i * is];
    if (r < 0 || r >= n) {
      if (blockIdx.x == 0 && threadIdx.x == 0) fail(fault, tag, i, OUTSIDE);
      continue;
    }
    if (c < cols) out[(size_t)i * os + c] = element(table + ((size_t)(r / 8) * wide + c / 32) * QTILE, r % 8, c % 32);
  }
}

// Piece `piece` of rows first … first+rows-1, a multiple of 32 and those up to one zeros, as a weight's tiles of linear's; thread
// (row, element). Rows of `n` there are.
KERNEL(256) unpack_quant(u16* out, const u8* w, int first, int rows, int n, int cols, int piece, u64* fault, u32 tag) {
  if (stopped(fault, tag)) return;
  int wide = cols / 32, k = blockIdx.x * 256 + threadIdx.x;
  if (k >= cols) return;
  for (int i = blockIdx.y; i < rows; i += gridDim.y) {
    int row = first + i;
    float v = row < n ? element(w + ((size_t)(row / 8) * wide + k / 32) * QTILE, row % 8, k % 32) : 0.f;
    for (int p = 0; p < piece; p++) v -= from_bf16(to_bf16(v));
    out[((size_t)(i / 8) * wide + k / 32) * (TILE / 2) + i % 8 * 32 + (k % 32 / 8 ^ i % 8 / 2) * 8 + k % 8] = to_bf16(v);
  }
}

// s of tiles lo … hi-1, of a segment: 16 outputs, whose rows of tiles are at w and at w + next, by N × 8 tokens, a row of tiles
// every `apart` bytes from x on, of which there are so many. Where activations are integers, scales are those of the tiles at x.
template <int N, int P, bool I>
GPU void segment(float (&s)[N][4], const u8* w, size_t next, const u8* x, size_t apart, const float* scales, int there, int lo, int hi) {
#pragma unroll
  for (int t = 0; t < N; t++) s[t][0] = s[t][1] = s[t][2] = s[t][3] = 0;
  for (int k = lo; k < hi; k++) {
    const u8 *low = w + (size_t)k * QTILE, *high = low + next;
    u32 a[8];
    fragment(a, low, high);
    float f = scale_of(low), g = scale_of(high);
#pragma unroll
    for (int t = 0; t < N; t++) {
      float sum[4];
#pragma unroll
      for (int p = P - 1; p >= 0; p--) {
        uint4 b = ((const uint4*)(x + min(t, there - 1) * apart + ((size_t)k * P + p) * TILE))[lane_id()];
        float d[4] = {};
        mma16816(d, a[0], a[1], a[2], a[3], b.x, b.y);
        mma16816(d, a[4], a[5], a[6], a[7], b.z, b.w);
#pragma unroll
        for (int e = 0; e < 4; e++) sum[e] = p == P - 1 ? d[e] : sum[e] + d[e];
      }
      float2 by = make_float2(1, 1);
      if (I) by = *(const float2*)(scales + (min(t, there - 1) * (apart / TILE) + k) * 8 + lane_id() % 4 * 2);
#pragma unroll
      for (int e = 0; e < 4; e++) {
        float scale = e < 2 ? f : g;
        if (I) scale *= e % 2 ? by.y : by.x;
        s[t][e] = fmaf(sum[e], scale, s[t][e]);
      }
    }
  }
}

#define QUANT float *out, int os, const u8 *w, const u8 *x, const float *scales, const float *bias, int rows, int n, int wide, int pieces, u64 *fault, u32 tag

// Element e of a lane's sums is output row g + 8(e/2) and token 2c + e%2.
GPU int output_of(int e) { return lane_id() / 4 + e / 2 * 8; }
GPU int token_of(int e) { return lane_id() % 4 * 2 + e % 2; }

GPU void put(float* out, int os, const float* bias, int rows, int n, int t, int o, float s) {
  if (t < rows && o < n) out[(size_t)t * os + o] = bias ? s + bias[o] : s;
}

template <int P, bool I> GPU void define(QUANT) {
  size_t row = (size_t)wide * QTILE;
  w += blockIdx.x * 2 * row;
  x += (size_t)blockIdx.y * wide * TILE * P;
  if (I) scales += (size_t)blockIdx.y * wide * 8;
  float all[4] = {}, s[1][4];
  for (int k = 0; k < wide; k += SEGMENT) {
    segment<1, P, I>(s, w, row, x, 0, scales, 1, k, min(wide, k + SEGMENT));
    for (int e = 0; e < 4; e++) all[e] += s[0][e];
  }
  for (int e = 0; e < 4; e++) put(out, os, bias, rows, n, blockIdx.y * 8 + token_of(e), blockIdx.x * 16 + output_of(e), all[e]);
}

template <int N, int P, bool I> GPU void few(float (&sums)[8][N * 128], QUANT) {
  constexpr int EACH = (N * 128 + 255) / 256;  // sums of a thread
  size_t row = (size_t)wide * QTILE;
  w += blockIdx.x * 2 * row;
  x += (size_t)blockIdx.y * N * wide * TILE * P;
  if (I) scales += (size_t)blockIdx.y * N * wide * 8;
  int there = (rows + 7) / 8 - blockIdx.y * N;
  float all[EACH] = {}, s[N][4];
  for (int k = 0; k < wide; k += 8 * SEGMENT) {
    int lo = k + warp_id() * SEGMENT;
    if (lo < wide) {
      segment<N, P, I>(s, w, row, x, (size_t)wide * TILE * P, scales, there, lo, min(wide, lo + SEGMENT));
#pragma unroll
      for (int t = 0; t < N; t++)
        for (int e = 0; e < 4; e++) sums[warp_id()][(t * 8 + token_of(e)) * 16 + output_of(e)] = s[t][e];
    }
    __syncthreads();
    int parts = min(8, (wide - k + SEGMENT - 1) / SEGMENT);
    for (int i = 0; i < EACH; i++)
      if (i * 256 + threadIdx.x < N * 128)
        for (int p = 0; p < parts; p++) all[i] += sums[p][i * 256 + threadIdx.x];
    __syncthreads();
  }
  for (int i = 0; i < EACH; i++) {
    int at = i * 256 + threadIdx.x;
    if (at < N * 128) put(out, os, bias, rows, n, blockIdx.y * N * 8 + at / 16, blockIdx.x * 16 + at % 16, all[i]);
  }
}

#define PASS out, os, w, x, scales, bias, rows, n, wide, pieces, fault, tag

KERNEL(32) quant_v1(QUANT) {
  if (stopped(fault, tag)) return;
  if (scales) define<1, true>(PASS);
  else if (pieces == 1) define<1, false>(PASS);
  else define<3, false>(PASS);
}

#define FEW(N)                                       \
  __shared__ float sums[8][N * 128];                 \
  if (stopped(fault, tag)) return;                   \
  if (scales) few<N, 1, true>(sums, PASS);           \
  else if (pieces == 1) few<N, 1, false>(sums, PASS); \
  else few<N, 3, false>(sums, PASS);

KERNEL(256, 2) quant_few8(QUANT) { FEW(1) }
KERNEL(256, 2) quant_few16(QUANT) { FEW(2) }
KERNEL(256) quant_few32(QUANT) { FEW(4) }
