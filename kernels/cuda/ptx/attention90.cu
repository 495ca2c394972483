// attention90: causal attention on Hopper, both products by wgmma, for heads of up to 128 columns. What a row sees, its
// blocks of 32 keys and its segments of 256 are attention's; a score and a blend are sums of the matrix unit.
//
// Tensors are f32. q, k, v and the weights of keys are split into P bf16 pieces. With 3 their sum is the number itself,
// and a product is the six products of pieces whose sizes matter, smallest first: f32 accuracy at a sixth of the unit's
// rate. With 1 they are rounded to bf16, as activations are. Threads split what they bring, so that keys and values
// come as they are cached, f32, row by row through the pages, and are kept nowhere else.
//
// One order, fixed by a row's number of keys: scores over columns ascending, pieces first; a block's weights added
// within a thread, then within four; values blended 16 keys at a time; segments joined as in attention.
//
// The ladder, for 16k tokens of 32 heads and 8 key heads of 128 columns. Operations of the matrix unit: 2.2e12 with
// causality, times 6 for P = 3. None has been timed: no GPU was at hand.
//   attention90_v1    a warpgroup 64 rows, block by block, everything after everything else: the definition
//   attention90_D_P   128 rows of all heads that share a key head: keys are read once for them, 1 KB a key and its
//                     value, 31 GB in all, nearly all from the L2 cache: 5.5 ms, if that gives 5.6 TB/s. A warpgroup
//                     brings and splits keys and values a block ahead; two of 64 rows each multiply: one's softmax
//                     beside the other's products (1024 cycles a block of both with P = 1, 6144 with 3)
//   fewer instructions   by their counts 16.8 ms with P = 3 and 11.1 ms with 1, 2.9 and 5.7 times the products', came down to
//                     11.1 and 5.1: exp by 12 (P = 1) or 14 where it was 30 and two branches; nothing is compared where all rows
//                     see all of a block; what was before is rescaled when scores have grown by e⁵ alone (the last
//                     idea is FlashAttention-4's); what is brought is looked over as bf16, two numbers at once. So, of 28 heads and 4
//                     key heads: 351 TFLOP/s predicted with P = 1, where the cache is the bound, and 144 with 3, where
//                     shared memory is: q is read six times for each 16 columns, and products of 32 keys are short
//   the same, split   a segment a block of threads, for decode steps: 64 rows are multiplied whatever there are, 3072
//                     cycles a block of keys (P = 3) whose 32 KB take 2260 at the memory's rate: 74 % of it; with P = 1
//                     memory alone counts
//   the same, together   sequences of a decode step that have a segment's keys in the same pages are rows of one block
//                     (together.h): five samples of a prompt multiply its keys once, 35 rows of 64 and not five times 7,
//                     and bring them once. A segment takes one reading of the pages' table more, some 600 ns of its 11
//                     us where there are several sequences
// Next: scores of the next block beside the blend of this one (FlashAttention-3, Shah et al. 2024); keys as the
// instruction's rows for few queries, if it gives the same bits so; a cache of bf16, for half the bytes and products.
#include "hopper.h"
#include "attention.h"
#include "panels.h"
#include "together.h"

// Of a scale, for q to have: so that the largest score is that of the largest product.
GPU float sign(float scale) { return scale < 0 ? -1.f : 1.f; }

// Two rows of one head after some keys.
template <int D> struct State {
  float m[2], l[2], o[D / 2];

  GPU void clear() {
    m[0] = m[1] = -INFINITY, l[0] = l[1] = 0;
#pragma unroll
    for (int i = 0; i < D / 2; i++) o[i] = 0;
  }
  // Turns a block's scores to weights, of which the first n count, and rescales what was before.
  template <int P> GPU void weigh(float (&s)[KEYS / 2], const int (&n)[2], float scale) {
    if (__all_sync(FULL, min(n[0], n[1]) >= KEYS)) weigh_some<P, true>(s, n, scale);
    else weigh_some<P, false>(s, n, scale);
  }
  // All of them count if ALL, to the same bits. m is not always the largest score but near it: it stays, and with it what was before, until
  // one is e⁵ times as much.
  template <int P, bool ALL> GPU void weigh_some(float (&s)[KEYS / 2], const int (&n)[2], float scale) {
    float old[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float to = -INFINITY, sum = 0;
#pragma unroll
      for (int i = 0; i < KEYS / 4; i++) {
        float& x = s[i / 2 * 4 + 2 * half + i % 2];
        if (!ALL) x = i / 2 * 8 + lane_id() % 4 * 2 + i % 2 < n[half] ? x : -INFINITY;
        to = fmaxf(to, x);
      }
      to = fmaxf(to, __shfl_xor_sync(FULL, to, 1));
      to = fmaxf(to, __shfl_xor_sync(FULL, to, 2));
      to = to == -INFINITY ? to : to * scale;
      bool more = to > m[half] + 5.f;
      to = more ? to : m[half];
      float base = to == -INFINITY ? 0.f : -to;  // no key of this segment yet
      old[half] = more ? power<P>(m[half], 1.f, base) : 1.f;
#pragma unroll
      for (int i = 0; i < KEYS / 4; i++) {
        float& x = s[i / 2 * 4 + 2 * half + i % 2];
        float y = power<P>(x, scale, base);
        x = ALL || i / 2 * 8 + lane_id() % 4 * 2 + i % 2 < n[half] ? y : 0.f;
        sum += x;
      }
      sum += __shfl_xor_sync(FULL, sum, 1);
      sum += __shfl_xor_sync(FULL, sum, 2);
      l[half] = fmaf(l[half], old[half], sum);
      m[half] = to;
    }
    if (__any_sync(FULL, old[0] != 1.f || old[1] != 1.f))
#pragma unroll
      for (int i = 0; i < D / 2; i++) o[i] *= old[i / 2 % 2];
  }
  // o += weights·values of a block. A row that sees a value which is not finite is NaN; others have no part in it:
  // in the product it is 0.
  template <int P> GPU void blend(float (&s)[KEYS / 2], const u8* v, const u64* bad, const int (&n)[2]) {
    u32 rows = bad_rows(bad);
    if (rows)
#pragma unroll
      for (int half = 0; half < 2; half++)
        if (n[half] > 0 && rows << max(0, KEYS - n[half]))
#pragma unroll
          for (int i = 0; i < D / 4; i++) o[i / 2 * 4 + 2 * half + i % 2] = __int_as_float(0x7fffffff);
    Weights<P> w;
    w.take(s);
    w.template blend<D>(o, v);
  }
  // Joins the segment that comes next, of `keys` keys up to where the rows see n more, unless they see none of it.
  GPU void join(const State& next, const int (&n)[2], int keys) {
    float a[2], b[2];
    bool there[2] = {n[0] > -keys, n[1] > -keys};
#pragma unroll
    for (int half = 0; half < 2; half++) {
      if (!there[half]) continue;
      float to = fmaxf(m[half], next.m[half]);
      a[half] = exp32(m[half] - to), b[half] = exp32(next.m[half] - to);
      l[half] = fmaf(l[half], a[half], next.l[half] * b[half]);
      m[half] = to;
    }
#pragma unroll
    for (int i = 0; i < D / 2; i++)
      if (there[i / 2 % 2]) o[i] = fmaf(o[i], a[i / 2 % 2], next.o[i] * b[i / 2 % 2]);
  }
  // Writes a row's sums, each times f, to columns below dim.
  GPU void write(float* to, int half, int dim, float f) const {
#pragma unroll
    for (int i = 0; i < D / 4; i++) {
      int c = i / 2 * 8 + lane_id() % 4 * 2 + i % 2;
      if (c < dim) to[c] = o[i / 2 * 4 + 2 * half + i % 2] * f;
    }
  }
};

#define OUT float *out, int os, float *lse, int es
#define IN const float *q, int qs, const float *k, int ks, const float *v, int vs
#define RESULT out, os, lse, es
#define SEQUENCES starts, ss, lengths, ls, pages, ps, size, wide, rows, key_rows, heads, kv, dim, most, scale, fault, tag

template <int D> GPU void finish(OUT, const Tile& w, int r0, const State<D>& all) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    int r = r0 + row_of(half);
    if (r >= w.rows) continue;
    all.write(out + (size_t)w.row(r) * os + w.column(r) * w.a.dim, half, w.a.dim, 1.f / all.l[half]);
    if (lse && lane_id() % 4 == 0) lse[(size_t)w.row(r) * es + w.column(r)] = (float)((double)all.m[half] + log64((double)all.l[half]));
  }
}

template <int P> GPU void define(OUT, IN, SHAPE) {
  constexpr int D = 128;
  extern __shared__ __align__(1024) u8 space[];
  Sequence sq = sequence(SHAPED, blockIdx.z, fault, tag);
  Tile w(SHAPED, sq, blockIdx.x * ROWS, ROWS, blockIdx.y);
  if (w.rows <= 0) return;
  u8 *keys = space + P * Panels<D, ROWS>::PIECE, *values = keys + P * Panels<D, KEYS>::PIECE;
  u64* bad = (u64*)(values + P * Panels<D, KEYS>::PIECE);
  bring_q<D, P, ROWS>(space, w, 0, q, qs, sign(scale));
  scale = fabsf(scale);
  int n[2] = {w.keys(row_of(0)), w.keys(row_of(1))};
  State<D> all, part;
  all.clear();
  part.clear();
  int last = w.keys(w.rows - 1);
#pragma unroll 1
  for (int j0 = 0; j0 < last; j0 += KEYS) {
    int from = find(w, j0, last, fault, tag);
    Share<D> share;
    share.fetch(k, ks, from, w.head, dim, whole16(k, ks, dim));
    share.template store<P>(keys);
    share.fetch(v, vs, from, w.head, dim, whole16(v, vs, dim));
    share.template store<P>(values, bad);
    fence_async();
    __syncthreads();
    float s[KEYS / 2];
    scores<D, P, ROWS>(s, space, keys);
    wait_products(s);
    part.template weigh<P>(s, n, scale);
    part.template blend<P>(s, values, bad, n);
    wait_products(part.o);
    n[0] -= KEYS, n[1] -= KEYS;
    if ((j0 + KEYS) % SEGMENT == 0 || j0 + KEYS >= last) {
      all.join(part, n, j0 % SEGMENT + KEYS);
      part.clear();
    }
    __syncthreads();
  }
  finish(RESULT, w, 0, all);
}

// grid: tiles of 64 rows, key heads, sequences
KERNEL(128) attention90_v1(OUT, int pieces, IN, SHAPE) {
  if (stopped(fault, tag)) return;
  if (pieces == 1) define<1>(RESULT, q, qs, k, ks, v, vs, SEQUENCES);
  else define<3>(RESULT, q, qs, k, ks, v, vs, SEQUENCES);
}

// ---- a block of threads: the first warpgroup brings, two of 64 rows each multiply. Shared memory: 128 rows of q, then
// stages of keys and values, then for each stage the mbarriers that say its keys, its values are full, and empty again, and
// which of its values are not finite.
template <int D, int P> struct Ring {
  enum : int {
    QUERIES = P * Panels<D, 2 * ROWS>::PIECE,
    BLOCK = P * Panels<D, KEYS>::PIECE,
    STAGES = D * P == 384 ? 2 : 4,
  };
  u8* space;
  int stage, parity;

  GPU u8* keys() const { return space + QUERIES + 2 * stage * BLOCK; }
  GPU u8* values() const { return keys() + BLOCK; }
  GPU u64* signs(int i) const { return (u64*)(space + QUERIES + 2 * STAGES * BLOCK) + 4 * i; }
  GPU u64* bad() const { return signs(STAGES) + 4 * stage; }
  GPU u64* full_keys() const { return signs(stage); }
  GPU u64* full_values() const { return signs(stage) + 1; }
  GPU u64* empty_keys() const { return signs(stage) + 2; }
  GPU u64* empty_values() const { return signs(stage) + 3; }
  GPU void next() {
    if (++stage == STAGES) stage = 0, parity ^= 1;
  }
};

template <int D, int P> GPU void produce(Ring<D, P> r, const Tile& w, const float* k, int ks, const float* v, int vs, int first, int last, u64* fault, u32 tag) {
  int dim = w.a.dim, rows = find(w, first, last, fault, tag);
  bool wide_k = whole16(k, ks, dim), wide_v = whole16(v, vs, dim);
  Share<D> keys, values;
  keys.fetch(k, ks, rows, w.head, dim, wide_k);
#pragma unroll 1
  for (int j0 = first; j0 < last; j0 += KEYS, r.next()) {
    values.fetch(v, vs, rows, w.head, dim, wide_v);
    barrier_wait(r.empty_keys(), r.parity ^ 1);  // the phase before the first counts as over
    keys.template store<P>(r.keys());
    fence_async();
    warp_arrives(r.full_keys());
    rows = find(w, j0 + KEYS, last, fault, tag);
    keys.fetch(k, ks, rows, w.head, dim, wide_k);
    barrier_wait(r.empty_values(), r.parity ^ 1);
    values.template store<P>(r.values(), r.bad());
    fence_async();
    warp_arrives(r.full_values());
  }
}

// Takes the keys first … last-1, of which the thread's rows see n; `part` has the last segment alone, `all` those before it.
// In the end n are those that the rows see from the end of the last block on.
template <int D, int P> GPU void consume(State<D>& all, State<D>& part, Ring<D, P> r, const u8* q, int (&n)[2], float scale, int first, int last) {
  all.clear();
  part.clear();
#pragma unroll 1
  for (int j0 = first; j0 < last; j0 += KEYS, r.next()) {
    if (j0 > first && j0 % SEGMENT == 0) {
      all.join(part, n, SEGMENT);
      part.clear();
    }
    float s[KEYS / 2];
    barrier_wait(r.full_keys(), r.parity);
    scores<D, P, 2 * ROWS>(s, q, r.keys());
    wait_products(s);
    warp_arrives(r.empty_keys());
    part.template weigh<P>(s, n, scale);
    barrier_wait(r.full_values(), r.parity);
    part.template blend<P>(s, r.values(), r.bad(), n);
    wait_products(part.o);
    warp_arrives(r.empty_values());
    n[0] -= KEYS, n[1] -= KEYS;
  }
}

// Leaves the segment z of a tile's rows in parts: see attention_join.
template <int D> GPU void leave(float* parts, int segments, int z, const Tile& w, int r0, const State<D>& part) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    int r = r0 + row_of(half);
    if (r >= w.rows) continue;
    float* to = parts + (((size_t)w.row(r) * w.a.heads + w.column(r)) * segments + z) * (w.a.dim + 2);
    if (lane_id() % 4 == 0) to[0] = part.m[half], to[1] = part.l[half];
    part.write(to + 2, half, w.a.dim, 1.f);
  }
}

// grid: tiles of 128 rows × segments (the longest first), key heads, sequences. With parts a block takes a segment,
// without all of them.
template <int D, int P> GPU void tile_of(OUT, float* parts, int segments, IN, SHAPE) {
  extern __shared__ __align__(1024) u8 space[];
  Sequence sq = sequence(SHAPED, blockIdx.z, fault, tag);
  int z = blockIdx.x % segments, first = parts ? z * SEGMENT : 0;
  if (first >= sq.n) return;
  Ring<D, P> r{space, 0, 0};
  if (parts) {
    int window = max(1, min(MOST_TOGETHER, 2 * ROWS * kv / heads));
    int of = together(SHAPED, blockIdx.z, gridDim.z, first, window, (u32*)r.bad());
    if (of == 0) return;
    if (of > 1) sq.hi = sq.lo + of, sq.n = first + SEGMENT + of;  // as one that sees more than the segment
  }
  Tile w(SHAPED, sq, (gridDim.x - 1 - blockIdx.x) / segments * 2 * ROWS, 2 * ROWS, blockIdx.y);
  if (w.rows <= 0) return;
  int last = w.keys(w.rows - 1);
  if (parts) last = min(last, first + SEGMENT);
  if (first >= last) return;
  int busy = w.rows > ROWS ? 2 : 1;  // warpgroups that have rows
  if (threadIdx.x < r.STAGES * 4) barrier_init(r.signs(0) + threadIdx.x, threadIdx.x % 4 < 2 ? 4 : 4 * busy);
  barriers_made();
  __syncthreads();
  if (warp_id() < 4) {
    fewer_registers<112>();
    produce(r, w, k, ks, v, vs, first, last, fault, tag);
  } else if (warp_id() / 4 <= busy) {
    more_registers<192>();
    int r0 = (warp_id() / 4 - 1) * ROWS;
    bring_q<D, P, 2 * ROWS>(space, w, r0, q, qs, sign(scale));
    fence_async();
    group_barrier(warp_id() / 4, 128);
    int n[2] = {w.keys(r0 + row_of(0)) - first, w.keys(r0 + row_of(1)) - first};
    State<D> all, part;
    consume(all, part, r, space + r0 * LINE, n, fabsf(scale), first, last);
    if (parts) {
      leave(parts, segments, z, w, r0, part);
    } else {
      all.join(part, n, ((last - 1) % SEGMENT / KEYS + 1) * KEYS);
      finish(RESULT, w, r0, all);
    }
  }
}

#define ATTENTION90(D, P)                                                                 \
  KERNEL(384, 1) attention90_##D##_##P(OUT, float* parts, int segments, IN, SHAPE) {      \
    if (!stopped(fault, tag)) tile_of<D, P>(RESULT, parts, segments, q, qs, k, ks, v, vs, SEQUENCES); \
  }

ATTENTION90(64, 1)
ATTENTION90(128, 1)
ATTENTION90(64, 3)
ATTENTION90(128, 3)
