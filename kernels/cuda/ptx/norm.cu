// norm: RMSNorm over runs of n columns, its gradient, and the sum of squares of a tensor.
// (Zhang and Sennrich 2019)
//   rmsnorm_v1   a warp a run
//   rmsnorm      a block of 256 a run: for runs of 1024 and more, whose latency a warp cannot hide
// The order of a run's sum is fixed by n: lanes (or threads) take every 32nd (256th) element, then halves.
#include "gpu.h"

// 1 / sqrt(mean + eps)
GPU float inverse_root(float sum, int n, float eps) { return 1.f / sqrtf(sum / (float)n + eps); }

KERNEL(256) rmsnorm_v1(float* out, int os, const float* x, int xs, const float* w, int rows, int runs, int n, float eps, u64* fault, u32 tag) {
  if (stopped(fault, tag)) return;
  int run = blockIdx.x * 8 + warp_id();
  if (run >= rows * runs) return;
  int at = run % runs * n;
  x += (size_t)(run / runs) * xs + at;
  out += (size_t)(run / runs) * os + at;
  float s = 0;
  for (int j = lane_id(); j < n; j += 32) s = fmaf(x[j], x[j], s);
  float r = inverse_root(warp_sum(s), n, eps);
  for (int j = lane_id(); j < n; j += 32) out[j] = x[j] * r * w[j];
}

KERNEL(256) rmsnorm(float* out, int os, const float* x, int xs, const float* w, int rows, int runs, int n, float eps, u64* fault, u32 tag) {
  __shared__ float part[8];
  if (stopped(fault, tag)) return;
  int run = blockIdx.x, at = run % runs * n;
  x += (size_t)(run / runs) * xs + at;
  out += (size_t)(run / runs) * os + at;
  float s = 0;
  for (int j = threadIdx.x; j < n; j += 256) s = fmaf(x[j], x[j], s);
  float r = inverse_root(block_sum<8>(s, part), n, eps);
  for (int j = threadIdx.x; j < n; j += 256) out[j] = x[j] * r * w[j];
}

// dx += r·(dy·w - x·r²·s/n) with s = sum dy·w·x. roots gets each run's r.
GPU void grad_run(float* dx, const float* dy, const float* x, const float* w, int n, float r, float s, int from, int step) {
  float q = r * r * s / (float)n;
  for (int j = from; j < n; j += step) dx[j] += r * (dy[j] * w[j] - x[j] * q);
}

KERNEL(256) rmsnorm_grad_v1(float* dx, int ds, const float* dy, int ys, const float* x, int xs, const float* w, float* roots, int rows,
                            int runs, int n, float eps, u64* fault, u32 tag) {
  if (stopped(fault, tag)) return;
  int run = blockIdx.x * 8 + warp_id();
  if (run >= rows * runs) return;
  int at = run % runs * n, row = run / runs;
  dx += (size_t)row * ds + at;
  dy += (size_t)row * ys + at;
  x += (size_t)row * xs + at;
  float a = 0, b = 0;
  for (int j = lane_id(); j < n; j += 32) {
    a = fmaf(x[j], x[j], a);
    b = fmaf(dy[j] * w[j], x[j], b);
  }
  float r = inverse_root(warp_sum(a), n, eps), s = warp_sum(b);
  grad_run(dx, dy, x, w, n, r, s, lane_id(), 32);
  if (lane_id() == 0) roots[run] = r;
}

KERNEL(256) rmsnorm_grad(float* dx, int ds, const float* dy, int ys, const float* x, int xs, const float* w, float* roots, int rows,
                         int runs, int n, float eps, u64* fault, u32 tag) {
  __shared__ float part[16];
  if (stopped(fault, tag)) return;
  int run = blockIdx.x, at = run % runs * n, row = run / runs;
  dx += (size_t)row * ds + at;
  dy += (size_t)row * ys + at;
  x += (size_t)row * xs + at;
  float a = 0, b = 0;
  for (int j = threadIdx.x; j < n; j += 256) {
    a = fmaf(x[j], x[j], a);
    b = fmaf(dy[j] * w[j], x[j], b);
  }
  float r = inverse_root(block_sum<8>(a, part), n, eps), s = block_sum<8>(b, part + 8);
  grad_run(dx, dy, x, w, n, r, s, threadIdx.x, 256);
  if (threadIdx.x == 0) roots[run] = r;
}

// dw += dy·x·r, rows in order and in a row its runs: a thread has a column.
KERNEL(64) rmsnorm_grad_weight(float* dw, const float* dy, int ys, const float* x, int xs, const float* roots, int rows, int runs, int n,
                               u64* fault, u32 tag) {
  if (stopped(fault, tag)) return;
  int j = blockIdx.x * 64 + threadIdx.x;
  if (j >= n) return;
  float s = dw[j];
  for (int i = 0; i < rows; i++)
    for (int u = 0; u < runs; u++) s = fmaf(dy[(size_t)i * ys + u * n + j] * x[(size_t)i * xs + u * n + j], roots[i * runs + u], s);
  dw[j] = s;
}

// The sum of squares of each piece of 8192 elements, rows end to end; then of all pieces, in double.
KERNEL(256) squares_part(float* parts, const float* x, int xs, int rows, int cols, u64* fault, u32 tag) {
  __shared__ float part[8];
  if (stopped(fault, tag)) return;
  size_t all = (size_t)rows * cols, lo = (size_t)blockIdx.x * 8192, hi = lo + 8192 < all ? lo + 8192 : all;
  float s = 0;
  for (size_t e = lo + threadIdx.x; e < hi; e += 256) {
    float v = xs == cols ? x[e] : x[e / cols * xs + e % cols];
    s = fmaf(v, v, s);
  }
  s = block_sum<8>(s, part);
  if (threadIdx.x == 0) parts[blockIdx.x] = s;
}

KERNEL(256) squares_join(float* out, const float* parts, int n, u64* fault, u32 tag) {
  __shared__ double sums[256];
  if (stopped(fault, tag)) return;
  double s = 0;
  for (int i = threadIdx.x; i < n; i += 256) s += (double)parts[i];
  sums[threadIdx.x] = s;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < 256; i++) s += sums[i];
    *out = (float)s;
  }
}
