// attentiongrad90: the gradient of causal attention without pages on Hopper, all five products by wgmma, for heads of up to
// 128 columns. With p = exp(score - lse), dp = dout·v and delta = dout·out (attention_delta's),
//   ds = p (dp - delta) scale;  dq += Σ ds k;  dk += Σ ds q;  dv += Σ p dout.
//
// A block of threads has rows of its own side (queries, or keys), two operands each: q and dout, or k and v. It takes the
// other side 32 rows at a time: scores and dp are products of both sides' first and second operands, 64 × 32 a
// warpgroup; p and ds stay in registers and multiply the same 32 rows the other way. The first warpgroup brings rows and
// splits them into P bf16 pieces as attention90 does: with 3 nothing is rounded, with 1 the operands, p and ds are.
//
// One order, fixed by a row's place in its sequence: 32 rows of the other side after 32, 16 at a time within a product,
// pieces smallest first. dq over keys from the first; dk and dv over queries from the first of the tile of keys on, those
// of sequences that share the keys last, in each head of those that share a key head for itself: attention_grad90_join
// adds heads in order. With P = 3 two warpgroups have the same 64 rows and every other 32 of the other side; the second
// one's sums are added to the first one's. No atomics: p and dp are computed for dq and again for dk and dv, seven
// products where five would do.
//
// The ladder, for 4k tokens of 28 heads and 4 key heads of 128 columns, 3.0e11 operations of which a fifth each is a
// product. None has been timed: no GPU was at hand.
//   attentiongrad.cu   f32 by threads: 13 TFLOP/s predicted, where shared memory is the bound
//   P = 1              tiles of 128 rows: 1 KB of a token's two operands of the other side for each 128, so 2.2 GB from the
//                      L2 cache for each kernel: 0.41 and 0.40 ms; products 0.43 ms for both; instructions 0.60 ms,
//                      as attention90's (before, 1.33 ms): 333 TFLOP/s predicted
//   P = 3              tiles of 64 rows, all that fits in shared memory with two stages of 32 rows: six times the
//                      products, 2.57 ms, and 3.25 ms for their operands from shared memory: 90 TFLOP/s predicted. Two
//                      warpgroups in turn: one's p and ds beside the other's products
//   heads apart        a block for each query head: keys that many sequences share would else keep one block busy long
//                      after all others. Parts are 1 KB a token and head, written and read once: 0.08 ms
// Next: rows of its own side as pieces in registers (six reads from shared memory become three); tiles
// brought by TMA after a kernel that splits once; the next block's scores beside this one's sums.
#include "hopper.h"
#include "attention.h"
#include "panels.h"
#include "sides.h"

#define OPERANDS                                                                                                          \
  const float *delta, const float *dout, int dos, const float *lse, int es, const float *q, int qs, const float *k, int ks, \
      const float *v, int vs
#define GIVEN delta, dout, dos, lse, es, q, qs, k, ks, v, vs, starts, ss, lengths, ls, pages, ps, size, wide, rows, key_rows, heads, kv, dim, most, scale, fault, tag

// ---- sums

// What a thread has of its two rows. KV: their keys' numbers in the sequence; else how many keys they see, their
// log-sum-exp times -1, and delta.
struct Mine {
  int n[2];
  float base[2], delta[2];
};

// A block's columns as a thread has them: that of its number i.
GPU int column_of(int i) { return i / 4 * 8 + lane_id() % 4 * 2 + i % 2; }

template <bool KV> GPU bool sees(const Mine& r, int column, int reach, int half) { return KV ? r.n[half] <= reach : column < r.n[half]; }

// Turns scores to p. ALL: the rows of the warp see all of the block; the bits are the same.
template <int P, bool KV, bool ALL> GPU void weigh(float (&s)[KEYS / 2], const Notes& notes, const Mine& r, float scale) {
#pragma unroll
  for (int i = 0; i < KEYS / 2; i++) {
    const Note& o = notes.of[column_of(i)];
    float p = power<P>(s[i], scale, KV ? o.base : r.base[i / 2 % 2]);
    s[i] = ALL || sees<KV>(r, column_of(i), o.reach, i / 2 % 2) ? p : 0.f;
  }
}

// Turns dp to ds, but for the scale.
template <bool KV, bool ALL> GPU void lower(float (&t)[KEYS / 2], const float (&p)[KEYS / 2], const Notes& notes, const Mine& r) {
#pragma unroll
  for (int i = 0; i < KEYS / 2; i++) {
    const Note& o = notes.of[column_of(i)];
    float ds = p[i] * (t[i] - (KV ? o.delta : r.delta[i / 2 % 2]));
    t[i] = ALL || sees<KV>(r, column_of(i), o.reach, i / 2 % 2) ? ds : 0.f;
  }
}

template <int D, int P, bool KV> struct Sums {
  float a[D / 2], b[D / 2];  // of ds and the other side's first operand; with KV, of p and its second

  GPU void clear() {
#pragma unroll
    for (int i = 0; i < D / 2; i++) a[i] = b[i] = 0;
  }
  // A row that sees one which is not finite is NaN; others have no part in it: it is 0 in the products.
  GPU void spoil(const Notes& notes, const Mine& r) {
    u32 bad = bad_rows(notes.bad[0]) | bad_rows(notes.bad[1]);
    if (!bad) return;
    bool any[2] = {false, false};
#pragma unroll 1
    for (int j = 0; j < KEYS; j++)
#pragma unroll
      for (int half = 0; half < 2; half++)
        if (bad >> j & 1) any[half] = any[half] || sees<KV>(r, j, notes.of[j].reach, half);
#pragma unroll
    for (int i = 0; i < D / 2; i++)
      if (any[i / 2 % 2]) a[i] = b[i] = __int_as_float(0x7fffffff);
  }
  // Takes a block of the other side for the warpgroup's rows, the own tile's from x and y on.
  GPU void take(const Room<D, P>& room, int block, const u8* x, const u8* y, const Mine& r, float scale) {
    constexpr int R = Room<D, P>::OWN;
    const Notes& notes = room.notes(block);
    spoil(notes, r);
    float s[KEYS / 2], t[KEYS / 2];
    begin_scores(s);
    begin_scores(t);
    add_scores<D, P, R>(s, x, room.other(block, 0));
    add_scores<D, P, R>(t, y, room.other(block, 1));
    bool all = __all_sync(FULL, KV ? r.n[1] <= notes.least : r.n[0] >= KEYS);
    wait_older<1>(s);
    if (all) weigh<P, KV, true>(s, notes, r, scale);
    else weigh<P, KV, false>(s, notes, r, scale);
    wait_products(t);
    if (all) lower<KV, true>(t, s, notes, r);
    else lower<KV, false>(t, s, notes, r);
    Weights<P> w;
    if (KV) {
      w.take(s);
      w.template blend<D>(b, room.other(block, 1));
      wait_products(b);
    }
    w.take(t);
    w.template blend<D>(a, room.other(block, 0));
    wait_products(a);
  }
  // Adds the second warpgroup's sums to the first one's, by way of space that both have done with.
  GPU void meet(float* space) {
    int i0 = threadIdx.x % 128;
    bool second = warp_id() / 4 == 2;
    group_barrier(1, 256);
    if (second)
#pragma unroll
      for (int i = 0; i < D / 2; i++) {
        space[i * 128 + i0] = a[i];
        if (KV) space[(D / 2 + i) * 128 + i0] = b[i];
      }
    group_barrier(1, 256);
    if (!second)
#pragma unroll
      for (int i = 0; i < D / 2; i++) {
        a[i] += space[i * 128 + i0];
        if (KV) b[i] += space[(D / 2 + i) * 128 + i0];
      }
  }
};

// The warpgroups that multiply. Sums are then those of a warpgroup's rows from r0 on.
template <int D, int P, bool KV>
GPU bool consume(Sums<D, P, KV>& sums, const Room<D, P>& room, const Work<KV>& w, Mine r, int r0, float scale) {
  constexpr int TURNS = Room<D, P>::TURNS;
  int group = warp_id() / 4 - 1;
#pragma unroll 1
  for (int operand = 0; operand < 2; operand++)
    if (TURNS == 1 || operand == group)
      bring_q<D, P, Room<D, P>::OWN>(room.own(operand), w.rows, r0, operand ? w.own.y : w.own.x, operand ? w.own.ys : w.own.xs);
  fence_async();
  group_barrier(TURNS == 1 ? 1 + group : 1, 128 * TURNS);
  sums.clear();
  int count = w.count(), first = TURNS == 1 ? 0 : group;
  if (!KV) r.n[0] -= first * KEYS, r.n[1] -= first * KEYS;
#pragma unroll 1
  for (int block = first; block < count; block += TURNS) {
    barrier_wait(&room.notes(block).full, Room<D, P>::parity(block));
    sums.take(room, block, room.own(0) + r0 * LINE, room.own(1) + r0 * LINE, r, scale);
    warp_arrives(&room.notes(block).empty);
    if (!KV) r.n[0] -= TURNS * KEYS, r.n[1] -= TURNS * KEYS;
  }
  if (TURNS == 1) return true;
  sums.meet((float*)room.space);
  return group == 0;
}

// Makes the mbarriers, and returns how many warpgroups multiply.
template <int D, int P> GPU int open(const Room<D, P>& room, int rows) {
  constexpr int TURNS = Room<D, P>::TURNS;
  int busy = TURNS == 1 && rows <= ROWS ? 1 : 2;
  if (threadIdx.x < Room<D, P>::STAGES) {
    barrier_init(&room.notes(threadIdx.x).full, 4);
    barrier_init(&room.notes(threadIdx.x).empty, 4 * busy / TURNS);
  }
  barriers_made();
  __syncthreads();
  return busy;
}

// grid: tiles of queries of all heads that share a key head (the longest first), key heads, sequences
template <int D, int P> GPU void queries(float* dq, int dqs, OPERANDS, SHAPE) {
  extern __shared__ __align__(1024) u8 space[];
  constexpr int OWN = Room<D, P>::OWN;
  Sequence sq = sequence(SHAPED, blockIdx.z, fault, tag);
  Work<false> w{Tile(SHAPED, sq, (gridDim.x - 1 - blockIdx.x) * OWN, OWN, blockIdx.y), {q, dout, qs, dos}, {k, v, ks, vs}, 0, 0, (int)blockIdx.y, (int)blockIdx.z};
  if (w.rows.rows <= 0) return;
  w.stop = w.rows.keys(w.rows.rows - 1);
  Room<D, P> room{space};
  int busy = open(room, w.rows.rows);
  if (warp_id() < 4) {
    fewer_registers<Room<D, P>::BRINGS>();
    produce(room, w, lse, es, delta, heads);
  } else if (warp_id() / 4 <= busy) {
    more_registers<Room<D, P>::TAKES>();
    int r0 = OWN == ROWS ? 0 : (warp_id() / 4 - 1) * ROWS;
    Mine mine;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      int r = r0 + row_of(half);
      bool there = r < w.rows.rows;
      mine.n[half] = w.rows.keys(r);
      mine.base[half] = there ? -lse[(size_t)w.rows.row(r) * es + w.rows.column(r)] : 0.f;
      mine.delta[half] = there ? delta[(size_t)w.rows.row(r) * heads + w.rows.column(r)] : 0.f;
    }
    Sums<D, P, false> sums;
    if (!consume(sums, room, w, mine, r0, scale)) return;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      int r = r0 + row_of(half);
      if (r >= w.rows.rows) continue;
      float* to = dq + (size_t)w.rows.row(r) * dqs + w.rows.column(r) * dim;
#pragma unroll
      for (int i = 0; i < D / 2; i++)
        if (i / 2 % 2 == half && column_of(i) < dim) to[column_of(i)] += sums.a[i] * scale;
    }
  }
}

// A part is of a key row and a query head: D columns of dk, then of dv.

// grid: tiles of keys × the heads that share a key head, key heads, sequences
template <int D, int P> GPU void keys(float* parts, OPERANDS, SHAPE) {
  extern __shared__ __align__(1024) u8 space[];
  constexpr int OWN = Room<D, P>::OWN;
  Sequence sq = sequence(SHAPED, blockIdx.z, fault, tag);
  int group = heads / kv, first = blockIdx.x / group * OWN, head = blockIdx.y * group + blockIdx.x % group;
  Shape alone = SHAPED;
  alone.heads = kv;  // a row of the tile is a key
  Work<true> w{Tile(alone, sq, first, OWN, blockIdx.y), {k, v, ks, vs}, {q, dout, qs, dos}, first, 0, head, (int)blockIdx.z};
  if (w.rows.rows <= 0) return;
  w.stop = followed(alone, blockIdx.z, sq, gridDim.z) - sq.lo;
  Room<D, P> room{space};
  int busy = open(room, w.rows.rows);
  if (warp_id() < 4) {
    fewer_registers<Room<D, P>::BRINGS>();
    produce(room, w, lse, es, delta, heads);
  } else if (warp_id() / 4 <= busy) {
    more_registers<Room<D, P>::TAKES>();
    int r0 = OWN == ROWS ? 0 : (warp_id() / 4 - 1) * ROWS;
    Mine mine;
#pragma unroll
    for (int half = 0; half < 2; half++) mine.n[half] = first + r0 + row_of(half);
    Sums<D, P, true> sums;
    if (!consume(sums, room, w, mine, r0, scale)) return;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      int r = r0 + row_of(half);
      if (r >= w.rows.rows) continue;
      float* to = parts + ((size_t)w.rows.row(r) * heads + head) * 2 * D;
#pragma unroll
      for (int i = 2 * half; i < D / 2; i += 4) {
        *(float2*)(to + column_of(i)) = make_float2(sums.a[i] * scale, sums.a[i + 1] * scale);
        *(float2*)(to + D + column_of(i)) = make_float2(sums.b[i], sums.b[i + 1]);
      }
    }
  }
}

// grid: keys of a sequence × key heads, sequences. Adds the heads' parts, of `columns` each, in order.
KERNEL(128) attention_grad90_join(float* dk, int dks, float* dv, int dvs, const float* parts, int columns, SHAPE) {
  if (stopped(fault, tag)) return;
  int t = blockIdx.x / kv, h = blockIdx.x % kv, c = threadIdx.x, group = heads / kv;
  int row = starts[(size_t)blockIdx.y * ss] + t;
  if (row >= starts[(size_t)(blockIdx.y + 1) * ss] || c >= dim) return;
  const float* of = parts + ((size_t)row * heads + h * group) * 2 * columns + c;
  float k = 0, v = 0;
  for (int u = 0; u < group; u++, of += 2 * columns) k += of[0], v += of[columns];
  dk[(size_t)row * dks + h * dim + c] += k;
  dv[(size_t)row * dvs + h * dim + c] += v;
}

#define GRADIENT(D, P)                                                                       \
  KERNEL(384, 1) attention_grad90_q_##D##_##P(float* dq, int dqs, OPERANDS, SHAPE) {         \
    if (!stopped(fault, tag)) queries<D, P>(dq, dqs, GIVEN);                                   \
  }                                                                                          \
  KERNEL(384, 1) attention_grad90_kv_##D##_##P(float* parts, OPERANDS, SHAPE) {              \
    if (!stopped(fault, tag)) keys<D, P>(parts, GIVEN);                                        \
  }

GRADIENT(64, 1)
GRADIENT(128, 1)
GRADIENT(64, 3)
GRADIENT(128, 3)
