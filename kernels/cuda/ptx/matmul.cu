// matmul: c = alpha·a·b + bias, or c += a·b, for f32 tensors of any strides (a transposed factor has its
// strides exchanged). Each element is one chain of fused multiply-adds, the common length ascending, from
// 0 or from c: so a sum may be cut anywhere and continued, and a tile's shape changes no bit. (lower has the
// products that need no chain.)
//   matmul_v1      a thread an element, from global memory
//   matmul_M_N     a block M × N elements, operands 16 or 32 deep in shared memory by asynchronous copies, two or three stages.
//                  A thread's elements are fours of rows by fours of columns: for i × j of them i + j numbers come from shared
//                  memory, 16 bytes at a time. A multiprocessor reads one number for 32 lanes and does four multiply-adds for
//                  32 lanes in a clock, so 8 × 8 keep both busy; 4 × 4 wait for memory twice as long, single elements eight times.
//     64_128       8 × 8: what an adapter adds, out += low·Bᵀ and dx += dlow·A, whose length is the rank: with 32 the
//                  multiply-adds take 0.12 ms for 6,142 rows of 18,944, what is read and written 0.31
//     32_128, 128_32  8 × 4 and 4 × 8: the gradients of its pairs, sums over the rows of a batch: 0.15 ms of memory's time and
//                  0.18 of shared memory's, where single elements took 1.1
//     64_64, 32_32, 16_16  4 × 4, 4 × 4, 2 × 2: for fewer elements, where blocks for all multiprocessors count for more
// None has been timed; each prediction waits for hardware.
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

// Copies to[k][i] = x[(i0+i)·si + (k0+k)·sk] by THREADS, zeros outside, along whichever lies end to end.
template <int T, int K, int THREADS> GPU void fetch(float (*to)[T + 4], const float* x, int i0, int k0, int ni, int nk, int si, int sk, bool wide) {
  if (wide) {
#pragma unroll
    for (int e = threadIdx.x; e < T / 4 * K; e += THREADS) {
      int i = e % (T / 4) * 4, k = e / (T / 4);
      bool there = i0 + i < ni && k0 + k < nk;
      copy16(&to[k][i], there ? x + i0 + i + (size_t)(k0 + k) * sk : x, there);
    }
    return;
  }
#pragma unroll 4
  for (int e = threadIdx.x; e < T * K; e += THREADS) {
    int i = sk == 1 ? e / K : e % T, k = sk == 1 ? e % K : e / T;
    bool there = i0 + i < ni && k0 + k < nk;
    copy4(&to[k][i], there ? x + (size_t)(i0 + i) * si + (size_t)(k0 + k) * sk : x, there);
  }
}

// Whether fours along the rows (of a factor as it is stored) can be copied at once.
GPU bool fours(const float* x, int si, int sk, int ni) { return si == 1 && aligned16(x) && ((sk | ni) & 3) == 0; }

// V numbers of a row in shared memory: as many as lie end to end.
template <int V> GPU void take(float* to, const float* from) {
  if (V == 4) *(float4*)to = *(const float4*)from;
  else *(float2*)to = *(const float2*)from;
}

// D·E elements a thread, Y × X threads: V of D (W of E) lie beside each other, the others Y·V (X·W) further on.
template <int D, int E, int Y, int X, int K, int STAGES> GPU void tiled(OPERANDS) {
  constexpr int M = D * Y, N = E * X, V = D < 4 ? D : 4, W = E < 4 ? E : 4, THREADS = X * Y;
  __shared__ __align__(16) float as[STAGES][K][M + 4], bs[STAGES][K][N + 4];
  if (stopped(fault, tag)) return;
  int i0 = blockIdx.y * M, j0 = blockIdx.x * N, y = threadIdx.x / X * V, x = threadIdx.x % X * W;
  bool wide_a = fours(a, am, ak, m), wide_b = fours(b, bn, bk, n);
  auto load = [&](int stage, int k0) {
    if (k0 < length) {
      fetch<M, K, THREADS>(as[stage], a, i0, k0, m, length, am, ak, wide_a);
      fetch<N, K, THREADS>(bs[stage], b, j0, k0, n, length, bn, bk, wide_b);
    }
    copies_commit();
  };
  for (int p = 0; p < STAGES - 1; p++) load(p, p * K);
  float s[D][E];
  bool whole = W == 4 && n % 4 == 0 && cs % 4 == 0 && aligned16(c);  // four columns are there or not, and can be had at once
#pragma unroll
  for (int i = 0; i < D; i++)
#pragma unroll
    for (int j = 0; j < E; j += W) {
      int row = i0 + i / V * Y * V + y + i % V, col = j0 + j / W * X * W + x;
      const float* at = c + (size_t)row * cs + col;
#pragma unroll
      for (int e = 0; e < W; e++) s[i][j + e] = 0;
      if (!accumulate || row >= m || col >= n) continue;
      if (whole) take<W>(&s[i][j], at);
      else
#pragma unroll
        for (int e = 0; e < W; e++) s[i][j + e] = col + e < n ? at[e] : 0.f;
    }
  auto step = [&](int stage, int k) {
    float u[D], v[E];
#pragma unroll
    for (int i = 0; i < D; i += V) take<V>(u + i, &as[stage][k][i / V * Y * V + y]);
#pragma unroll
    for (int j = 0; j < E; j += W) take<W>(v + j, &bs[stage][k][j / W * X * W + x]);
#pragma unroll
    for (int i = 0; i < D; i++)
#pragma unroll
      for (int j = 0; j < E; j++) s[i][j] = fmaf(u[i], v[j], s[i][j]);
  };
#pragma unroll 1
  for (int k0 = 0, stage = 0; k0 < length; k0 += K, stage = (stage + 1) % STAGES) {
    copies_wait<STAGES - 2>();
    __syncthreads();  // this stage is there for all, and all have left the one that is filled next
    load((stage + STAGES - 1) % STAGES, k0 + (STAGES - 1) * K);
    if (length - k0 >= K) {
#pragma unroll 4
      for (int k = 0; k < K; k++) step(stage, k);
    } else {
#pragma unroll 1
      for (int k = 0; k < length - k0; k++) step(stage, k);
    }
  }
  copies_wait<0>();
#pragma unroll
  for (int i = 0; i < D; i++)
#pragma unroll
    for (int j = 0; j < E; j += W) {
      int row = i0 + i / V * Y * V + y + i % V, col = j0 + j / W * X * W + x;
      if (row >= m || col >= n) continue;
      float* at = c + (size_t)row * cs + col;
#pragma unroll
      for (int e = 0; e < W; e++)
        if (col + e < n) s[i][j + e] = finished(s[i][j + e], alpha, bias, col + e, accumulate);
      if (whole) *(float4*)at = make_float4(s[i][j], s[i][j + 1], s[i][j + W - 2], s[i][j + W - 1]);
      else
#pragma unroll
        for (int e = 0; e < W; e++)
          if (col + e < n) at[e] = s[i][j + e];
    }
}

#define MATMUL(D, E, Y, X, M, N, K, STAGES)                                                                       \
  KERNEL(Y * X, D * E > 32 ? 3 : 512 / (Y * X)) matmul_##M##_##N(OPERANDS) {                                                       \
    tiled<D, E, Y, X, K, STAGES>(c, cs, a, am, ak, b, bk, bn, m, n, length, alpha, bias, accumulate, fault, tag); \
  }

MATMUL(8, 8, 8, 16, 64, 128, 16, 2)
MATMUL(8, 4, 4, 32, 32, 128, 16, 3)
MATMUL(4, 8, 32, 4, 128, 32, 16, 3)
MATMUL(4, 4, 16, 16, 64, 64, 16, 3)
MATMUL(4, 4, 8, 8, 32, 32, 32, 3)
MATMUL(2, 2, 8, 8, 16, 16, 32, 3)
