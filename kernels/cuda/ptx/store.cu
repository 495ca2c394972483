// store: RoPE of queries and keys, and the way of keys and values to the cache, in one pass over a step's rows.
//
// Four launches a layer, of next to no work each in a step of few rows, are one.
//   rope, scatter   twice each: the definition (rows.cu)
//   rope_store      three launches a layer less: in a step of 28 layers 84, 0.11 ms at 1.3 us each
#include "gpu.h"

// The rows of x that are out of their table's n are a failure.
GPU bool outside(int i, int n, u64* fault, u32 tag, int row) {
  if (i >= 0 && i < n) return false;
  if (blockIdx.x == 0 && threadIdx.x == 0) fail(fault, tag, row, OUTSIDE);
  return true;
}

// Turns the pairs (j, j+half) of each head of qk in place. Its last kv columns go to row at[i] of kc, and v to that of vc, unless
// that is negative; both have n rows. A thread has a pair, or a column of v. (Su et al. 2021)
KERNEL(256) rope_store(float* qk, int qs, const float* v, int vs, const int* pos, int ps, const float* table, int ts, int positions,
                       float* kc, int ks, float* vc, int cs, int n, const int* at, int as, int rows, int heads, int half, int kv,
                       u64* fault, u32 tag) {
  if (stopped(fault, tag)) return;
  int c = blockIdx.x * 256 + threadIdx.x, pairs = heads * half, keys = 2 * pairs - kv;
  for (int i = blockIdx.y; i < rows; i += gridDim.y) {
    int p = pos[(size_t)i * ps], to = at[(size_t)i * as];
    if (outside(p, positions, fault, tag, i) || (to >= 0 && outside(to, n, fault, tag, i))) continue;
    if (c >= pairs) {
      if (c < pairs + kv && to >= 0) vc[(size_t)to * cs + c - pairs] = v[(size_t)i * vs + c - pairs];
      continue;
    }
    int j = c % half, col = c / half * 2 * half + j;
    const float* t = table + (size_t)p * ts;
    float *a = qk + (size_t)i * qs + col, *b = a + half;
    float cos = t[j], sin = t[half + j], x = *a, y = *b, turned = fmaf(x, cos, -(y * sin)), other = fmaf(y, cos, x * sin);
    *a = turned, *b = other;
    if (col < keys || to < 0) continue;
    float* key = kc + (size_t)to * ks + col - keys;
    key[0] = turned, key[half] = other;
  }
}
