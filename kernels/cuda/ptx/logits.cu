// logits: what is asked of a row's distribution, softmax(logits / temperature) over the allowed ids:
// LogProb, Entropy, Sample and LogProbGrad. A block has a row; a warp sums a block of 1024 ids at a time, and the
// sums of these are added from id 0 on in double, so the number of warps changes no bit.
// Sample is the inverse of the distribution function, in the definition of kernels.Forward.
#include "gpu.h"

#define IDS 1024

struct Row {
  const float* x;
  const u32* mask;  // bit id%32 of word id/32 allows id; 0: all
  int vocab;
  float a;  // 1 / temperature
  bool greedy;
};

GPU Row row_of(const float* x, int xs, const float* temperature, int ts, const u32* mask, int ms, int vocab, int i) {
  Row r;
  r.x = x + (size_t)i * xs;
  r.mask = mask ? mask + (size_t)i * ms : 0;
  r.vocab = vocab;
  float t = temperature ? temperature[(size_t)i * ts] : 1.f;
  r.greedy = t == 0.f;
  r.a = r.greedy ? 1.f : 1.f / t;
  return r;
}

GPU bool allowed(const Row& r, int id) { return !r.mask || (r.mask[id / 32] >> (id % 32) & 1); }

// The largest score, in all threads. part is a float a warp.
GPU float largest(const Row& r, float* part) {
  float m = -INFINITY;
  for (int id = threadIdx.x; id < r.vocab; id += blockDim.x)
    if (allowed(r, id)) m = fmaxf(m, r.x[id] * r.a);
  m = warp_max(m);
  if (lane_id() == 0) part[warp_id()] = m;
  __syncthreads();
  for (int i = 0; i < blockDim.x / 32; i++) m = fmaxf(m, part[i]);
  return m;
}

GPU float weight(const Row& r, int id, float m) { return allowed(r, id) ? exp32(fmaf(r.x[id], r.a, -m)) : 0.f; }

// Fills sums with the sum of each block of ids, and returns their total in all threads.
GPU double total_of(const Row& r, float m, float* sums, double* total) {
  int blocks = (r.vocab + IDS - 1) / IDS;
  for (int b = warp_id(); b < blocks; b += blockDim.x / 32) {
    float s = 0;
    for (int id = b * IDS + lane_id(); id < (b + 1) * IDS && id < r.vocab; id += 32) s += weight(r, id, m);
    s = warp_sum(s);
    if (lane_id() == 0) sums[b] = s;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    double t = 0;
    for (int b = 0; b < blocks; b++) t += (double)sums[b];
    *total = t;
  }
  __syncthreads();
  return *total;
}

GPU bool finite(float m, double lse) { return fabsf(m) < INFINITY && lse - lse == 0; }

GPU float log_prob(const Row& r, int id, double lse) { return (float)((double)r.x[id] * (double)r.a - lse); }

// Whether id can be scored; else it is a failure of row i.
GPU bool scorable(const Row& r, int id, u64* fault, u32 tag, int i) {
  if (id < 0 || id >= r.vocab) {
    fail(fault, tag, i, OUTSIDE);
    return false;
  }
  if (!allowed(r, id)) {
    fail(fault, tag, i, FORBIDDEN);
    return false;
  }
  return true;
}

KERNEL(512) logprob(float* lp, int ls, float* lse, int es, const float* x, int xs, const int* ids, int is, const float* temperature, int ts,
                    const u32* mask, int ms, int vocab, u64* fault, u32 tag) {
  extern __shared__ float sums[];
  __shared__ float part[16];
  __shared__ double total;
  if (stopped(fault, tag)) return;
  int i = blockIdx.x;
  Row r = row_of(x, xs, temperature, ts, mask, ms, vocab, i);
  float m = largest(r, part);
  double l = (double)m + log64(total_of(r, m, sums, &total));
  if (threadIdx.x) return;
  int id = ids[(size_t)i * is];
  if (!finite(m, l)) {
    fail(fault, tag, i, NOT_FINITE);
  } else if (scorable(r, id, fault, tag, i)) {
    lp[(size_t)i * ls] = log_prob(r, id, l);
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
    if (allowed(r, id) && lp > -INFINITY) s = fmaf(exp32(lp), -lp, s);  // p log p is 0 there
    if (allowed(r, id) && lp != lp) s = lp;
  }
  s = block_sum<8>(s, part);
  if (threadIdx.x == 0) h[(size_t)i * hs] = s;
}

// The lowest allowed id whose score is m, in thread 0.
GPU int arg_largest(const Row& r, float m, int* best) {
  int at = r.vocab;
  for (int id = threadIdx.x; id < r.vocab && at == r.vocab; id += blockDim.x)
    if (allowed(r, id) && r.x[id] * r.a == m) at = id;
  for (int o = 16; o; o >>= 1) at = min(at, __shfl_xor_sync(FULL, at, o));
  if (lane_id() == 0) best[warp_id()] = at;
  __syncthreads();
  for (int i = 0; i < blockDim.x / 32; i++) at = min(at, best[i]);
  return at;
}

// The id at uniform u, in thread 0. The last id of a block that has a probability gets what is left of it.
GPU int drawn(const Row& r, float m, float u, double total, const float* sums, float* probs, int* block, double* before) {
  double goal = (double)u * total;
  if (threadIdx.x == 0) {
    int at = 0;
    double from = 0, cum = 0;
    for (int b = 0; b < (r.vocab + IDS - 1) / IDS; b++) {
      if (sums[b] > 0) {
        at = b;
        from = cum;
      }
      cum += (double)sums[b];
      if (cum > goal) break;
    }
    *block = at;
    *before = from;
  }
  __syncthreads();
  int lo = *block * IDS, n = min(IDS, r.vocab - lo);
  for (int j = threadIdx.x; j < n; j += blockDim.x) probs[j] = weight(r, lo + j, m);
  __syncthreads();
  int last = 0;
  if (threadIdx.x == 0) {
    double cum = *before;
    for (int j = 0; j < n; j++) {
      float p = probs[j];
      if (p > 0) last = j;
      cum += (double)p;
      if (cum > goal) break;
    }
  }
  return lo + last;
}

KERNEL(512) sample(int* ids, int is, float* lp, int ls, const float* x, int xs, const float* uniform, int us, const float* temperature,
                   int ts, const u32* mask, int ms, int vocab, u64* fault, u32 tag) {
  extern __shared__ float sums[];
  __shared__ float probs[IDS], part[16];
  __shared__ double total, before;
  __shared__ int best[16], block;
  if (stopped(fault, tag)) return;
  int i = blockIdx.x;
  Row r = row_of(x, xs, temperature, ts, mask, ms, vocab, i);
  float m = largest(r, part);
  double t = total_of(r, m, sums, &total), l = (double)m + log64(t);
  if (!finite(m, l)) {
    if (threadIdx.x == 0) fail(fault, tag, i, NOT_FINITE);
    return;
  }
  int id = r.greedy ? arg_largest(r, m, best) : drawn(r, m, uniform[(size_t)i * us], t, sums, probs, &block, &before);
  if (threadIdx.x) return;
  ids[(size_t)i * is] = id;
  lp[(size_t)i * ls] = log_prob(r, id, l);
}

// dlogits = coef·(1[id] - softmax)/temperature, 0 where the mask forbids. dlogits may be logits.
KERNEL(256) logprob_grad(float* d, int ds, const float* x, int xs, const float* lse, int es, const int* ids, int is, const float* coef,
                         int cs, const float* temperature, int ts, const u32* mask, int ms, int rows, int vocab, u64* fault, u32 tag) {
  if (stopped(fault, tag)) return;
  int j = blockIdx.x * 256 + threadIdx.x;
  for (int i = blockIdx.y; i < rows; i += gridDim.y) {
    Row r = row_of(x, xs, temperature, ts, mask, ms, vocab, i);
    int id = ids[(size_t)i * is];
    if (id < 0 || id >= vocab || !allowed(r, id)) {
      if (j == 0) scorable(r, id, fault, tag, i);
      continue;
    }
    if (j >= vocab) continue;
    float c = coef[(size_t)i * cs] * r.a, g = 0;
    if (allowed(r, j)) {
      float p = exp32(fmaf(r.x[j], r.a, -lse[(size_t)i * es]));
      g = j == id ? fmaf(p, -c, c) : p * -c;
    }
    d[(size_t)i * ds + j] = g;
  }
}
