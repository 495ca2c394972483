// attentiongrad: the gradient of causal attention over whole sequences, from its output and log-sum-exp:
// with p = exp(score - lse), dp = dout·v and delta = dout·out,
//   ds = p (dp - delta) scale;  dq += Σ ds k;  dk += Σ ds q;  dv += Σ p dout.
// Every sum has one writer and one order: dq over keys ascending; dk and dv over the heads that share the key
// head and in each over queries ascending. (Dao 2023, without its atomics)
//   attention_delta          a warp a row and head
//   attention_grad_q_v1      a warp a row and head: a block of 32 keys, a lane each, then its columns
//   attention_grad_kv_v1     a warp a key and key head: a block of 32 queries, a lane each
#include "gpu.h"

#define MOST 256  // columns of a head
#define D (MOST / 32)

#define SHAPE const int *starts, int ss, const int *lengths, int ls, int rows, int heads, int kv, int dim, int most, float scale, u64 *fault, u32 tag

// Query rows lo … hi-1, which are its keys too.
GPU bool sequence(const int* starts, int ss, const int* lengths, int ls, int rows, int most, int s, int& lo, int& hi, u64* fault, u32 tag) {
  lo = starts[(size_t)s * ss];
  hi = starts[(size_t)(s + 1) * ss];
  Reason why = (Reason)0;
  if (lo < 0 || hi < lo || hi > rows || lengths[(size_t)s * ls] != hi - lo)
    why = BAD_SEQUENCE;
  else if (hi - lo > most)
    why = TOO_MANY_QUERIES;
  else
    return true;
  if (threadIdx.x == 0) fail(fault, tag, lo, why);
  return false;
}

KERNEL(32) attention_delta(float* delta, const float* dout, int ds, const float* out, int os, int heads, int dim, u64* fault, u32 tag) {
  if (stopped(fault, tag)) return;
  int row = blockIdx.x / heads, h = blockIdx.x % heads;
  float s = 0;
  for (int d = lane_id(); d < dim; d += 32) s = fmaf(dout[(size_t)row * ds + h * dim + d], out[(size_t)row * os + h * dim + d], s);
  s = warp_sum(s);
  if (lane_id() == 0) delta[blockIdx.x] = s;
}

GPU float dot(const float* a, const float* b, int n) {
  float s = 0;
  for (int d = 0; d < n; d++) s = fmaf(a[d], b[d], s);
  return s;
}

#define OPERANDS                                                                                                          \
  const float *delta, const float *dout, int dos, const float *lse, int es, const float *q, int qs, const float *k, int ks, \
      const float *v, int vs

// grid: query rows of a sequence × heads, sequences
KERNEL(32) attention_grad_q_v1(float* dq, int dqs, OPERANDS, SHAPE) {
  if (stopped(fault, tag)) return;
  int lo, hi, t = blockIdx.x / heads, h = blockIdx.x % heads, lane = lane_id();
  if (!sequence(starts, ss, lengths, ls, rows, most, blockIdx.y, lo, hi, fault, tag) || lo + t >= hi) return;
  int row = lo + t, col = h * kv / heads * dim;
  q += (size_t)row * qs + h * dim;
  dout += (size_t)row * dos + h * dim;
  float l = lse[(size_t)row * es + h], e = delta[row * heads + h], sum[D] = {};
  for (int j0 = 0; j0 <= t; j0 += 32) {
    int n = min(32, t + 1 - j0);
    float g = 0;
    if (lane < n) {
      size_t r = lo + j0 + lane;
      float p = exp32(fmaf(dot(q, k + r * ks + col, dim), scale, -l));
      g = p * (dot(dout, v + r * vs + col, dim) - e) * scale;
    }
    for (int j = 0; j < n; j++) {
      float w = __shfl_sync(FULL, g, j);
#pragma unroll
      for (int i = 0; i < D; i++)
        if (lane + 32 * i < dim) sum[i] = fmaf(w, k[(size_t)(lo + j0 + j) * ks + col + lane + 32 * i], sum[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < D; i++)
    if (lane + 32 * i < dim) dq[(size_t)row * dqs + h * dim + lane + 32 * i] += sum[i];
}

// grid: keys of a sequence × key heads, sequences
KERNEL(32) attention_grad_kv_v1(float* dk, int dks, float* dv, int dvs, OPERANDS, SHAPE) {
  if (stopped(fault, tag)) return;
  int lo, hi, t = blockIdx.x / kv, h = blockIdx.x % kv, lane = lane_id(), group = heads / kv;
  if (!sequence(starts, ss, lengths, ls, rows, most, blockIdx.y, lo, hi, fault, tag) || lo + t >= hi) return;
  int row = lo + t;
  k += (size_t)row * ks + h * dim;
  v += (size_t)row * vs + h * dim;
  float sk[D] = {}, sv[D] = {};
  for (int u = h * group; u < (h + 1) * group; u++)
    for (int i0 = row; i0 < hi; i0 += 32) {
      int n = min(32, hi - i0);
      float p = 0, g = 0;
      if (lane < n) {
        size_t r = i0 + lane;
        p = exp32(fmaf(dot(q + r * qs + u * dim, k, dim), scale, -lse[r * es + u]));
        g = p * (dot(dout + r * dos + u * dim, v, dim) - delta[r * heads + u]) * scale;
      }
      for (int j = 0; j < n; j++) {
        float wp = __shfl_sync(FULL, p, j), wg = __shfl_sync(FULL, g, j);
#pragma unroll
        for (int i = 0; i < D; i++)
          if (lane + 32 * i < dim) {
            sv[i] = fmaf(wp, dout[(size_t)(i0 + j) * dos + u * dim + lane + 32 * i], sv[i]);
            sk[i] = fmaf(wg, q[(size_t)(i0 + j) * qs + u * dim + lane + 32 * i], sk[i]);
          }
      }
    }
#pragma unroll
  for (int i = 0; i < D; i++)
    if (lane + 32 * i < dim) {
      dk[(size_t)row * dks + h * dim + lane + 32 * i] += sk[i];
      dv[(size_t)row * dvs + h * dim + lane + 32 * i] += sv[i];
    }
}
