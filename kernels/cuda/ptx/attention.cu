// attention: causal softmax attention with grouped heads over packed sequences, keys in pages, or in the
// sequence's own rows after those it shares with its leader; and the log-sum-exp of each row's scaled scores.
//
// One order, fixed by a row's number of keys: blocks of 32 keys from position 0; a score is one chain over the
// head's columns; a block's weights are summed by halves and blended key by key into what the block's maximum
// rescales (Milakov and Gimelshein 2018; Dao 2023). Every 256 keys are a segment, each from nothing; segments
// are joined in order. So a row of a prefill, of a chunk and of a decode step has the same bits.
//   attention_v1     a warp a row and head, keys and values from global memory: the definition
//   attention_rows*  4 warps of R rows; the rows of all heads that share a key head, so that a block of keys
//                    and values, brought to shared memory by asynchronous copies one block ahead, serves all
//   attention_split* the same with a segment a block, for decode steps, and attention_join
// The number in a name is the most columns of a head.
#include "attention.h"

#define MOST 256  // columns of a head

// What is known of a row of one head after some keys; o is dims lane + 32 i.
template <int D> struct State {
  float m, l, o[D];
  GPU void clear() {
    m = -INFINITY, l = 0;
#pragma unroll
    for (int i = 0; i < D; i++) o[i] = 0;
  }
  // Takes a block's scores, one a lane, of which n count; returns the lane's weight and rescales o.
  GPU float weigh(float s, int n) {
    float to = fmaxf(m, warp_max(s)), old = exp32(m - to), p = lane_id() < n ? exp32(s - to) : 0.f;
    l = fmaf(l, old, warp_sum(p));
#pragma unroll
    for (int i = 0; i < D; i++) o[i] *= old;
    m = to;
    return p;
  }
  // Joins the segment that comes next.
  GPU void join(float sm, float sl, const float (&so)[D]) {
    float to = fmaxf(m, sm), a = exp32(m - to), b = exp32(sm - to);
    l = fmaf(l, a, sl * b);
#pragma unroll
    for (int i = 0; i < D; i++) o[i] = fmaf(o[i], a, so[i] * b);
    m = to;
  }
  GPU void put(float* out, float* lse, int dim) {
    float r = 1.f / l;
#pragma unroll
    for (int i = 0; i < D; i++)
      if (lane_id() + 32 * i < dim) out[lane_id() + 32 * i] = o[i] * r;
    if (lse && lane_id() == 0) *lse = (float)((double)m + log64((double)l));
  }
};

#define TENSORS float *out, int os, float *lse, int es, const float *q, int qs, const float *k, int ks, const float *v, int vs

// grid: query rows of a sequence, sequences; a warp a head
KERNEL(32) attention_v1(TENSORS, SHAPE) {
  constexpr int D = MOST / 32;
  if (stopped(fault, tag)) return;
  Shape a = SHAPED;
  Sequence sq = sequence(a, blockIdx.y, fault, tag);
  int t = blockIdx.x / heads, h = blockIdx.x % heads, row = sq.lo + t, lane = lane_id();
  if (row >= sq.hi) return;
  int keys = seen(sq, t), col = h * kv / heads * dim;
  q += (size_t)row * qs + h * dim;
  State<D> all, part;
  all.clear();
  for (int s0 = 0; s0 < keys; s0 += SEGMENT) {
    part.clear();
    for (int j0 = s0; j0 < min(keys, s0 + SEGMENT); j0 += 32) {
      int n = min(32, keys - j0), mine = lane < n ? key_row(a, sq, j0 + lane, fault, tag) : -1;
      float s = -INFINITY;
      if (mine >= 0) {
        s = 0;
        for (int d = 0; d < dim; d++) s = fmaf(q[d], k[(size_t)mine * ks + col + d], s);
        s *= scale;
      }
      float p = part.weigh(s, n);
      for (int j = 0; j < n; j++) {
        float w = __shfl_sync(FULL, p, j);
        int from = __shfl_sync(FULL, mine, j);
#pragma unroll
        for (int i = 0; i < D; i++)
          if (lane + 32 * i < dim && from >= 0) part.o[i] = fmaf(w, v[(size_t)from * vs + col + lane + 32 * i], part.o[i]);
      }
    }
    all.join(part.m, part.l, part.o);
  }
  all.put(out + (size_t)row * os + h * dim, lse ? lse + (size_t)row * es + h : 0, dim);
}

// A block of threads' work: 4R rows. Shared memory: 4R rows of q, then two stages of 32 keys and 32 values.
template <int R, int D> struct Work : Tile {
  float* space;
  int pad;
  int sees[R];  // keys of the warp's rows

  GPU Work(const Shape& shape, const Sequence& seq, float* memory, int first, int kv_head)
      : Tile(shape, seq, first, 4 * R, kv_head), space(memory), pad(padded(shape.dim)) {
#pragma unroll
    for (int i = 0; i < R; i++) sees[i] = keys(warp_id() * R + i);
  }
  GPU float* stage(int i) { return space + (4 * R + 64 * i) * pad; }

  GPU void load_q(const float* q, int qs) {
    bool wide = a.dim % 4 == 0 && qs % 4 == 0 && aligned16(q);
#pragma unroll 1
    for (int r = threadIdx.x / 16; r < 4 * R; r += 8) {
      const float* from = r < rows ? q + (size_t)row(r) * qs + column(r) * a.dim : q;
      bring(space + r * pad, from, r < rows, a.dim, wide, threadIdx.x % 16, 16);
    }
  }
  // Keys and values j0 … j0+31 of `last`.
  GPU void load(int at, const float* k, int ks, const float* v, int vs, int j0, int last, u64* fault, u32 tag) {
    if (j0 < last) {
      bool wide = a.dim % 4 == 0 && ks % 4 == 0 && vs % 4 == 0 && aligned16(k) && aligned16(v);
      float* to = stage(at);
#pragma unroll 1
      for (int j = threadIdx.x / 16; j < 32; j += 8) {
        int r = j0 + j < last ? key_row(a, sq, j0 + j, fault, tag) : -1;
        const float *from = r >= 0 ? k + (size_t)r * ks + head * a.dim : k, *values = r >= 0 ? v + (size_t)r * vs + head * a.dim : v;
        bring(to + j * pad, from, r >= 0, a.dim, wide, threadIdx.x % 16, 16);
        bring(to + (32 + j) * pad, values, r >= 0, a.dim, wide, threadIdx.x % 16, 16);
      }
    }
    copies_commit();
  }
  // The warp's R rows take the 32 keys of a stage from j0 on.
  GPU void take(State<D> (&st)[R], int at, int j0) {
    const float *key = stage(at) + lane_id() * pad, *values = stage(at) + 32 * pad, *mine = space + warp_id() * R * pad;
    float s[R];
#pragma unroll
    for (int i = 0; i < R; i++) s[i] = 0;
#pragma unroll 2
    for (int d = 0; d < a.dim; d += 4) {
      float4 x = *(const float4*)(key + d);
#pragma unroll
      for (int i = 0; i < R; i++) {
        float4 y = *(const float4*)(mine + i * pad + d);
        s[i] = fmaf(y.x, x.x, s[i]);
        s[i] = fmaf(y.y, x.y, s[i]);
        s[i] = fmaf(y.z, x.z, s[i]);
        s[i] = fmaf(y.w, x.w, s[i]);
      }
    }
    int n[R], least = 32, most = 0;
#pragma unroll
    for (int i = 0; i < R; i++) {
      n[i] = max(0, min(32, sees[i] - j0));
      least = min(least, n[i]);
      most = max(most, n[i]);
      if (n[i] > 0) s[i] = st[i].weigh(lane_id() < n[i] ? s[i] * a.scale : -INFINITY, n[i]);
    }
#pragma unroll 1
    for (int j = 0; j < most; j++) {
      float x[D];
#pragma unroll
      for (int c = 0; c < D; c++) x[c] = lane_id() + 32 * c < a.dim ? values[j * pad + lane_id() + 32 * c] : 0.f;
#pragma unroll
      for (int i = 0; i < R; i++) {
        float w = __shfl_sync(FULL, s[i], j);
        if (least == 32 || j < n[i])
#pragma unroll
          for (int c = 0; c < D; c++) st[i].o[c] = fmaf(w, x[c], st[i].o[c]);
      }
    }
  }
};

// grid: tiles of rows, key heads, sequences
template <int R, int D> GPU void rows_of(TENSORS, SHAPE) {
  extern __shared__ __align__(16) float space[];
  if (stopped(fault, tag)) return;
  Shape a = SHAPED;
  Sequence sq = sequence(a, blockIdx.z, fault, tag);
  Work<R, D> w(a, sq, space, blockIdx.x * 4 * R, blockIdx.y);
  if (w.rows <= 0) return;
  int last = w.keys(w.rows - 1);
  w.load_q(q, qs);
  w.load(0, k, ks, v, vs, 0, last, fault, tag);
  State<D> all[R], part[R];
#pragma unroll
  for (int i = 0; i < R; i++) {
    all[i].clear();
    part[i].clear();
  }
#pragma unroll 1
  for (int j0 = 0, at = 0; j0 < last; j0 += 32, at ^= 1) {
    w.load(at ^ 1, k, ks, v, vs, j0 + 32, last, fault, tag);
    copies_wait<1>();
    __syncthreads();
    w.take(part, at, j0);
    if ((j0 + 32) % SEGMENT == 0 || j0 + 32 >= last)
#pragma unroll
      for (int i = 0; i < R; i++) {
        if (w.sees[i] > j0 / SEGMENT * SEGMENT) all[i].join(part[i].m, part[i].l, part[i].o);
        part[i].clear();
      }
    __syncthreads();  // all have left this stage
  }
  copies_wait<0>();
#pragma unroll
  for (int i = 0; i < R; i++) {
    int r = warp_id() * R + i;
    if (r < w.rows)
      all[i].put(out + (size_t)w.row(r) * os + w.column(r) * dim, lse ? lse + (size_t)w.row(r) * es + w.column(r) : 0, dim);
  }
}

#define ALL out, os, lse, es, q, qs, k, ks, v, vs, starts, ss, lengths, ls, pages, ps, size, wide, rows, key_rows, heads, kv, dim, most, scale, fault, tag

KERNEL(128) attention_rows32(TENSORS, SHAPE) { rows_of<8, 1>(ALL); }
KERNEL(128) attention_rows64(TENSORS, SHAPE) { rows_of<8, 2>(ALL); }
KERNEL(128) attention_rows128(TENSORS, SHAPE) { rows_of<8, 4>(ALL); }
KERNEL(128) attention_rows256(TENSORS, SHAPE) { rows_of<4, 8>(ALL); }

// ---- a segment a block. parts has, a query row and head and segment, m, l and dim sums.

#define SPLIT float *parts, int segments, const float *q, int qs, const float *k, int ks, const float *v, int vs

// grid: tiles of rows × segments, key heads, sequences
template <int D> GPU void split_of(SPLIT, SHAPE) {
  constexpr int R = 2;
  extern __shared__ __align__(16) float space[];
  if (stopped(fault, tag)) return;
  Shape a = SHAPED;
  Sequence sq = sequence(a, blockIdx.z, fault, tag);
  int z = blockIdx.x % segments;
  Work<R, D> w(a, sq, space, blockIdx.x / segments * 4 * R, blockIdx.y);
  if (w.rows <= 0) return;
  int first = z * SEGMENT, last = min(first + SEGMENT, w.keys(w.rows - 1));
  if (first >= last) return;
  w.load_q(q, qs);
  w.load(0, k, ks, v, vs, first, last, fault, tag);
  State<D> part[R];
#pragma unroll
  for (int i = 0; i < R; i++) part[i].clear();
#pragma unroll 1
  for (int j0 = first, at = 0; j0 < last; j0 += 32, at ^= 1) {
    w.load(at ^ 1, k, ks, v, vs, j0 + 32, last, fault, tag);
    copies_wait<1>();
    __syncthreads();
    w.take(part, at, j0);
    __syncthreads();
  }
  copies_wait<0>();
#pragma unroll
  for (int i = 0; i < R; i++) {
    int r = warp_id() * R + i;
    if (r >= w.rows) continue;
    float* to = parts + (((size_t)w.row(r) * heads + w.column(r)) * segments + z) * (dim + 2);
    if (lane_id() == 0) {
      to[0] = part[i].m;
      to[1] = part[i].l;
    }
#pragma unroll
    for (int c = 0; c < D; c++)
      if (lane_id() + 32 * c < dim) to[2 + lane_id() + 32 * c] = part[i].o[c];
  }
}

#define SPLIT_ALL parts, segments, q, qs, k, ks, v, vs, starts, ss, lengths, ls, pages, ps, size, wide, rows, key_rows, heads, kv, dim, most, scale, fault, tag

KERNEL(128, 4) attention_split32(SPLIT, SHAPE) { split_of<1>(SPLIT_ALL); }
KERNEL(128, 4) attention_split64(SPLIT, SHAPE) { split_of<2>(SPLIT_ALL); }
KERNEL(128, 4) attention_split128(SPLIT, SHAPE) { split_of<4>(SPLIT_ALL); }
KERNEL(128, 4) attention_split256(SPLIT, SHAPE) { split_of<8>(SPLIT_ALL); }

// grid: query rows of a sequence × heads, sequences; a warp each
KERNEL(32) attention_join(float* out, int os, float* lse, int es, const float* parts, int segments, SHAPE) {
  constexpr int D = MOST / 32;
  if (stopped(fault, tag)) return;
  Shape a = SHAPED;
  Sequence sq = sequence(a, blockIdx.y, fault, tag);
  int t = blockIdx.x / heads, h = blockIdx.x % heads, row = sq.lo + t;
  if (row >= sq.hi) return;
  State<D> all;
  all.clear();
  parts += ((size_t)row * heads + h) * segments * (dim + 2);
  for (int s0 = 0; s0 < seen(sq, t); s0 += SEGMENT, parts += dim + 2) {
    float o[D];
#pragma unroll
    for (int i = 0; i < D; i++) o[i] = lane_id() + 32 * i < dim ? parts[2 + lane_id() + 32 * i] : 0.f;
    all.join(parts[0], parts[1], o);
  }
  all.put(out + (size_t)row * os + h * dim, lse ? lse + (size_t)row * es + h : 0, dim);
}
