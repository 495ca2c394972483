// rows: Gather, Scatter, ScatterAdd, Embed, SumRows, and RoPE: what moves or turns whole rows.
#include "gpu.h"

GPU bool outside(int i, int n, u64* fault, u32 tag, int row) {
  if (i >= 0 && i < n) return false;
  if (blockIdx.x == 0 && threadIdx.x == 0) fail(fault, tag, row, OUTSIDE);
  return true;
}

// out[i] = x[rows[i]]. x has n rows.
KERNEL(256) gather(u32* out, int os, const u32* x, int xs, int n, const int* at, int as, int rows, int cols, u64* fault, u32 tag) {
  if (stopped(fault, tag)) return;
  int c = blockIdx.x * 256 + threadIdx.x;
  for (int i = blockIdx.y; i < rows; i += gridDim.y) {
    int r = at[(size_t)i * as];
    if (outside(r, n, fault, tag, i) || c >= cols) continue;
    out[(size_t)i * os + c] = x[(size_t)r * xs + c];
  }
}

// out[rows[i]] = x[i], where rows[i] is not negative. out has n rows.
KERNEL(256) scatter(u32* out, int os, int n, const u32* x, int xs, const int* at, int as, int rows, int cols, u64* fault, u32 tag) {
  if (stopped(fault, tag)) return;
  int c = blockIdx.x * 256 + threadIdx.x;
  for (int i = blockIdx.y; i < rows; i += gridDim.y) {
    int r = at[(size_t)i * as];
    if (r < 0 || outside(r, n, fault, tag, i) || c >= cols) continue;
    out[(size_t)r * os + c] = x[(size_t)i * xs + c];
  }
}

// out[rows[i]] += x[i], i ascending: a thread has a column, so each sum has one writer and one order.
KERNEL(64) scatter_add(float* out, int os, int n, const float* x, int xs, const int* at, int as, int rows, int cols, u64* fault, u32 tag) {
  if (stopped(fault, tag)) return;
  int c = blockIdx.x * 64 + threadIdx.x;
  for (int i = 0; i < rows; i++) {
    int r = at[(size_t)i * as];
    if (outside(r, n, fault, tag, i) || c >= cols) continue;
    out[(size_t)r * os + c] += x[(size_t)i * xs + c];
  }
}

// out += the rows of x in order.
KERNEL(64) sum_rows(float* out, const float* x, int xs, int rows, int cols, u64* fault, u32 tag) {
  if (stopped(fault, tag)) return;
  int c = blockIdx.x * 64 + threadIdx.x;
  if (c >= cols) return;
  float s = out[c];
#pragma unroll 8
  for (int i = 0; i < rows; i++) s += x[(size_t)i * xs + c];
  out[c] = s;
}

// Row ids[i] of a table of f32, row by row.
KERNEL(256) embed_f32(float* out, int os, const float* table, int n, const int* ids, int is, int rows, int cols, u64* fault, u32 tag) {
  if (stopped(fault, tag)) return;
  int c = blockIdx.x * 256 + threadIdx.x;
  for (int i = blockIdx.y; i < rows; i += gridDim.y) {
    int r = ids[(size_t)i * is];
    if (outside(r, n, fault, tag, i) || c >= cols) continue;
    out[(size_t)i * os + c] = table[(size_t)r * cols + c];
  }
}

// The same of a table of bf16 in tiles of 8×32, as linear.cu describes them.
KERNEL(256) embed_bf16(float* out, int os, const u16* table, int n, const int* ids, int is, int rows, int cols, u64* fault, u32 tag) {
  if (stopped(fault, tag)) return;
  int c = blockIdx.x * 256 + threadIdx.x, wide = (cols + 31) / 32;
  for (int i = blockIdx.y; i < rows; i += gridDim.y) {
    int r = ids[(size_t)i * is];
    if (outside(r, n, fault, tag, i) || c >= cols) continue;
    const u16* tile = table + ((size_t)(r / 8) * wide + c / 32) * 256;
    int chunk = (c % 32 / 8) ^ (r % 8 / 2);
    out[(size_t)i * os + c] = from_bf16(tile[r % 8 * 32 + chunk * 8 + c % 8]);
  }
}

// Turns, in place, the pairs (j, j+half) of each head; a row of the table is the cosines of a position,
// then its sines. (Su et al. 2021)
KERNEL(256) rope(float* x, int xs, const int* pos, int ps, const float* table, int ts, int positions, int rows, int heads, int half,
                 float sign, u64* fault, u32 tag) {
  if (stopped(fault, tag)) return;
  int c = blockIdx.x * 256 + threadIdx.x;
  for (int i = blockIdx.y; i < rows; i += gridDim.y) {
    int p = pos[(size_t)i * ps];
    if (outside(p, positions, fault, tag, i) || c >= heads * half) continue;
    int j = c % half;
    const float* t = table + (size_t)p * ts;
    float *a = x + (size_t)i * xs + c / half * 2 * half + j, *b = a + half;
    float cos = t[j], sin = sign * t[half + j], u = *a, v = *b;
    *a = fmaf(u, cos, -(v * sin));
    *b = fmaf(v, cos, u * sin);
  }
}
