// linear: products of a frozen bf16 weight, out = x·Wᵀ + bias and dx += dout·W, by mma.sync m16n8k16 with
// the weight as the instruction's 16 rows and tokens as its 8 columns, f32 sums.
//
// A weight lies in tiles of 8 rows × 32 columns (512 bytes; a row is 4 chunks of 8, chunk c of row r at place
// c ^ r/2), rows of tiles of 32 columns, columns of tiles going fastest; both sides padded with zeros, rows
// to 32. So a warp reads a tile with one 16-byte load a lane, conflicts in no bank, and ldmatrix can turn it.
// Tokens are brought into the same tiles (without the exchange of chunks) by pack_tokens, as `pieces` bf16
// numbers: with 1 an activation is rounded to bf16; with 3 they add up to the f32 value exactly, and the
// product has f32 accuracy for three times the instructions.
//
// One order, fixed by the length K: segments of 8 tiles (256 terms), each from zero: tile by tile, piece by
// piece, two instructions a tile; the segments' sums are added in order. An instruction takes its 16 terms
// in the order that the lanes' 16-byte loads give, the same everywhere.
//   *_v1          a warp 16 outputs (32 for the gradient) × 8 tokens, segment after segment: the definition
//   linear_few    a block of 8 warps 16 outputs × 8, 16 or 32 tokens, segments side by side, added in order
//                 through shared memory: weights are read once, which is all that counts for few tokens
//   linear_many   a block 128 outputs × 128 tokens, tiles through three stages of shared memory by
//                 asynchronous copies, segments one after another; linear_grad likewise
#include "gpu.h"

#define TILE 256    // elements
#define SEGMENT 8   // tiles

GPU const uint4* tile_at(const u16* x, size_t i) { return (const uint4*)(x + i * TILE); }

// A lane's 16 bytes of a weight's tile.
GPU int weight_slot(int lane) { return (lane & ~3) | ((lane & 3) ^ (lane >> 3 & 3)); }

// Four of a row's terms from k on, zeros outside.
GPU float4 four(const float* row, int k, int cols, bool there) {
  if (there && k + 3 < cols && aligned16(row + k)) return *(const float4*)(row + k);
  return make_float4(there && k < cols ? row[k] : 0.f, there && k + 1 < cols ? row[k + 1] : 0.f,
                     there && k + 2 < cols ? row[k + 2] : 0.f, there && k + 3 < cols ? row[k + 3] : 0.f);
}

// What is left of v after b of it: nothing of an infinity or NaN.
GPU float left_of(float v, u32 b) {
  float rest = v - from_bf16((u16)b);
  return fabsf(rest) < INFINITY ? rest : 0.f;
}

// Tokens to tiles: thread (row, four terms), so that a warp reads and writes whole sectors. Order 0 has the 8 terms of a
// chunk in a row; order 1 has pairs from each 8 of the 32, which is the order of ldmatrix; order 2 is 0 with chunks exchanged
// as a weight's. Rows up to a multiple of 8 are written, with zeros.
KERNEL(256) pack_tokens(u16* out, const float* x, int xs, int rows, int cols, int pieces, int order, u64* fault, u32 tag) {
  if (stopped(fault, tag)) return;
  int wide = (cols + 31) / 32, k = (blockIdx.x * 256 + threadIdx.x) * 4, t = blockIdx.y, c = k % 32 / 8;
  if (k >= wide * 32) return;
  float4 v = four(x + (size_t)t * xs, k, cols, t < rows);
  for (int p = 0; p < pieces; p++) {
    u32 b[4] = {to_bf16(v.x), to_bf16(v.y), to_bf16(v.z), to_bf16(v.w)};
    v = make_float4(left_of(v.x, b[0]), left_of(v.y, b[1]), left_of(v.z, b[2]), left_of(v.w, b[3]));
    u16* to = out + (((size_t)(t / 8) * wide + k / 32) * pieces + p) * TILE + t % 8 * 32;
    u32 low = b[0] | b[1] << 16, high = b[2] | b[3] << 16;
    if (order == 1) {
      u32* pair = (u32*)to + k % 8 / 2 * 4 + c;
      pair[0] = low, pair[4] = high;
    } else {
      *(u64*)(to + (order == 2 ? c ^ (t % 8 / 2) : c) * 8 + k % 8) = low | (u64)high << 32;
    }
  }
}

// Rows from `first` on of a bf16 weight, row by row, to its tiles; thread (row, element).
KERNEL(256) pack_weight(u16* out, const u16* x, int first, int rows, int cols, u64* fault, u32 tag) {
  if (stopped(fault, tag)) return;
  int wide = (cols + 31) / 32, k = blockIdx.x * 256 + threadIdx.x;
  if (k >= cols) return;
  for (int i = blockIdx.y; i < rows; i += gridDim.y) {
    int n = first + i, chunk = (k % 32 / 8) ^ (n % 8 / 2);
    out[((size_t)(n / 8) * wide + k / 32) * TILE + n % 8 * 32 + chunk * 8 + k % 8] = x[(size_t)i * cols + k];
  }
}

// Both instructions of a tile of 32 terms, for 16 outputs (a) and 8 tokens (b).
GPU void tile_mma(float (&d)[4], const u32 (&a)[8], uint4 b) {
  mma16816(d, a[0], a[1], a[2], a[3], b.x, b.y);
  mma16816(d, a[4], a[5], a[6], a[7], b.z, b.w);
}

// The lane's registers of 16 outputs from its 16 bytes of their two tiles.
GPU void registers(u32 (&a)[8], uint4 u, uint4 v) {
  a[0] = u.x, a[1] = v.x, a[2] = u.y, a[3] = v.y;
  a[4] = u.z, a[5] = v.z, a[6] = u.w, a[7] = v.w;
}

// d, from zero, over tiles lo … hi-1: w and w + next are the weight's rows of tiles, x the tokens' (one
// every `apart` elements).
template <int N> GPU void segment(float (&d)[N][4], const u16* w, size_t next, const u16* x, size_t apart, int lo, int hi, int pieces) {
  int lane = lane_id(), slot = weight_slot(lane);
#pragma unroll
  for (int t = 0; t < N; t++) d[t][0] = d[t][1] = d[t][2] = d[t][3] = 0;
#pragma unroll 4
  for (int k = lo; k < hi; k++) {
    u32 a[8];
    registers(a, tile_at(w, k)[slot], tile_at(w + next, k)[slot]);
    for (int p = 0; p < pieces; p++)
#pragma unroll
      for (int t = 0; t < N; t++) tile_mma(d[t], a, tile_at(x + t * apart, (size_t)k * pieces + p)[lane]);
  }
}

// Element e of a lane's d is output row/… of the tile: rows g, g+8 and tokens 2c, 2c+1.
GPU int output_of(int e) { return lane_id() / 4 + e / 2 * 8; }
GPU int token_of(int e) { return lane_id() % 4 * 2 + e % 2; }

#define LINEAR float *out, int os, const u16 *w, const u16 *x, const float *bias, int rows, int n, int wide, int pieces, u64 *fault, u32 tag

GPU void put(float* out, int os, const float* bias, int rows, int n, int t, int o, float s) {
  if (t < rows && o < n) out[(size_t)t * os + o] = bias ? s + bias[o] : s;
}

KERNEL(32) linear_v1(LINEAR) {
  if (stopped(fault, tag)) return;
  size_t row = (size_t)wide * TILE;
  w += blockIdx.x * 2 * row;
  x += blockIdx.y * row * pieces;
  float s[4] = {}, d[1][4];
  for (int k = 0; k < wide; k += SEGMENT) {
    segment<1>(d, w, row, x, 0, k, min(wide, k + SEGMENT), pieces);
    for (int e = 0; e < 4; e++) s[e] += d[0][e];
  }
  for (int e = 0; e < 4; e++) put(out, os, bias, rows, n, blockIdx.y * 8 + token_of(e), blockIdx.x * 16 + output_of(e), s[e]);
}

template <int N> GPU void few(LINEAR) {
  constexpr int EACH = (N * 128 + 255) / 256;  // sums of a thread
  __shared__ float sums[8][N * 128];
  if (stopped(fault, tag)) return;
  size_t row = (size_t)wide * TILE;
  w += blockIdx.x * 2 * row;
  float s[EACH] = {}, d[N][4];
  for (int k = 0; k < wide; k += 8 * SEGMENT) {
    int lo = k + warp_id() * SEGMENT;
    if (lo < wide) {
      segment<N>(d, w, row, x, row * pieces, lo, min(wide, lo + SEGMENT), pieces);
#pragma unroll
      for (int t = 0; t < N; t++)
        for (int e = 0; e < 4; e++) sums[warp_id()][(t * 8 + token_of(e)) * 16 + output_of(e)] = d[t][e];
    }
    __syncthreads();
    int parts = min(8, (wide - k + SEGMENT - 1) / SEGMENT);
    for (int i = 0; i < EACH; i++)
      if (i * 256 + threadIdx.x < N * 128)
        for (int p = 0; p < parts; p++) s[i] += sums[p][i * 256 + threadIdx.x];
    __syncthreads();
  }
  for (int i = 0; i < EACH; i++) {
    int at = i * 256 + threadIdx.x;
    if (at < N * 128) put(out, os, bias, rows, n, at / 16, blockIdx.x * 16 + at % 16, s[i]);
  }
}

#define PASS out, os, w, x, bias, rows, n, wide, pieces, fault, tag

KERNEL(256, 2) linear_few8(LINEAR) { few<1>(PASS); }
KERNEL(256, 2) linear_few16(LINEAR) { few<2>(PASS); }
KERNEL(256, 2) linear_few32(LINEAR) { few<4>(PASS); }

// ---- 128 × 128 tiles. A stage holds 16 tiles of the weight and 16·pieces of the tokens.

#define STAGES 3

// Where the weight's tiles of a stage come from, and the lane's registers of 16 outputs × 32 terms of them:
// outputs number m of the block's eight.
struct Straight {
  // Tiles: output/8, one column of tiles.
  static GPU size_t from(int tile, int step, int block, int wide) { return (size_t)(block * 16 + tile) * wide + step; }
  static GPU bool there(int tile, int step, int block, int high, int wide) { return block * 16 + tile < high && step < wide; }
  static GPU void fragment(u32 (&a)[8], const u16* stage, int m) {
    int slot = weight_slot(lane_id());
    registers(a, tile_at(stage, m * 2)[slot], tile_at(stage, m * 2 + 1)[slot]);
  }
};

struct Turned {
  // Tiles: term/8 (4 of them) by output/32 (4 of them): number term/8·4 + output/32.
  static GPU size_t from(int tile, int step, int block, int wide) { return (size_t)(step * 4 + tile / 4) * wide + block * 4 + tile % 4; }
  static GPU bool there(int tile, int step, int block, int high, int wide) { return step * 4 + tile / 4 < high && block * 4 + tile % 4 < wide; }
  static GPU void fragment(u32 (&a)[8], const u16* stage, int m) {
    int i = lane_id() / 8, r = lane_id() % 8, chunk = (m % 2 * 2 + i % 2) ^ (r / 2);
    const u16* at = stage + (i / 2 * 4 + m / 2) * TILE + r * 32 + chunk * 8;
    load_transposed(a[0], a[1], a[2], a[3], at);
    load_transposed(a[4], a[5], a[6], a[7], at + 8 * TILE);
  }
};

// s of the warp: 4 × 16 outputs by 4 × 8 tokens, over `steps` steps of 32 terms. high is the weight's rows
// of tiles, tall the tokens'.
template <class W>
GPU void product(float (&s)[4][4][4], u16* space, const u16* w, const u16* x, int steps, int wide, int high, int tall, int pieces) {
  int size = (16 + 16 * pieces) * TILE, lane = lane_id(), wo = warp_id() / 4, wt = warp_id() % 4;
  auto load = [&](int stage, int step) {
    u16* to = space + stage * size;
    if (step < steps) {
      for (int i = threadIdx.x; i < 16 * 32; i += 256) {
        bool there = W::there(i / 32, step, blockIdx.x, high, wide);
        copy16(to + i * 8, there ? w + W::from(i / 32, step, blockIdx.x, wide) * TILE + i % 32 * 8 : w, there);
      }
      for (int i = threadIdx.x; i < 16 * 32 * pieces; i += 256) {
        int t = blockIdx.y * 16 + i / 32 / pieces, p = i / 32 % pieces;
        copy16(to + 16 * TILE + i * 8, t < tall ? x + (((size_t)t * steps + step) * pieces + p) * TILE + i % 32 * 8 : x, t < tall);
      }
    }
    copies_commit();
  };
  float d[4][4][4];
#pragma unroll
  for (int i = 0; i < 64; i++) s[i / 16][i / 4 % 4][i % 4] = d[i / 16][i / 4 % 4][i % 4] = 0;
  for (int p = 0; p < STAGES - 1; p++) load(p, p);
  for (int step = 0; step < steps; step++) {
    copies_wait<STAGES - 2>();
    __syncthreads();  // this stage is there for all, and all have left the one that is filled next
    load((step + STAGES - 1) % STAGES, step + STAGES - 1);
    const u16* at = space + step % STAGES * size;
    u32 a[4][8];
#pragma unroll
    for (int m = 0; m < 4; m++) W::fragment(a[m], at, wo * 4 + m);
    for (int p = 0; p < pieces; p++)
#pragma unroll
      for (int t = 0; t < 4; t++) {
        uint4 b = tile_at(at + 16 * TILE, (wt * 4 + t) * pieces + p)[lane];
#pragma unroll
        for (int m = 0; m < 4; m++) tile_mma(d[m][t], a[m], b);
      }
    if (step % SEGMENT == SEGMENT - 1 || step == steps - 1)
#pragma unroll
      for (int i = 0; i < 64; i++) {
        s[i / 16][i / 4 % 4][i % 4] += d[i / 16][i / 4 % 4][i % 4];
        d[i / 16][i / 4 % 4][i % 4] = 0;
      }
  }
  copies_wait<0>();
}

KERNEL(256) linear_many(LINEAR) {
  extern __shared__ __align__(16) u16 space[];
  if (stopped(fault, tag)) return;
  float s[4][4][4];
  product<Straight>(s, space, w, x, wide, wide, (n + 31) / 32 * 4, (rows + 7) / 8, pieces);
  int o0 = blockIdx.x * 128 + warp_id() / 4 * 64 + output_of(0), t0 = blockIdx.y * 128 + warp_id() % 4 * 32 + token_of(0);
#pragma unroll
  for (int i = 0; i < 8; i++) {  // the lane's outputs, 8 apart
    if (o0 + 8 * i >= n) break;
    float b = bias ? bias[o0 + 8 * i] : 0.f;
#pragma unroll
    for (int j = 0; j < 8; j++) {
      int t = t0 + j / 2 * 8 + j % 2;
      float v = s[i / 2][j / 2][i % 2 * 2 + j % 2];
      if (t < rows) out[(size_t)t * os + o0 + 8 * i] = bias ? v + b : v;
    }
  }
}

// ---- dx += dout·W: outputs are the weight's columns, terms its rows. x are the tiles of dout, in order 1.

#define GRAD float *dx, int ds, const u16 *w, const u16 *x, int rows, int cols, int n, int pieces, u64 *fault, u32 tag

KERNEL(32) linear_grad_v1(GRAD) {
  __shared__ __align__(16) u16 stage[16 * TILE];  // as a stage of the tiled version; one column of it is used
  if (stopped(fault, tag)) return;
  int wide = (cols + 31) / 32, steps = (n + 31) / 32, lane = lane_id();
  x += (size_t)blockIdx.y * steps * pieces * TILE;
  float s[2][4] = {}, d[2][4] = {};
  for (int step = 0; step < steps; step++) {
    for (int i = 0; i < 4; i++) ((uint4*)(stage + i * 4 * TILE))[lane] = tile_at(w, (size_t)(step * 4 + i) * wide + blockIdx.x)[lane];
    __syncthreads();
    for (int p = 0; p < pieces; p++)
      for (int m = 0; m < 2; m++) {
        u32 a[8];
        Turned::fragment(a, stage, m);
        tile_mma(d[m], a, tile_at(x, (size_t)step * pieces + p)[lane]);
      }
    __syncthreads();
    if (step % SEGMENT == SEGMENT - 1 || step == steps - 1)
      for (int i = 0; i < 8; i++) {
        s[i / 4][i % 4] += d[i / 4][i % 4];
        d[i / 4][i % 4] = 0;
      }
  }
  for (int i = 0; i < 8; i++) {
    int t = blockIdx.y * 8 + token_of(i % 4), o = blockIdx.x * 32 + i / 4 * 16 + output_of(i % 4);
    if (t < rows && o < cols) dx[(size_t)t * ds + o] += s[i / 4][i % 4];
  }
}

KERNEL(256) linear_grad(GRAD) {
  extern __shared__ __align__(16) u16 space[];
  if (stopped(fault, tag)) return;
  int wide = (cols + 31) / 32, steps = (n + 31) / 32;
  float s[4][4][4];
  product<Turned>(s, space, w, x, steps, wide, steps * 4, (rows + 7) / 8, pieces);
  int o0 = blockIdx.x * 128 + warp_id() / 4 * 64 + output_of(0), t0 = blockIdx.y * 128 + warp_id() % 4 * 32 + token_of(0);
#pragma unroll
  for (int i = 0; i < 8; i++) {
    if (o0 + 8 * i >= cols) break;
#pragma unroll
    for (int j = 0; j < 8; j++) {
      int t = t0 + j / 2 * 8 + j % 2;
      if (t < rows) dx[(size_t)t * ds + o0 + 8 * i] += s[i / 2][j / 2][i % 2 * 2 + j % 2];
    }
  }
}
