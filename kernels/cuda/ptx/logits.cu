// logits: what is asked of a row's distribution: LogProb, Entropy, Sample and LogProbGrad. A block has a row; its warps
// sum blocks of ids side by side, in the order of dist.h, so that the number of warps changes no bit, and the row is
// read once for its sum.
// Sample is the inverse of the distribution function, in the definition of kernels.Forward.
#include "dist.h"

// The dynamic shared memory of a row's block: a double and two floats a block of ids.
struct Parts {
  double* shares;
  float *largest, *sums;
};

GPU Parts parts_in(double* space, int vocab) {
  int blocks = (vocab + IDS - 1) / IDS;
  float* f = (float*)(space + blocks);
  return Parts{space, f, f + blocks};
}

// Fills p with the parts of each block of ids and with their shares of the total, which it returns in all threads, as
// it does m, the largest score.
GPU double total_of(const Row& r, Parts p, float& m, double* total) {
  int blocks = (r.vocab + IDS - 1) / IDS;
  for (int b = warp_id(); b < blocks; b += blockDim.x / 32) {
    Part part = part_of<false>(r, b);
    if (lane_id() == 0) p.largest[b] = part.m, p.sums[b] = part.s;
  }
  __syncthreads();
  m = -INFINITY;
  for (int b = 0; b < blocks; b++) m = fmaxf(m, p.largest[b]);
  for (int b = threadIdx.x; b < blocks; b += blockDim.x) p.shares[b] = share(Part{p.largest[b], p.sums[b], 0}, m);
  __syncthreads();
  if (threadIdx.x == 0) {
    double t = 0;
    for (int b = 0; b < blocks; b++) t += p.shares[b];
    *total = t;
  }
  __syncthreads();
  return *total;
}

KERNEL(512) logprob(float* lp, int ls, float* lse, int es, const float* x, int xs, const int* ids, int is, const float* temperature, int ts,
                    const u32* mask, int ms, int vocab, u64* fault, u32 tag) {
  extern __shared__ double space[];
  __shared__ double total;
  if (stopped(fault, tag)) return;
  int i = blockIdx.x;
  Row r = row_of(x, xs, temperature, ts, mask, ms, vocab, i);
  float m;
  double t = total_of(r, parts_in(space, vocab), m, &total), l = (double)m + log64(t);
  if (threadIdx.x) return;
  int id = ids[(size_t)i * is];
  if (!finite(m, l)) {
    fail(fault, tag, i, NOT_FINITE);
  } else if (scorable(r.mask, vocab, id, fault, tag, i)) {
    lp[(size_t)i * ls] = log_prob(r.x[id], r.a, l);
    lse[(size_t)i * es] = (float)l;
  }
}

// -Σ p log p; a thread sums every 256th id.
KERNEL(256) entropy(float* h, int hs, const float* x, int xs, const float* lse, int es, const float* temperature, int ts, const u32* mask,
                    int ms, int vocab, u64* fault, u32 tag) {
  __shared__ float part[8];
  if (stopped(fault, tag)) return;
  int i = blockIdx.x;
  Row r = row_of(x, xs, temperature, ts, mask, ms, vocab, i);
  float s = 0, l = lse[(size_t)i * es];
  for (int id = threadIdx.x; id < vocab; id += 256) {
    float lp = fmaf(r.x[id], r.a, -l);
    if (allowed(r.mask, id) && lp > -INFINITY) s = fmaf(exp32(lp), -lp, s);  // p log p is 0 there
    if (allowed(r.mask, id) && lp != lp) s = lp;
  }
  s = block_sum<8>(s, part);
  if (threadIdx.x == 0) h[(size_t)i * hs] = s;
}

// The lowest allowed id whose score is m, in thread 0.
GPU int arg_largest(const Row& r, float m, int* best) {
  int at = r.vocab;
  for (int id = threadIdx.x; id < r.vocab && at == r.vocab; id += blockDim.x)
    if (allowed(r.mask, id) && r.x[id] * r.a == m) at = id;
  for (int o = 16; o; o >>= 1) at = min(at, __shfl_xor_sync(FULL, at, o));
  if (lane_id() == 0) best[warp_id()] = at;
  __syncthreads();
  for (int i = 0; i < blockDim.x / 32; i++) at = min(at, best[i]);
  return at;
}

// The id at uniform u, in thread 0. The last id of a block that has a probability gets what is left of it.
GPU int drawn(const Row& r, float m, float u, double total, Parts p, float* probs, int* block, double* before) {
  double goal = (double)u * total;
  if (threadIdx.x == 0) {
    int at = 0;
    double from = 0, cum = 0;
    for (int b = 0; b < (r.vocab + IDS - 1) / IDS; b++) {
      if (p.shares[b] > 0) {
        at = b;
        from = cum;
      }
      cum += p.shares[b];
      if (cum > goal) break;
    }
    *block = at;
    *before = from;
  }
  __syncthreads();
  int lo = *block * IDS, n = min(IDS, r.vocab - lo);
  float most = p.largest[*block];
  for (int j = threadIdx.x; j < n; j += blockDim.x)
    probs[j] = allowed(r.mask, lo + j) ? exp32(fmaf(r.x[lo + j], r.a, -reference(most))) : 0.f;
  __syncthreads();
  int last = 0;
  if (threadIdx.x == 0) {
    double cum = *before, scale = exp32(most - m);
    for (int j = 0; j < n; j++) {
      if (probs[j] > 0) last = j;
      cum += (double)probs[j] * scale;
      if (cum > goal) break;
    }
  }
  return lo + last;
}

KERNEL(512) sample(int* ids, int is, float* lp, int ls, const float* x, int xs, const float* uniform, int us, const float* temperature,
                   int ts, const u32* mask, int ms, int vocab, u64* fault, u32 tag) {
  extern __shared__ double space[];
  __shared__ float probs[IDS];
  __shared__ double total, before;
  __shared__ int best[16], block;
  if (stopped(fault, tag)) return;
  int i = blockIdx.x;
  Row r = row_of(x, xs, temperature, ts, mask, ms, vocab, i);
  Parts p = parts_in(space, vocab);
  float m;
  double t = total_of(r, p, m, &total), l = (double)m + log64(t);
  if (!finite(m, l)) {
    if (threadIdx.x == 0) fail(fault, tag, i, NOT_FINITE);
    return;
  }
  int id = r.greedy ? arg_largest(r, m, best) : drawn(r, m, uniform[(size_t)i * us], t, p, probs, &block, &before);
  if (threadIdx.x) return;
  ids[(size_t)i * is] = id;
  lp[(size_t)i * ls] = log_prob(r.x[id], r.a, l);
}

// dlogits = coef·(1[id] - softmax)/temperature, 0 where the mask forbids, of columns first … first+cols-1 of the logits,
// which x and d have alone. dlogits may be logits.
KERNEL(256) logprob_grad(float* d, int ds, const float* x, int xs, const float* lse, int es, const int* ids, int is, const float* coef,
                         int cs, const float* temperature, int ts, const u32* mask, int ms, int rows, int cols, int first, int vocab,
                         u64* fault, u32 tag) {
  if (stopped(fault, tag)) return;
  int j = blockIdx.x * 256 + threadIdx.x;
  for (int i = blockIdx.y; i < rows; i += gridDim.y) {
    Row r = row_of(x, xs, temperature, ts, mask, ms, vocab, i);
    int id = ids[(size_t)i * is];
    if (id < 0 || id >= vocab || !allowed(r.mask, id)) {
      if (j == 0) scorable(r.mask, vocab, id, fault, tag, i);
      continue;
    }
    if (j >= cols) continue;
    float c = coef[(size_t)i * cs] * r.a, l = lse[(size_t)i * es];
    d[(size_t)i * ds + j] = allowed(r.mask, first + j) ? gradient(r.x[j], r.a, l, c, first + j == id) : 0.f;
  }
}
