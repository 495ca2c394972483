// matmul: c = alpha·a·b + bias, or c += a·b, for f32 tensors of any strides (a transposed factor has its
// strides exchanged). Each element is one chain of fused multiply-adds, the common length ascending, from
// 0 or from c: so a sum may be cut anywhere and continued, and a tile's shape changes no bit.
//   matmul_v1    a thread an element, from global memory
//   matmul_thin  16×16 elements a block, operands 64 deep in shared memory by asynchronous copies, three
//                stages: for the thin products of LoRA, where the length of the chain is all
//   matmul       64×64 elements a block, 4×4 a thread: each value read from shared memory serves four
#include "gpu.h"

#define OPERANDS                                                                                                                  \
  float *c, int cs, const float *a, int am, int ak, const float *b, int bk, int bn, int m, int n, int length, float alpha,        \
      const float *bias, int accumulate, u64 *fault, u32 tag

GPU float finished(float s, float alpha, const float* bias, int j, int accumulate) {
  if (accumulate) return s;
  s *= alpha;
  return bias ? s + bias[j] : s;
}

KERNEL(256) matmul_v1(OPERANDS) {
  if (stopped(fault, tag)) return;
  int i = blockIdx.y * 16 + threadIdx.x / 16, j = blockIdx.x * 16 + threadIdx.x % 16;
  if (i >= m || j >= n) return;
  float s = accumulate ? c[(size_t)i * cs + j] : 0.f;
  for (int k = 0; k < length; k++) s = fmaf(a[(size_t)i * am + (size_t)k * ak], b[(size_t)k * bk + (size_t)j * bn], s);
  c[(size_t)i * cs + j] = finished(s, alpha, bias, j, accumulate);
}

// Copies to[k][i] = x[(i0+i)·si + (k0+k)·sk], zeros outside, along whichever lies end to end.
template <int T, int K> GPU void fetch(float (*to)[T + 4], const float* x, int i0, int k0, int ni, int nk, int si, int sk) {
  for (int e = threadIdx.x; e < T * K; e += 256) {
    int i = sk == 1 ? e / K : e % T, k = sk == 1 ? e % K : e / T;
    bool there = i0 + i < ni && k0 + k < nk;
    copy4(&to[k][i], there ? x + (size_t)(i0 + i) * si + (size_t)(k0 + k) * sk : x, there);
  }
}

template <int D, int K, int STAGES> GPU void tiled(OPERANDS) {
  constexpr int T = 16 * D;
  __shared__ float as[STAGES][K][T + 4], bs[STAGES][K][T + 4];
  if (stopped(fault, tag)) return;
  int i0 = blockIdx.y * T, j0 = blockIdx.x * T, y = threadIdx.x / 16 * D, x = threadIdx.x % 16 * D;
  auto load = [&](int stage, int k0) {
    if (k0 < length) {
      fetch<T, K>(as[stage], a, i0, k0, m, length, am, ak);
      fetch<T, K>(bs[stage], b, j0, k0, n, length, bn, bk);
    }
    copies_commit();
  };
  float s[D][D];
  for (int i = 0; i < D; i++)
    for (int j = 0; j < D; j++) s[i][j] = accumulate && i0 + y + i < m && j0 + x + j < n ? c[(size_t)(i0 + y + i) * cs + j0 + x + j] : 0.f;
  for (int p = 0; p < STAGES - 1; p++) load(p, p * K);
  auto step = [&](int stage, int k) {
    float u[D], v[D];
    for (int i = 0; i < D; i++) {
      u[i] = as[stage][k][y + i];
      v[i] = bs[stage][k][x + i];
    }
    for (int i = 0; i < D; i++)
      for (int j = 0; j < D; j++) s[i][j] = fmaf(u[i], v[j], s[i][j]);
  };
  for (int k0 = 0, stage = 0; k0 < length; k0 += K, stage = (stage + 1) % STAGES) {
    copies_wait<STAGES - 2>();
    __syncthreads();  // this stage is there for all, and all have left the one that is filled next
    load((stage + STAGES - 1) % STAGES, k0 + (STAGES - 1) * K);
    if (length - k0 >= K) {
#pragma unroll 16
      for (int k = 0; k < K; k++) step(stage, k);
    } else {
      for (int k = 0; k < length - k0; k++) step(stage, k);
    }
  }
  copies_wait<0>();
  for (int i = 0; i < D; i++)
    for (int j = 0; j < D; j++)
      if (i0 + y + i < m && j0 + x + j < n)
        c[(size_t)(i0 + y + i) * cs + j0 + x + j] = finished(s[i][j], alpha, bias, j0 + x + j, accumulate);
}

#define PASS c, cs, a, am, ak, b, bk, bn, m, n, length, alpha, bias, accumulate, fault, tag

KERNEL(256) matmul_thin(OPERANDS) { tiled<1, 64, 3>(PASS); }

KERNEL(256) matmul(OPERANDS) { tiled<4, 16, 3>(PASS); }
