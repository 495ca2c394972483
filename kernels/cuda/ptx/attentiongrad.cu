// attentiongrad: the gradient of causal attention without pages, from its output and log-sum-exp:
// with p = exp(score - lse), dp = dout·v and delta = dout·out,
//   ds = p (dp - delta) scale;  dq += Σ ds k;  dk += Σ ds q;  dv += Σ p dout.
// Every sum has one writer and one order: dq over keys ascending; dk and dv over the heads that share the key
// head and in each over queries ascending, those of sequences that share the key last. (Dao 2023, without its
// atomics)
//   attention_delta          a warp a row and head
//   attention_grad_q_v1      a warp a row and head: a block of 32 keys, a lane each, then its columns
//   attention_grad_kv_v1     a warp a key and key head: a block of 32 queries, a lane each
//   attention_grad_q*, _kv*  4 warps of R rows (queries of all heads that share a key head; keys), with their
//                            two operands in shared memory, and 32 rows of the other side brought there a
//                            block ahead: the same sums, each value read once for R rows. The number in a
//                            name is the most columns of a head
#include "gpu.h"

#define MOST 256  // columns of a head
#define DIMS (MOST / 32)

#define SHAPE const int *starts, int ss, const int *lengths, int ls, int rows, int heads, int kv, int dim, int most, float scale, u64 *fault, u32 tag
#define SEQUENCES(count) Sequences{starts, lengths, ss, ls, (int)(count)}

struct Sequences {
  const int *starts, *lengths;
  int ss, ls, count;
  GPU int begin(int s) const { return starts[(size_t)s * ss]; }
  GPU int shared(int s) const { return lengths[(size_t)s * ls] - (begin(s + 1) - begin(s)); }
};

// A sequence: query rows lo … hi-1, which are its keys too, after `shared` ones in the rows from `leader` on.
struct Sequence {
  int lo, hi, shared, leader;
  GPU int key_row(int j) const { return j < shared ? leader + j : lo + j - shared; }
};

GPU bool sequence(const Sequences& all, int rows, int most, int s, Sequence& q, u64* fault, u32 tag) {
  q = Sequence{all.begin(s), all.begin(s + 1), all.shared(s), 0};
  Reason why = (Reason)0;
  if (q.lo < 0 || q.hi < q.lo || q.hi > rows || q.shared < 0 || !lead(all.starts, all.ss, all.lengths, all.ls, s, q.shared, q.leader))
    why = BAD_SEQUENCE;
  else if (q.hi - q.lo > most)
    why = TOO_MANY_QUERIES;
  else
    return true;
  if (threadIdx.x == 0) fail(fault, tag, q.lo, why);
  return false;
}

// The sequences s … result-1 have keys of s; a bad one among them is not asked for its rows.
GPU int followers(const Sequences& all, int rows, int s) {
  int end = s + 1;
  if (all.shared(s) == 0)
    while (end < all.count && all.shared(end) > 0 && all.begin(end + 1) >= all.begin(end) && all.begin(end + 1) <= rows) end++;
  return end;
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
  int t = blockIdx.x / heads, h = blockIdx.x % heads, lane = lane_id();
  Sequence sq;
  if (!sequence(SEQUENCES(gridDim.y), rows, most, blockIdx.y, sq, fault, tag) || sq.lo + t >= sq.hi) return;
  int row = sq.lo + t, last = sq.shared + t, col = h * kv / heads * dim;
  q += (size_t)row * qs + h * dim;
  dout += (size_t)row * dos + h * dim;
  float l = lse[(size_t)row * es + h], e = delta[row * heads + h], sum[DIMS] = {};
  for (int j0 = 0; j0 <= last; j0 += 32) {
    int n = min(32, last + 1 - j0);
    float g = 0;
    if (lane < n) {
      size_t r = sq.key_row(j0 + lane);
      float p = exp32(fmaf(dot(q, k + r * ks + col, dim), scale, -l));
      g = p * (dot(dout, v + r * vs + col, dim) - e) * scale;
    }
    for (int j = 0; j < n; j++) {
      float w = __shfl_sync(FULL, g, j);
#pragma unroll
      for (int i = 0; i < DIMS; i++)
        if (lane + 32 * i < dim) sum[i] = fmaf(w, k[(size_t)sq.key_row(j0 + j) * ks + col + lane + 32 * i], sum[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < DIMS; i++)
    if (lane + 32 * i < dim) dq[(size_t)row * dqs + h * dim + lane + 32 * i] += sum[i];
}

// grid: keys of a sequence × key heads, sequences
KERNEL(32) attention_grad_kv_v1(float* dk, int dks, float* dv, int dvs, OPERANDS, SHAPE) {
  if (stopped(fault, tag)) return;
  int t = blockIdx.x / kv, h = blockIdx.x % kv, lane = lane_id(), group = heads / kv;
  Sequences all = SEQUENCES(gridDim.y);
  Sequence sq;
  if (!sequence(all, rows, most, blockIdx.y, sq, fault, tag) || sq.lo + t >= sq.hi) return;
  int row = sq.lo + t, end = followers(all, rows, blockIdx.y);
  k += (size_t)row * ks + h * dim;
  v += (size_t)row * vs + h * dim;
  float sk[DIMS] = {}, sv[DIMS] = {};
  for (int f = 0; f < group * (end - (int)blockIdx.y); f++) {
    int u = h * group + f / (end - (int)blockIdx.y), s = blockIdx.y + f % (end - (int)blockIdx.y);
    if (s > blockIdx.y && t >= all.shared(s)) continue;
    for (int i0 = s == blockIdx.y ? row : all.begin(s), hi = all.begin(s + 1); i0 < hi; i0 += 32) {
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
        for (int i = 0; i < DIMS; i++)
          if (lane + 32 * i < dim) {
            sv[i] = fmaf(wp, dout[(size_t)(i0 + j) * dos + u * dim + lane + 32 * i], sv[i]);
            sk[i] = fmaf(wg, q[(size_t)(i0 + j) * qs + u * dim + lane + 32 * i], sk[i]);
          }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < DIMS; i++)
    if (lane + 32 * i < dim) {
      dk[(size_t)row * dks + h * dim + lane + 32 * i] += sk[i];
      dv[(size_t)row * dvs + h * dim + lane + 32 * i] += sv[i];
    }
}

// ---- tiles. A side is two operands with one row a token: q and dout, or k and v.

struct Side {
  const float *x, *y;
  int xs, ys;
};

// What a block of threads adds up: dq of query rows, or with KEYS dk and dv of keys. The other side is the
// keys of the sequence, or with KEYS the queries from its first key's on to the last that may see one, n of
// them from the sequence's first. Shared memory: 4R rows of its own side's x, 4R of its y, then two stages of
// 32 rows of the other side's x and of its y.
template <int R, int D, bool KEYS> struct Tile {
  float* space;
  Side own, other;
  Sequence sq;
  int n, group, head, first, rows, pad, dim;

  GPU int token(int r) { return KEYS ? first + r : (first + r) / group; }
  GPU int own_head(int r) { return KEYS ? head : head * group + (first + r) % group; }
  GPU float* stage(int i) { return space + (8 * R + 64 * i) * pad; }
  GPU int start() { return KEYS ? first : 0; }                 // of the other side's rows
  GPU int stop() { return KEYS ? n : sq.shared + token(rows - 1) + 1; }
  GPU int blocks() { return (stop() - start() + 31) / 32; }    // of one head
  GPU int count() { return KEYS ? blocks() * group : blocks(); }

  GPU void fetch(float* to, const Side& s, int row, int h, bool there, int lane) {
    bool wide = dim % 4 == 0 && s.xs % 4 == 0 && s.ys % 4 == 0 && aligned16(s.x) && aligned16(s.y);
    bring(to, there ? s.x + (size_t)row * s.xs + h * dim : s.x, there, dim, wide, lane, 16);
    bring(to + (&s == &own ? 4 * R : 32) * pad, there ? s.y + (size_t)row * s.ys + h * dim : s.y, there, dim, wide, lane, 16);
  }
  GPU void load_own() {
#pragma unroll 1
    for (int r = threadIdx.x / 16; r < 4 * R; r += 8) fetch(space + r * pad, own, sq.lo + token(r), own_head(r), r < rows, threadIdx.x % 16);
  }
  GPU void load(int at, int block) {
    if (block < count()) {
      int j0 = start() + block % blocks() * 32, h = KEYS ? head * group + block / blocks() : head;
#pragma unroll 1
      for (int j = threadIdx.x / 16; j < 32; j += 8)
        fetch(stage(at) + j * pad, other, KEYS ? sq.lo + j0 + j : sq.key_row(j0 + j), h, j0 + j < stop(), threadIdx.x % 16);
    }
    copies_commit();
  }
  // The dot products of the warp's rows with the lane's row of the other side, x's and y's.
  GPU void dots(float (&s)[R], float (&t)[R], int at) {
    const float *u = stage(at) + lane_id() * pad, *v = u + 32 * pad, *x = space + warp_id() * R * pad, *y = x + 4 * R * pad;
#pragma unroll
    for (int i = 0; i < R; i++) s[i] = t[i] = 0;
#pragma unroll 1
    for (int d = 0; d < dim; d += 4) {
      float4 a = *(const float4*)(u + d), b = *(const float4*)(v + d);
#pragma unroll
      for (int i = 0; i < R; i++) {
        float4 p = *(const float4*)(x + i * pad + d), q = *(const float4*)(y + i * pad + d);
        s[i] = fmaf(p.w, a.w, fmaf(p.z, a.z, fmaf(p.y, a.y, fmaf(p.x, a.x, s[i]))));
        t[i] = fmaf(q.w, b.w, fmaf(q.z, b.z, fmaf(q.y, b.y, fmaf(q.x, b.x, t[i]))));
      }
    }
  }
  // Whether a row's token and row j of the other side see each other. reach is the last key that row j sees,
  // of a query.
  GPU bool sees(int token, int j, int reach) { return KEYS ? token <= reach : j <= sq.shared + token; }
  // a += g·x and, with KEYS, b += p·y, over the other side's 32 rows in order; reach is of the lane's row.
  GPU void blend(float (&a)[R][D], float (&b)[R][D], const float (&g)[R], const float (&p)[R], int at, int j0, int reach) {
    const float *u = stage(at) + lane_id(), *v = u + 32 * pad;
    int least = token(warp_id() * R), most = token(warp_id() * R + R - 1);
    bool all = KEYS ? j0 >= most && j0 + 32 <= sq.hi - sq.lo : j0 + 32 <= min(stop(), sq.shared + least + 1);
#pragma unroll 1
    for (int j = 0; j < min(32, stop() - j0); j++) {
      float x[D], y[D];
#pragma unroll
      for (int c = 0; c < D; c++) {
        bool in = lane_id() + 32 * c < dim;
        x[c] = in ? u[j * pad + 32 * c] : 0.f;
        y[c] = KEYS && in ? v[j * pad + 32 * c] : 0.f;
      }
#pragma unroll
      for (int i = 0; i < R; i++) {
        float wg = __shfl_sync(FULL, g[i], j), wp = KEYS ? __shfl_sync(FULL, p[i], j) : 0.f;
        int to = KEYS ? __shfl_sync(FULL, reach, j) : 0;
        if (all || sees(token(warp_id() * R + i), j0 + j, to))
#pragma unroll
          for (int c = 0; c < D; c++) {
            a[i][c] = fmaf(wg, x[c], a[i][c]);
            if (KEYS) b[i][c] = fmaf(wp, y[c], b[i][c]);
          }
      }
    }
  }
};

// grid: tiles of rows, key heads, sequences
template <int R, int D, bool KEYS> GPU void gradient(float* da, int das, float* db, int dbs, OPERANDS, SHAPE) {
  extern __shared__ __align__(16) float space[];
  if (stopped(fault, tag)) return;
  Sequences all = SEQUENCES(gridDim.z);
  Sequence sq;
  if (!sequence(all, rows, most, blockIdx.z, sq, fault, tag)) return;
  int group = heads / kv, first = blockIdx.x * 4 * R, height = min(4 * R, (sq.hi - sq.lo) * (KEYS ? 1 : group) - first);
  if (height <= 0) return;
  int end = KEYS ? all.begin(followers(all, rows, blockIdx.z)) : 0;
  Side queries = {q, dout, qs, dos}, keys = {k, v, ks, vs};
  Tile<R, D, KEYS> w = {space, KEYS ? keys : queries, KEYS ? queries : keys, sq, end - sq.lo, group, (int)blockIdx.y, first, height, padded(dim), dim};
  w.load_own();
  w.load(0, 0);
  float a[R][D], b[R][D];
#pragma unroll
  for (int i = 0; i < R * D; i++) a[i / D][i % D] = b[i / D][i % D] = 0;
  int count = w.count();
#pragma unroll 1
  for (int block = 0, at = 0; block < count; block++, at ^= 1) {
    w.load(at ^ 1, block + 1);
    copies_wait<1>();
    __syncthreads();
    int j0 = w.start() + block % w.blocks() * 32, j = j0 + lane_id(), u = w.head * group + block / w.blocks(), reach = j;
    if (KEYS && sq.lo + j >= sq.hi && j < w.stop()) {
      int s = blockIdx.z + 1;
      while (all.begin(s + 1) <= sq.lo + j) s++;
      reach = all.shared(s) - 1;
    }
    float s[R], t[R];
    w.dots(s, t, at);
#pragma unroll
    for (int i = 0; i < R; i++) {
      int r = warp_id() * R + i, mine = w.token(r);
      bool sees = r < height && j < w.stop() && w.sees(mine, j, reach);
      size_t row = sq.lo + (KEYS ? j : mine);
      int h = KEYS ? u : w.own_head(r);
      float p = sees ? exp32(fmaf(s[i], scale, -lse[row * es + h])) : 0.f;
      t[i] = sees ? p * (t[i] - delta[row * heads + h]) * scale : 0.f;
      s[i] = p;
    }
    w.blend(a, b, t, s, at, j0, reach);
    __syncthreads();  // all have left this stage
  }
  copies_wait<0>();
#pragma unroll
  for (int i = 0; i < R; i++) {
    int r = warp_id() * R + i;
    if (r >= height) continue;
    float *x = da + (size_t)(sq.lo + w.token(r)) * das + w.own_head(r) * dim, *y = db + (size_t)(sq.lo + w.token(r)) * dbs + w.own_head(r) * dim;
#pragma unroll
    for (int c = 0; c < D; c++)
      if (lane_id() + 32 * c < dim) {
        x[lane_id() + 32 * c] += a[i][c];
        if (KEYS) y[lane_id() + 32 * c] += b[i][c];
      }
  }
}

#define ALL delta, dout, dos, lse, es, q, qs, k, ks, v, vs, starts, ss, lengths, ls, rows, heads, kv, dim, most, scale, fault, tag

KERNEL(128, 4) attention_grad_q32(float* dq, int dqs, OPERANDS, SHAPE) { gradient<8, 1, false>(dq, dqs, dq, dqs, ALL); }
KERNEL(128) attention_grad_q64(float* dq, int dqs, OPERANDS, SHAPE) { gradient<8, 2, false>(dq, dqs, dq, dqs, ALL); }
KERNEL(128) attention_grad_q128(float* dq, int dqs, OPERANDS, SHAPE) { gradient<8, 4, false>(dq, dqs, dq, dqs, ALL); }
KERNEL(128) attention_grad_q256(float* dq, int dqs, OPERANDS, SHAPE) { gradient<4, 8, false>(dq, dqs, dq, dqs, ALL); }

KERNEL(128, 4) attention_grad_kv32(float* dk, int dks, float* dv, int dvs, OPERANDS, SHAPE) { gradient<8, 1, true>(dk, dks, dv, dvs, ALL); }
KERNEL(128) attention_grad_kv64(float* dk, int dks, float* dv, int dvs, OPERANDS, SHAPE) { gradient<8, 2, true>(dk, dks, dv, dvs, ALL); }
KERNEL(128) attention_grad_kv128(float* dk, int dks, float* dv, int dvs, OPERANDS, SHAPE) { gradient<4, 4, true>(dk, dks, dv, dvs, ALL); }
KERNEL(128) attention_grad_kv256(float* dk, int dks, float* dv, int dvs, OPERANDS, SHAPE) { gradient<4, 8, true>(dk, dks, dv, dvs, ALL); }
