// lower: c = alpha·a·b + bias for f32 tensors, a's rows along the common length (matmul has the sums over rows, and those
// that go on from what c holds), by mma.sync: what takes activations to an adapter's few columns, x·Aᵀ and dout·B.
//
// Each number is three bf16 pieces that add up to it; of the nine products of pieces the six that count in f32, smallest first.
//
// One order, fixed by the length: tiles of 32 terms, two instructions each; two tiles are a chunk, summed from zero by the matrix
// unit; 8 chunks are a segment, its chunks' sums added in order from zero; segments' sums are added in order. An instruction takes
// terms 4c … 4c+3 (then 16 + 4c …) with its lanes c, the same everywhere, so that 16-byte loads of a's rows are what it wants.
//   lower_v1       a warp 16 rows × 8 columns, everything from global memory: the definition
//   lower_N        a block of 4 warps 64 rows × N columns: a goes from global memory to registers, a chunk ahead, 128 bytes of
//                  a row at a time, and is used by one warp alone; b is split once for all four, into two stages of shared
//                  memory. b's columns lie along the common length (lower_N) or its rows do not (lower_across_N)
//   the same, cut  a segment a block, left in parts for lower_join: for few rows, whose chains would be all there is
//                  6,142 rows of 18,944 terms, 32 columns: chains in matmul_thin read 300 KB of shared memory a row and 1,000 terms,
//                  1.14 ms; here it is 18 KB, 0.07 ms, beside 0.07 of the matrix units, 0.14 of instructions and 0.15 of
//                  memory. 320 rows of 3,584, 64 columns: 204 µs on matmul's 5 blocks; here 4, on 70
//   next           the six products by wgmma, a's pieces in registers: fewer instructions, once memory is not what is waited for
// None has been timed; each prediction waits for hardware.
#include "split.h"

#define TILE 32      // terms
#define CHUNK 64
#define SEGMENT 512
#define ROWS 64      // of a block

// Four terms of a row from k on, zeros where there are none. wide: whole fours at addresses that are multiples of 16.
GPU float4 four(const float* row, int k, int length, bool there, bool wide) {
  if (wide) return there && k < length ? *(const float4*)(row + k) : make_float4(0, 0, 0, 0);
  return make_float4(there && k < length ? row[k] : 0.f, there && k + 1 < length ? row[k + 1] : 0.f,
                     there && k + 2 < length ? row[k + 2] : 0.f, there && k + 3 < length ? row[k + 3] : 0.f);
}

GPU bool whole(const float* x, int stride, int length) { return aligned16(x) && ((stride | length) & 3) == 0; }

// A lane's part of a tile of a: rows g and g + 8, both fours of each.
struct Rows {
  float4 of[2][2];  // by halves of the tile, by rows

  GPU void fetch(const float* a, int as, int row, int m, int k, int length, bool wide) {
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
      for (int r = 0; r < 2; r++)
        of[half][r] = four(a + (size_t)(row + 8 * r) * as, k + 16 * half + lane_id() % 4 * 4, length, row + 8 * r < m, wide);
  }
};

// A lane's registers of one instruction's rows: of each piece.
GPU void pieces(u32 (&u)[3][4], float4 (&of)[2]) {
#pragma unroll
  for (int p = 0; p < 3; p++)
#pragma unroll
    for (int r = 0; r < 2; r++) u[p][r] = split_bf16(of[r].x, of[r].y), u[p][r + 2] = split_bf16(of[r].z, of[r].w);
}

// The six products of an instruction's rows with groups of eight columns.
template <int T> GPU void products(float (*d)[4], const u32 (&u)[3][4], const uint2 (&b)[T][3]) {
#pragma unroll
  for (int small = 2; small >= 0; small--)
#pragma unroll
    for (int p = 0; p <= small; p++)
#pragma unroll
      for (int t = 0; t < T; t++) mma16816(d[t], u[p][0], u[p][1], u[p][2], u[p][3], b[t][small - p].x, b[t][small - p].y);
}

#define OPERANDS float *c, int cs, const float *a, int as, const float *b, int bk, int bn, int m, int n, int length, float alpha, const float *bias
#define TAIL u64 *fault, u32 tag

// What a lane has of an instruction's sums: rows g and g + 8, columns 2c and 2c + 1.
GPU void put(float* c, int cs, int m, int n, float alpha, const float* bias, const float (&s)[4], int row, int col) {
#pragma unroll
  for (int e = 0; e < 4; e++) {
    int i = row + e / 2 * 8, j = col + lane_id() % 4 * 2 + e % 2;
    if (i < m && j < n) c[(size_t)i * cs + j] = bias ? s[e] * alpha + bias[j] : s[e] * alpha;
  }
}

GPU void add(float (&s)[4], float (&d)[4]) {
#pragma unroll
  for (int e = 0; e < 4; e++) s[e] += d[e], d[e] = 0;
}

// grid: 16 rows, 8 columns
KERNEL(32) lower_v1(OPERANDS, TAIL) {
  if (stopped(fault, tag)) return;
  int g = lane_id() / 4, row = blockIdx.x * 16 + g, col = blockIdx.y * 8 + g;
  float total[4] = {}, s[4] = {}, d[1][4] = {};
  for (int k = 0; k < length; k += TILE) {
    Rows rows;
    rows.fetch(a, as, row, m, k, length, false);
    for (int half = 0; half < 2; half++) {
      float v[4];
      for (int i = 0; i < 4; i++) {
        int at = k + half * 16 + lane_id() % 4 * 4 + i;
        v[i] = col < n && at < length ? b[(size_t)at * bk + (size_t)col * bn] : 0.f;
      }
      u32 u[3][4];
      uint2 w[1][3];
      pieces(u, rows.of[half]);
      for (int p = 0; p < 3; p++) w[0][p].x = split_bf16(v[0], v[1]), w[0][p].y = split_bf16(v[2], v[3]);
      products<1>(d, u, w);
    }
    bool last = k + TILE >= length;
    if ((k + TILE) % CHUNK == 0 || last) add(s, d[0]);
    if ((k + TILE) % SEGMENT == 0 || last) add(total, s);
  }
  put(c, cs, m, n, alpha, bias, total, row, blockIdx.y * 8);
}

// ---- b in shared memory: of each eight columns, of each instruction's 16 terms, of each piece 256 bytes: chunk c of a column,
// eight bytes, are terms 4c … 4c+3. Chunks are exchanged so that what a warp writes of a column lies in other banks.

GPU int chunk_at(int col, int c, int instruction) { return ((col % 8 * 4 + c) ^ (instruction * 4)) * 8; }

GPU int place(int col, int k, int piece) {
  int i = k / 16;
  return ((col / 8 * (CHUNK / 16) + i) * 3 + piece) * 256 + chunk_at(col, k % 16 / 4, i) + k % 4 * 2;
}

// What a thread of 128 brings of a chunk of N columns, along its terms: fours of one column.
template <int N> struct Along {
  float4 of[N / 8];

  GPU void fetch(const float* b, int bk, int bn, int j0, int n, int k, int length) {
    bool wide = whole(b, bn, length);
#pragma unroll
    for (int i = 0; i < N / 8; i++) {
      int u = i * 128 + threadIdx.x, j = j0 + u / 16;
      of[i] = four(b + (size_t)j * bn, k + u % 16 * 4, length, j < n, wide);
    }
  }
  GPU void store(u8* stage) {
#pragma unroll
    for (int i = 0; i < N / 8; i++) {
      int u = i * 128 + threadIdx.x;
#pragma unroll
      for (int p = 0; p < 3; p++) {
        u32 low = split_bf16(of[i].x, of[i].y), high = split_bf16(of[i].z, of[i].w);
        *(u64*)(stage + place(u / 16, u % 16 * 4, p)) = low | (u64)high << 32;
      }
    }
  }
};

// Or across them: pairs of terms of one column, a warp eight columns of four pairs.
template <int N> struct Across {
  float of[N / 4][2];

  GPU static int col(int i) { return (i * 4 + warp_id()) % (N / 8) * 8 + lane_id() % 8; }
  GPU static int term(int i) { return (i * 4 + warp_id()) / (N / 8) * 8 + lane_id() / 8 * 2; }

  GPU void fetch(const float* b, int bk, int bn, int j0, int n, int k, int length) {
#pragma unroll
    for (int i = 0; i < N / 4; i++)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        int j = j0 + col(i), at = k + term(i) + e;
        of[i][e] = j < n && at < length ? b[(size_t)at * bk + (size_t)j * bn] : 0.f;
      }
  }
  GPU void store(u8* stage) {
#pragma unroll
    for (int i = 0; i < N / 4; i++)
#pragma unroll
      for (int p = 0; p < 3; p++) *(u32*)(stage + place(col(i), term(i), p)) = split_bf16(of[i][0], of[i][1]);
  }
};

// A warp's 16 rows × N columns of a chunk.
template <int N> GPU void chunk(float (&d)[N / 8][4], Rows (&a)[2], const u8* stage) {
  constexpr int T = 4;  // groups of columns at a time
#pragma unroll
  for (int i = 0; i < CHUNK / 16; i++) {
    u32 u[3][4];
    pieces(u, a[i / 2].of[i % 2]);
    const u8* at = stage + i * 3 * 256 + chunk_at(lane_id() / 4, lane_id() % 4, i);
#pragma unroll
    for (int t0 = 0; t0 < N / 8; t0 += T) {
      uint2 b[T][3];
#pragma unroll
      for (int j = 0; j < T * 3; j++) b[j / 3][j % 3] = *(const uint2*)(at + ((t0 + j / 3) * (CHUNK / 16) * 3 + j % 3) * 256);
      products<T>(d + t0, u, b);
    }
  }
}

// grid: 64 rows, N columns, segments if they are left in parts, of n columns up to a multiple of N
template <int N, class B> GPU void lower(OPERANDS, float* parts, TAIL) {
  __shared__ __align__(16) u8 stages[2][N / 8 * 2 * 3 * 512];
  if (stopped(fault, tag)) return;
  int row = blockIdx.x * ROWS + warp_id() * 16 + lane_id() / 4, j0 = blockIdx.y * N;
  int first = blockIdx.z * SEGMENT, last = parts ? min(first + SEGMENT, length) : length;
  bool wide = whole(a, as, length);
  float total[N / 8][4] = {}, s[N / 8][4] = {}, d[N / 8][4] = {};
  Rows next[2];
  B others;
  auto fetch = [&](int k) {
    next[0].fetch(a, as, row, m, k, last, wide);
    next[1].fetch(a, as, row, m, k + TILE, last, wide);
    others.fetch(b, bk, bn, j0, n, k, last);
  };
  fetch(first);
#pragma unroll 1
  for (int k = first; k < last; k += CHUNK) {
    u8* stage = stages[k / CHUNK % 2];
    others.store(stage);
    __syncthreads();  // this stage is there for all, and all have left the one that is filled next
    Rows now[2] = {next[0], next[1]};
    if (k + CHUNK < last) fetch(k + CHUNK);
    chunk<N>(d, now, stage);
#pragma unroll
    for (int t = 0; t < N / 8; t++) add(s[t], d[t]);
    if ((k + CHUNK) % SEGMENT == 0 || k + CHUNK >= last)
#pragma unroll
      for (int t = 0; t < N / 8; t++) add(total[t], s[t]);
  }
  if (parts) c = parts + (size_t)blockIdx.z * m * (gridDim.y * N), cs = gridDim.y * N, n = cs, alpha = 1, bias = nullptr;
#pragma unroll
  for (int t = 0; t < N / 8; t++) put(c, cs, m, n, alpha, bias, total[t], row, j0 + 8 * t);
}

#define LOWER(NAME, N, B)                                                                       \
  KERNEL(128, 2) NAME##_##N(OPERANDS, float* parts, TAIL) {                                     \
    lower<N, B<N>>(c, cs, a, as, b, bk, bn, m, n, length, alpha, bias, parts, fault, tag);      \
  }

LOWER(lower, 32, Along)
LOWER(lower, 64, Along)
LOWER(lower_across, 32, Across)
LOWER(lower_across, 64, Across)

// The segments of an element, in order; a row of parts has `across` columns.
KERNEL(256) lower_join(float* c, int cs, int m, int n, const float* parts, int across, int segments, float alpha, const float* bias, TAIL) {
  int i = blockIdx.x * 256 + threadIdx.x, row = i / n, col = i % n;
  if (stopped(fault, tag) || row >= m) return;
  float s = 0;
#pragma unroll 8
  for (int z = 0; z < segments; z++) s += parts[((size_t)z * m + row) * across + col];
  s *= alpha;
  c[(size_t)row * cs + col] = bias ? s + bias[col] : s;
}
