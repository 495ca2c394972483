// head90: log-probabilities straight from the head's input on Hopper: the products of linear90, in its order, whose
// logits stay in registers and leave as parts of 1024 ids (dist.h) for score_join; and the gradient by the logits, which
// LinearGrad takes on. V ids, H terms of K, P pieces.
//   score_parts   V·4 bytes of logits a row written and read: with V = 152,000 that is 1.2 MB, 0.36 ms for 1,000 rows
//                 of H = 3,584, whose product is 1.1 TFLOP, 1.7 ms at 660 TFLOP/s; a fifth more
//   head90_N_P    a block N tokens × 1024 ids, tile after tile of 128, tokens' tiles beside each other: of up to 2,048
//                 rows the weight is read once from memory, 1.09 GB, 0.33 ms of the 3.4 ms that they multiply. Written:
//                 V/1024·16 bytes a row, 2.4 KB. An exponential each for 2·H·P operations: about a tenth of the time,
//                 with the matrix unit idle
//   head90_grad   the logits once more, and coef·(1[id] - softmax)/temperature of them written, 4 bytes each
//   next          two blocks' warpgroups by turns, so that one's exponentials run beside the other's products
// None has been timed; each prediction waits for hardware.
#include "hopper.h"
#include "dist.h"

#define TILE 512     // bytes
#define STEP 2       // tiles
#define SEGMENT 8    // steps: linear90's order
#define CONSUMERS 256

#define TAIL u64 *fault, u32 tag

// The distributions of rows, and the id that each scores.
struct Dist {
  const int* ids;
  const float* temperature;
  const u32* mask;
  int is, ts, ms, rows, vocab;
};
#define DIST const int *ids, int is, const float *temperature, int ts, const u32 *mask, int ms, int rows, int vocab

// Stages as linear90's, and the barriers after them.
template <int N, int P> struct Ring {
  enum : int {
    WEIGHT = 16 * STEP * TILE,
    BYTES = WEIGHT + N / 8 * STEP * P * TILE,
    STAGES = 192 * 1024 / BYTES < 8 ? 192 * 1024 / BYTES : 8,
  };
  u8* space;
  u64 *full, *empty;
  int stage, parity;

  GPU const u8* weight() const { return space + stage * BYTES; }
  GPU void next() {
    if (++stage == STAGES) stage = 0, parity ^= 1;
  }
};

// What the consumers tell each other of a tile, after the barriers: of each token by sixteens of ids.
template <int N> struct Board {
  float largest[8][N], sums[8][N], surpluses[8][N];
  float most[N];      // what exponentials are relative to
  float inverse[N];   // 1 / temperature
  float lse[N], coef[N];
  int ids[N];
};

template <int N, int P> GPU void produce(Ring<N, P> r, const TensorMap& w, const TensorMap& x, int steps, int first, int tiles) {
  for (int tile = 0; tile < tiles; tile++)
    for (int step = 0; step < steps; step++, r.next()) {
      barrier_wait(r.empty + r.stage, r.parity ^ 1);  // the phase before the first counts as over
      barrier_expect(r.full + r.stage, r.BYTES);
      u8* to = r.space + r.stage * r.BYTES;
      bring_box(to, w, 0, step * STEP, (first + tile) * 16, r.full + r.stage);
      bring_box(to + r.WEIGHT, x, 0, step * STEP * P, blockIdx.x * (N / 8), r.full + r.stage);
    }
}

// s: one warpgroup's 64 ids × N tokens. A stage is given back when the products of the next one are on their way.
template <int N, int P> GPU void logits(float (&s)[N / 2], Ring<N, P>& r, int group, int steps) {
  float d[N / 2];
#pragma unroll
  for (int i = 0; i < N / 2; i++) s[i] = 0;
  for (int first = 0; first < steps; first += SEGMENT) {
#pragma unroll
    for (int i = 0; i < N / 2; i++) d[i] = 0;
    begin_products(d);
    int last = min(first + SEGMENT, steps) - 1;
    u64* before = nullptr;
    for (int step = first; step <= last; step++, r.next()) {
      barrier_wait(r.full + r.stage, r.parity);
      const u8 *w = r.weight() + group * 8 * STEP * TILE, *x = r.weight() + r.WEIGHT;
#pragma unroll
      for (int i = 0; i < STEP * P * 2; i++) {  // tile by tile, piece by piece, half by half
        int j = i / (2 * P), p = i / 2 % P, half = i % 2;
        product(d, operand64(w + j * TILE + half * 32, STEP * TILE), operand64(x + (j * P + p) * TILE + half * 32, STEP * P * TILE));
      }
      end_products();
      wait_products<1>();
      if (before && lane_id() == 0) barrier_arrive(before);
      before = r.empty + r.stage;
    }
    wait_products(d);
    if (lane_id() == 0) barrier_arrive(before);
#pragma unroll
    for (int i = 0; i < N / 2; i++) s[i] += d[i];
  }
}

// ---- a thread has of its tile ids o and o + 8 of tokens 8i + 2c + e: number q = 2i + e of N/4, elements 4i + e and
// 4i + e + 2

GPU int token_of(int q) { return q / 2 * 8 + lane_id() % 4 * 2 + q % 2; }

struct Largest {
  GPU float operator()(float a, float b) const { return fmaxf(a, b); }
};
struct Sum {
  GPU float operator()(float a, float b) const { return a + b; }
};

// Puts the two halves of a column's lanes that are o apart together: each goes on with half of the n tokens, from
// number q on, or both with the one.
template <int N, int Q, class F> GPU void halve(float (&v)[Q], int& q, int o, F f) {
  constexpr int LEFT = N > 1 ? N / 2 : 1;
  bool up = N > 1 && (lane_id() & o);
  if (up) q += LEFT;
#pragma unroll
  for (int j = 0; j < LEFT; j++) {
    float keep = up ? v[j + N - LEFT] : v[j], give = up ? v[j] : v[j + N - LEFT];
    v[j] = f(keep, __shfl_xor_sync(FULL, give, o));
  }
}

// Puts the 8 lanes of a column together, neighbours first, for tokens number q … q+Q-1.
template <int Q, class F> GPU void across(float* to, int q, float (&v)[Q], F f) {
  constexpr int A = Q > 1 ? Q / 2 : 1, B = A > 1 ? A / 2 : 1, LEFT = B > 1 ? B / 2 : 1;
  halve<Q>(v, q, 4, f);
  halve<A>(v, q, 8, f);
  halve<B>(v, q, 16, f);
  if (Q < 8 && lane_id() / 4 >= Q) return;  // others have the same
#pragma unroll
  for (int j = 0; j < LEFT; j++) to[token_of(q + j)] = v[j];
}

// Makes -inf of logits that are not to count, and leaves that of a scored id in got.
template <int N> GPU void settle(float (&s)[N / 2], const Dist& d, const Board<N>& b, float* got, int o, int t0) {
#pragma unroll
  for (int q = 0; q < N / 4; q++) {
    int t = token_of(q), row = t0 + t, i = q / 2 * 4 + q % 2, scored = b.ids[t] - o;
    if (scored == 0) got[row] = s[i];
    if (scored == 8) got[row] = s[i + 2];
    u32 word = ~0u;  // of both ids
    if (d.mask && row < d.rows && o < d.vocab) word = d.mask[(size_t)row * d.ms + o / 32] >> (o % 32);
    if (o >= d.vocab || !(word & 1)) s[i] = -INFINITY;
    if (o + 8 >= d.vocab || !(word >> 8 & 1)) s[i + 2] = -INFINITY;
  }
}

// The part of a tile, added to the token's: thread t of the consumers has token t's.
template <int N> GPU void add_tile(Part& part, float (&s)[N / 2], Board<N>& b, int sixteen) {
  constexpr int Q = N / 4 < 16 ? N / 4 : 16;  // tokens at a time, so that registers last
  int t = threadIdx.x - 128;
#pragma unroll
  for (int from = 0; from < N / 4; from += Q) {
    float v[Q];
#pragma unroll
    for (int j = 0; j < Q; j++) {
      int q = from + j, i = q / 2 * 4 + q % 2;
      float a = b.inverse[token_of(q)];
      v[j] = fmaxf(s[i] * a, s[i + 2] * a);
    }
    across(b.largest[sixteen], from, v, Largest());
  }
  group_barrier(1, CONSUMERS);
  float m = part.m;
  if (t < N) {
    for (int i = 0; i < 8; i++) m = fmaxf(m, b.largest[i][t]);
    b.most[t] = reference(m);
  }
  group_barrier(1, CONSUMERS);
#pragma unroll
  for (int from = 0; from < N / 4; from += Q) {
    float v[Q], u[Q];
#pragma unroll
    for (int j = 0; j < Q; j++) {
      int q = from + j, i = q / 2 * 4 + q % 2;
      float a = b.inverse[token_of(q)], most = b.most[token_of(q)];
      float x = fmaf(s[i], a, -most), y = fmaf(s[i + 2], a, -most), e = exp32(x), f = exp32(y);
      v[j] = e + f;
      u[j] = surplus(e, x) + surplus(f, y);
    }
    across(b.sums[sixteen], from, v, Sum());
    across(b.surpluses[sixteen], from, u, Sum());
  }
  group_barrier(1, CONSUMERS);
  if (t >= N) return;
  float x[8], y[8];
#pragma unroll
  for (int i = 0; i < 8; i++) x[i] = b.sums[i][t], y[i] = b.surpluses[i][t];
  add(part, m, ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7])),
      ((y[0] + y[1]) + (y[2] + y[3])) + ((y[4] + y[5]) + (y[6] + y[7])));
}

// ---- a block: N tokens by the ids of blockIdx.y, 1024 of them

template <int N, int P> struct Block {
  Ring<N, P> ring;
  Board<N>* board;
  int steps, first, tiles;  // tiles of 128 ids

  GPU Block(u8* space, int wide, int from, int to) {
    using R = Ring<N, P>;
    u64* full = (u64*)(space + R::STAGES * R::BYTES);
    ring = R{space, full, full + R::STAGES, 0, 0};
    board = (Board<N>*)(full + 2 * R::STAGES);
    steps = (wide + STEP - 1) / STEP;
    first = (from + (int)blockIdx.y * IDS) / TILE_IDS;
    tiles = min(IDS / TILE_IDS, (to - first * TILE_IDS + TILE_IDS - 1) / TILE_IDS);
    if (threadIdx.x == 0) {
      for (int i = 0; i < R::STAGES; i++) {
        barrier_init(full + i, 1);
        barrier_init(ring.empty + i, 8);  // a lane of each warp that reads it
      }
      barriers_made();
    }
  }

  // Reads what a token's distribution is, by the threads after the first N.
  GPU void read(const Dist& d, const float* lse, int es, const float* coef, int cs) {
    int t = threadIdx.x, row = blockIdx.x * N + t;
    if (t >= N) return;
    bool greedy, there = row < d.rows;
    float a = there ? inverse(d.temperature, d.ts, row, greedy) : 1.f;
    board->inverse[t] = a;
    board->ids[t] = there ? d.ids[(size_t)row * d.is] : -1;
    if (!lse) return;
    board->lse[t] = there ? lse[(size_t)row * es] : 0.f;
    board->coef[t] = there ? coef[(size_t)row * cs] * a : 0.f;
  }
};

// The consumers' share: parts of the tiles' ids.
template <int N, int P> GPU void parts_of(float4* parts, float* got, const Dist& d, Block<N, P>& b) {
  int warp = warp_id() - 4, t0 = blockIdx.x * N, t = threadIdx.x - 128;
  Part part{-INFINITY, 0, 0};
  for (int tile = 0; tile < b.tiles; tile++) {
    float s[N / 2];
    logits(s, b.ring, warp / 4, b.steps);
    settle(s, d, *b.board, got, (b.first + tile) * TILE_IDS + warp * 16 + lane_id() / 4, t0);
    add_tile(part, s, *b.board, warp);
  }
  if (t < N && t0 + t < d.rows)
    parts[(size_t)(t0 + t) * gridDim.y + blockIdx.y] = make_float4(part.m, part.s, part.u, 0.f);
}

// Or the gradient by the logits of ids first … end-1.
template <int N, int P> GPU void gradients(float* out, int os, const Dist& d, Block<N, P>& b, int first, int end) {
  int warp = warp_id() - 4, t0 = blockIdx.x * N;
  for (int tile = 0; tile < b.tiles; tile++) {
    float s[N / 2];
    logits(s, b.ring, warp / 4, b.steps);
    int o = (b.first + tile) * TILE_IDS + warp * 16 + lane_id() / 4;
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
      int t = token_of(i / 4 * 2 + i % 2), id = o + i / 2 % 2 * 8, row = t0 + t;
      if (row >= d.rows || id >= end) continue;
      bool counts = !d.mask || allowed(d.mask + (size_t)row * d.ms, id);
      out[(size_t)row * os + id - first] =
          counts ? gradient(s[i], b.board->inverse[t], b.board->lse[t], b.board->coef[t], id == b.board->ids[t]) : 0.f;
    }
  }
}

// Rows whose id cannot be scored fail in score_join, and in head90_check before the gradient.
KERNEL(128) head90_check(DIST, TAIL) {
  int i = blockIdx.x * 128 + threadIdx.x;
  if (stopped(fault, tag) || i >= rows) return;
  scorable(mask ? mask + (size_t)i * ms : 0, vocab, ids[(size_t)i * is], fault, tag, i);
}

// The producer is a thread of the first warpgroup, the others have its registers.
#define ROLES(N, P, CONSUME)                                                           \
  if (warp_id() < 4) {                                                                 \
    fewer_registers<40>();                                                             \
    if (threadIdx.x == 0) produce(b.ring, w, x, b.steps, b.first, b.tiles);            \
  } else {                                                                             \
    more_registers<232>();                                                             \
    CONSUME;                                                                           \
  }

#define HEAD90(N, P)                                                                                                    \
  KERNEL(384, 1) head90_##N##_##P(float4* parts, float* got, DIST, MAP w, MAP x, int wide, TAIL) {                      \
    extern __shared__ __align__(1024) u8 space[];                                                                       \
    if (stopped(fault, tag)) return;                                                                                    \
    Dist d{ids, temperature, mask, is, ts, ms, rows, vocab};                                                            \
    Block<N, P> b(space, wide, 0, vocab);                                                                               \
    b.read(d, nullptr, 0, nullptr, 0);                                                                                  \
    __syncthreads();                                                                                                    \
    ROLES(N, P, (parts_of<N, P>(parts, got, d, b)))                                                                     \
  }                                                                                                                     \
  KERNEL(384, 1) head90_grad_##N##_##P(float* out, int os, const float* lse, int es, const float* coef, int cs, DIST,   \
                                       MAP w, MAP x, int wide, int first, int cols, TAIL) {                             \
    extern __shared__ __align__(1024) u8 space[];                                                                       \
    if (stopped(fault, tag)) return;                                                                                    \
    Dist d{ids, temperature, mask, is, ts, ms, rows, vocab};                                                            \
    Block<N, P> b(space, wide, first, first + cols);                                                                    \
    b.read(d, lse, es, coef, cs);                                                                                       \
    __syncthreads();                                                                                                    \
    ROLES(N, P, (gradients<N, P>(out, os, d, b, first, first + cols)))                                                  \
  }

HEAD90(8, 1)
HEAD90(128, 1)
HEAD90(8, 3)
HEAD90(128, 3)
