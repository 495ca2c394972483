// dist.h: a row's distribution, softmax(logits / temperature) over the allowed ids, and the one order in which its
// exponentials are summed, whether the logits lie in memory or are a product's tile in registers.
//
// A tile is 128 ids. Its sum is of 8 sixteens, ((0+1)+(2+3)) + ((4+5)+(6+7)); a sixteen's of pairs 8 ids apart, and
// these by halves: neighbours first. Tiles are taken up to 1024 ids, a block, one after another, each relative to the
// largest score so far (the online sum of Milakov and Gimelshein 2018); the blocks are added from id 0 on in double,
// relative to the largest of all. A forbidden id counts as one of logit -inf, and so do those beyond the last.
#pragma once
#include "gpu.h"

#define IDS 1024  // of a block
#define TILE_IDS 128

struct Row {
  const float* x;   // x[id] is the logit of id
  const u32* mask;  // bit id%32 of word id/32 allows id; 0: all
  int vocab;
  float a;  // 1 / temperature
  bool greedy;
};

GPU float inverse(const float* temperature, int ts, int i, bool& greedy) {
  float t = temperature ? temperature[(size_t)i * ts] : 1.f;
  greedy = t == 0.f;
  return greedy ? 1.f : 1.f / t;
}

GPU Row row_of(const float* x, int xs, const float* temperature, int ts, const u32* mask, int ms, int vocab, int i) {
  Row r;
  r.x = x + (size_t)i * xs;
  r.mask = mask ? mask + (size_t)i * ms : 0;
  r.vocab = vocab;
  r.a = inverse(temperature, ts, i, r.greedy);
  return r;
}

GPU bool allowed(const u32* mask, int id) { return !mask || (mask[id / 32] >> (id % 32) & 1); }

// ---- parts: of some ids the largest score m, s = Σ e and u = Σ e·ln e, where e = exp(score - m)

struct Part { float m, s, u; };

// What exponentials are relative to where the largest score is m: not to an infinity below all numbers.
GPU float reference(float m) { return m == -INFINITY ? 0.f : m; }

GPU float surplus(float e, float ln) { return ln == -INFINITY ? 0.f : e * ln; }

// Adds ids of which p.m or less is the largest score to p. s and u are relative to m, the largest of all.
GPU void add(Part& p, float m, float s, float u) {
  if (p.s == 0) {
    p = Part{m, s, u};
    return;
  }
  float d = p.m - m, e = exp32(d);
  p.u = fmaf(fmaf(d, p.s, p.u), e, u);
  p.s = fmaf(p.s, e, s);
  p.m = m;
}

// The shares of p in s and u of all ids, relative to m.
GPU double share(const Part& p, float m) { return p.s == 0 ? 0 : (double)p.s * (double)exp32(p.m - m); }
GPU double share_of_surplus(const Part& p, float m) {
  float d = p.m - m;
  return p.s == 0 ? 0 : (double)exp32(d) * fma((double)d, (double)p.s, (double)p.u);
}

GPU float half_sum(float a, float b, bool up, int o) {
  float keep = up ? b : a;
  return keep + __shfl_xor_sync(FULL, up ? a : b, o);
}

// The sum of a tile's 128 numbers, in all lanes: v[k] is of its id 32k + lane.
GPU float tile_sum(const float (&v)[4]) {
  int lane = lane_id();
  bool far = lane & 8, odd = lane & 1;
  float s = half_sum(half_sum(v[0], v[2], far, 8), half_sum(v[1], v[3], far, 8), odd, 1);  // of 32k's k = 2·far + odd
  s += __shfl_xor_sync(FULL, s, 2);
  s += __shfl_xor_sync(FULL, s, 4);   // a sixteen's
  s += __shfl_xor_sync(FULL, s, 16);
  s += __shfl_xor_sync(FULL, s, 1);
  return s + __shfl_xor_sync(FULL, s, 8);
}

// A warp's part of block b; u where U says so.
template <bool U> GPU Part part_of(const Row& r, int b) {
  Part p{-INFINITY, 0, 0};
  for (int tile = b * IDS; tile < min((b + 1) * IDS, r.vocab); tile += TILE_IDS) {
    float x[4], u[4], m = p.m;
#pragma unroll
    for (int k = 0; k < 4; k++) {
      int id = tile + 32 * k + lane_id();
      x[k] = id < r.vocab && allowed(r.mask, id) ? r.x[id] : -INFINITY;
      m = fmaxf(m, x[k] * r.a);
    }
    m = warp_max(m);
#pragma unroll
    for (int k = 0; k < 4; k++) {
      float ln = fmaf(x[k], r.a, -reference(m));
      x[k] = exp32(ln);
      if (U) u[k] = surplus(x[k], ln);
    }
    float s = tile_sum(x);
    add(p, m, s, U ? tile_sum(u) : 0.f);
  }
  return p;
}

// ---- what is said of a row

GPU bool finite(float m, double lse) { return fabsf(m) < INFINITY && lse - lse == 0; }

GPU float log_prob(float x, float a, double lse) { return (float)((double)x * (double)a - lse); }

// Whether id can be scored; else it is a failure of row i.
GPU bool scorable(const u32* mask, int vocab, int id, u64* fault, u32 tag, int i) {
  if (id < 0 || id >= vocab) {
    fail(fault, tag, i, OUTSIDE);
    return false;
  }
  if (!allowed(mask, id)) {
    fail(fault, tag, i, FORBIDDEN);
    return false;
  }
  return true;
}

// coef·∂lp/∂logit of an allowed id, c is coef / temperature: c·(1[id is scored] - softmax).
GPU float gradient(float x, float a, float lse, float c, bool scored) {
  float p = exp32(fmaf(x, a, -lse));
  return scored ? fmaf(p, -c, c) : p * -c;
}
