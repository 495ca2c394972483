// score: log-probabilities from parts of the vocabulary's logits, so that all of them are never in memory. Products
// with some thousands of the head's rows at a time give logits, score_parts their parts (see dist.h), and score_join the
// log-probabilities: the very sums of logprob, so its bits. On compute capability 9.0 head90 makes the parts itself.
#include "dist.h"

// The parts of the blocks of ids that begin at first … first+cols-1, whose logits x has; a warp a block. parts has
// `blocks` of them for each row, as (m, s, u, 0); got[i] is set to the logit of row i's id, where it is one of these.
KERNEL(256) score_parts(float4* parts, float* got, const float* x, int xs, const int* ids, int is, const float* temperature, int ts,
                        const u32* mask, int ms, int cols, int first, int vocab, u64* fault, u32 tag) {
  if (stopped(fault, tag)) return;
  int i = blockIdx.y, blocks = (vocab + IDS - 1) / IDS, b = first / IDS + blockIdx.x * 8 + warp_id();
  if (b * IDS >= first + cols) return;
  Row r = row_of(x - first, xs, temperature, ts, mask, ms, vocab, i);
  Part p = part_of<true>(r, b);
  if (lane_id()) return;
  parts[(size_t)i * blocks + b] = make_float4(p.m, p.s, p.u, 0.f);
  int id = ids[(size_t)i * is];
  if (id >= b * IDS && id < min((b + 1) * IDS, vocab)) got[i] = r.x[id];
}

// Puts a row's parts together; h, if it is there, gets the entropy: ln s - u/s of all ids.
KERNEL(128) score_join(float* lp, int ls, float* lse, int es, float* h, int hs, const float4* parts, const float* got, const int* ids,
                       int is, const float* temperature, int ts, const u32* mask, int ms, int vocab, u64* fault, u32 tag) {
  extern __shared__ double shares[];
  if (stopped(fault, tag)) return;
  int i = blockIdx.x, blocks = (vocab + IDS - 1) / IDS;
  double* surpluses = shares + blocks;
  parts += (size_t)i * blocks;
  float m = -INFINITY;
  for (int b = 0; b < blocks; b++) m = fmaxf(m, parts[b].x);
  for (int b = threadIdx.x; b < blocks; b += 128) {
    Part p{parts[b].x, parts[b].y, parts[b].z};
    shares[b] = share(p, m);
    if (h) surpluses[b] = share_of_surplus(p, m);
  }
  __syncthreads();
  if (threadIdx.x) return;
  double t = 0, u = 0;
  for (int b = 0; b < blocks; b++) t += shares[b];
  double l = (double)m + log64(t);
  const u32* allows = mask ? mask + (size_t)i * ms : 0;
  int id = ids[(size_t)i * is];
  if (!finite(m, l)) {
    fail(fault, tag, i, NOT_FINITE);
    return;
  }
  if (!scorable(allows, vocab, id, fault, tag, i)) return;
  bool greedy;
  lp[(size_t)i * ls] = log_prob(got[i], inverse(temperature, ts, i, greedy), l);
  lse[(size_t)i * es] = (float)l;
  if (!h) return;
  for (int b = 0; b < blocks; b++) u += surpluses[b];
  h[(size_t)i * hs] = (float)(log64(t) - u / t);
}
