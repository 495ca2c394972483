// quant90: the product of quant.h's weight on Hopper, out = x·Wᵀ + bias, by wgmma: 64 outputs are the instruction's rows, in
// registers, where their bytes become bf16 numbers; tokens by their P pieces, up to 192, are its columns.
//
// Tiles of the weight and of the tokens (see linear: order 2) come by TMA as they lie. What a lane reads of the weight is its
// eight bytes of a tile, without conflicts, and its outputs' scales. An instruction has all pieces of its tokens at once, a group
// of 8 columns each: the pieces of an activation are added outside it, so that the weight's registers are read once and few tokens
// take two instructions a block of 32, not 2·P.
//   quant90_v1   a warpgroup 64 outputs × 8 tokens, tiles carried by the threads: the definition
//   quant90_N_P  (quant90_N_int where activations are integers) linear90's blocks that stay: a thread that keeps the stages of shared memory full and two warpgroups of 64
//                outputs each that empty them, runs of segments, parts of tiles that meet (parts.h).
//                Few tokens: 1.06 bytes a number of the weight instead of 2, so 0.53 of linear90's time. 128 outputs × 64 terms
//                are 8.7 KB, of which memory gives a multiprocessor 12.6 bytes a clock: 690 clocks, for about 250 instructions of each
//                scheduler (56 turn a warp's bytes into 64 numbers, twice).
//                Many tokens: for 16 terms and P = 3 a multiprocessor takes 2.1 + N/10.7 KB from L2 and 3·N clocks of the matrix
//                unit; N = 64 makes that 43 bytes a clock, with 1.5·N/2 additions of a thread a block of 32.
//   next         the bytes of a step turned while the products of the one before are under way
// None has been timed; each prediction waits for hardware.
#include "hopper.h"
#include "ending.h"
#include "parts.h"
#include "lanes.h"
#include "quant.h"

#define TILE 512  // bytes of 8 tokens × 32 terms
#define STEP 2    // tiles
#define STEPS (SEGMENT / STEP)

#define TAIL u64 *fault, u32 tag

// Both instructions of a block: d, of P pieces of tokens side by side, from zero.
template <int C> GPU void block_products(float (&d)[C / 2], const u32* a, const u8* x) {
  product_first(d, a, operand64(x, TILE));
  product_next(d, a + 4, operand64(x + 32, TILE));
}

// Adds a block to its segment's sums s: the pieces' sums together, by the scales of both of a thread's outputs, and where
// activations are integers by its tokens', which for 8 tokens are STEP·8 from scales on.
template <int P, bool I, int R>
GPU void take_block(float (&s)[R], const float (&d)[R * P], float low, float high, const float* scales) {
#pragma unroll
  for (int i = 0; i < R / 4; i++) {
    float2 by = make_float2(1, 1);
    if (I) by = *(const float2*)(scales + i * STEP * 8 + lane_id() % 4 * 2);
#pragma unroll
    for (int e = 0; e < 4; e++) {
      float v = d[4 * (i * P + P - 1) + e], scale = e < 2 ? low : high;
#pragma unroll
      for (int p = P - 2; p >= 0; p--) v += d[4 * (i * P + p) + e];
      if (I) scale *= e % 2 ? by.y : by.x;
      s[4 * i + e] = fmaf(v, scale, s[4 * i + e]);
    }
  }
}

// A step: STEP blocks, of the warpgroup's 64 outputs from w on, whose rows of tiles are STEP apart, and of tokens from x on.
template <int N, int P, bool I> GPU void take_step(float (&s)[N / 2], const u8* w, const u8* x, const float* scales) {
  constexpr int TOGETHER = N * P < 96 ? STEP : 1;  // blocks under way: as registers allow
  u32 a[STEP][8];
  float low[STEP], high[STEP];
  w += warp_id() % 4 * 2 * STEP * QTILE;
#pragma unroll
  for (int j = 0; j < STEP; j++) {
    fragment(a[j], w + j * QTILE, w + (STEP + j) * QTILE);
    low[j] = scale_of(w + j * QTILE), high[j] = scale_of(w + (STEP + j) * QTILE);
  }
#pragma unroll
  for (int first = 0; first < STEP; first += TOGETHER) {
    float d[TOGETHER][N * P / 2];
    begin_lanes(a);
#pragma unroll
    for (int j = 0; j < TOGETHER; j++) block_products<N * P>(d[j], a[first + j], x + (first + j) * (N / 8 * P * TILE));
    end_products();
#pragma unroll
    for (int j = 0; j < TOGETHER; j++) wait_products(d[j]);
#pragma unroll
    for (int j = 0; j < TOGETHER; j++) take_block<P, I>(s, d[j], low[first + j], high[first + j], scales + (first + j) * 8);
  }
}

template <int P, bool I> GPU void define(const Ending& to, const u8* w, const uint4* x, const float* scales, int wide) {
  __shared__ __align__(1024) u8 space[8 * STEP * QTILE + 512 + P * STEP * TILE];
  __shared__ __align__(8) float by[STEP * 8];
  uint4 *tw = (uint4*)space, *tx = (uint4*)(space + (8 * STEP * QTILE + 511) / 512 * 512);
  constexpr int QUADS = QTILE / 16;
  int high = (to.n + 7) / 8;  // the weight's rows of tiles
  float all[4] = {}, s[4];
  for (int k = 0; k < wide; k += STEP) {
    for (int i = threadIdx.x; i < 8 * STEP * QUADS; i += 128) {
      int row = blockIdx.x * 8 + i / (STEP * QUADS), col = k + i / QUADS % STEP;
      tw[i] = row < high && col < wide ? ((const uint4*)w)[((size_t)row * wide + col) * QUADS + i % QUADS] : make_uint4(0, 0, 0, 0);
    }
    for (int i = threadIdx.x; i < P * STEP * 32; i += 128) {
      int col = k + i / 32 / P;
      tx[i] = col < wide ? x[((size_t)blockIdx.y * wide + k) * P * 32 + i] : make_uint4(0, 0, 0, 0);
    }
    if (I && threadIdx.x < STEP * 8)
      by[threadIdx.x] = k + threadIdx.x / 8 < wide ? scales[((size_t)blockIdx.y * wide + k) * 8 + threadIdx.x] : 0.f;
    fence_async();
    __syncthreads();
    if (k % SEGMENT == 0) s[0] = s[1] = s[2] = s[3] = 0;
    take_step<8, P, I>(s, space, (const u8*)tx, by);
    if (k % SEGMENT == SEGMENT - STEP || k + STEP >= wide)
      for (int e = 0; e < 4; e++) all[e] += s[e];
    __syncthreads();
  }
  put(to, all, nullptr, 0, blockIdx.x * 64, blockIdx.y * 8);
}

KERNEL(128) quant90_v1(float* out, int os, const float* bias, int rows, int n, const u8* w, const uint4* x, const float* scales,
                         int wide, int pieces, TAIL) {
  if (stopped(fault, tag)) return;
  Ending to{out, os, bias, rows, n};
  if (scales) define<1, true>(to, w, x, scales, wide);
  else if (pieces == 1) define<1, false>(to, w, x, scales, wide);
  else define<3, false>(to, w, x, scales, wide);
}

// The stages of shared memory, after them the barriers that say that they are full and empty again, a word for each warpgroup,
// and what adapters add. Tokens' tiles begin at a multiple of 512, where the exchange of their pieces does; their scales follow.
template <int N, int P, bool I> struct Ring {
  enum : int {
    WEIGHT = 16 * STEP * QTILE,
    TOKENS = N / 8 * P * TILE,  // of 32 terms
    SCALES = WEIGHT + STEP * TOKENS,
    COME = SCALES + (I ? STEP * N * 4 : 0),
    BYTES = (COME + 511) / 512 * 512,
    STAGES = 220 * 1024 / BYTES < 8 ? 220 * 1024 / BYTES : 8,
  };
  u8* space;
  u64 *full, *empty;
  int stage, parity;

  GPU const u8* weight() const { return space + stage * BYTES; }
  GPU void next() {
    if (++stage == STAGES) stage = 0, parity ^= 1;
  }
};

template <int N, int P, bool I>
GPU void produce(Ring<N, P, I> r, const TensorMap& w, const TensorMap& x, const TensorMap& scales, const Plan& plan) {
  for (Parts p = plan.first(); p.next();) {
    int o, t, last = min(p.hi * STEPS, plan.steps);
    plan.place(p.tile, o, t);
    for (int step = p.lo * STEPS; step < last; step++, r.next()) {
      barrier_wait(r.empty + r.stage, r.parity ^ 1);  // the phase before the first counts as over
      barrier_expect(r.full + r.stage, r.COME);
      u8* to = r.space + r.stage * r.BYTES;
      bring_box(to, w, 0, step * STEP, 0, o * plan.high, r.full + r.stage);
#pragma unroll
      for (int j = 0; j < STEP; j++)
        bring_box(to + r.WEIGHT + j * r.TOKENS, x, 0, (step * STEP + j) * P, t * (N / 8), r.full + r.stage);
      if (I) bring_box(to + r.SCALES, scales, 0, step * STEP, t * (N / 8), r.full + r.stage);
    }
  }
}

// A segment of one warpgroup's 64 outputs × N tokens, from zero.
template <int N, int P, bool I> GPU void segment(float (&s)[N / 2], Ring<N, P, I>& r, int group, int steps) {
#pragma unroll
  for (int i = 0; i < N / 2; i++) s[i] = 0;
#pragma unroll 1
  for (; steps > 0; steps--, r.next()) {
    barrier_wait(r.full + r.stage, r.parity);
    take_step<N, P, I>(s, r.weight() + group * 8 * STEP * QTILE, r.weight() + r.WEIGHT, (const float*)(r.weight() + r.SCALES));
    __syncwarp();  // for what its lanes have read
    if (lane_id() == 0) barrier_arrive(r.empty + r.stage);
  }
}

template <int N, int P, bool I>
GPU void consume(const Ending& to, Ring<N, P, I> r, const Plan& plan, const Expand* expands, int many, int group, u32* word) {
  float all[N / 2], s[N / 2];
  for (Parts p = plan.first(); p.next();) {
    int o, t, base = p.tile * p.segments;
    plan.place(p.tile, o, t);
    int left = to.rows - t * N;
#pragma unroll
    for (int i = 0; i < N / 2; i++) all[i] = 0;
    for (int i = p.lo; i < p.hi; i++) {
      segment(s, r, group, min(STEPS, plan.steps - i * STEPS));
      if (p.lo) leave(slot<N / 2>(plan.parts, base + i, group), s, left);
#pragma unroll
      for (int e = 0; e < N / 2; e++) all[e] += s[e];
    }
    if (!p.whole()) {
      if (!p.lo) leave(slot<N / 2>(plan.parts, base, group), all, left);
      if (!last_to_come(plan.come + 2 * p.tile + group, p.hi - p.lo, p.segments, group, word)) continue;
#pragma unroll
      for (int e = 0; e < N / 2; e++) all[e] = 0;
      add(all, slot<N / 2>(plan.parts, base, group), left);
      for (int i = p.each - base % p.each; i < p.segments; i++) add(all, slot<N / 2>(plan.parts, base + i, group), left);
    }
    put(to, all, expands, many, o * 128 + group * 64, t * N);
  }
}

#define ENDING float *out, int os, const float *bias, int rows, int n, const float *plus, int ps, int gated
#define PLAN int wide, int each, float *parts, u32 *come
#define ADAPTERS const __grid_constant__ Expands expands, int many

template <int N, int P, bool I>
GPU void product_of(const Ending& to, const TensorMap& w, const TensorMap& x, const TensorMap& scales, PLAN, const Expands& expands, int many) {
  using Stages = Ring<N, P, I>;
  extern __shared__ __align__(1024) u8 space[];
  u64 *full = (u64*)(space + Stages::STAGES * Stages::BYTES), *empty = full + Stages::STAGES;
  Expand* kept = (Expand*)(empty + Stages::STAGES + 1);
  if (threadIdx.x == 0) {
    for (int i = 0; i < Stages::STAGES; i++) {
      barrier_init(full + i, 1);
      barrier_init(empty + i, 8);  // a lane of each warp that reads it
    }
    barriers_made();
  }
#pragma unroll
  for (int i = 0; i < EXPANDS; i++)  // parameters by constant indices
    if (threadIdx.x == i) kept[i] = expands.of[i];
  __syncthreads();
  int steps = (wide + STEP - 1) / STEP;
  Plan plan{(to.n + 127) / 128, (to.rows + N - 1) / N, steps, (steps + STEPS - 1) / STEPS, each, to.gated ? 8 : 16, parts, come};
  Stages ring{space, full, empty, 0, 0};
  if (warp_id() < 4) {
    fewer_registers<40>();
    if (threadIdx.x == 0) produce(ring, w, x, scales, plan);
  } else {
    more_registers<232>();
    int group = warp_id() / 4 - 1;
    consume(to, ring, plan, kept, many, group, (u32*)(empty + Stages::STAGES) + group);
  }
}

#define QUANT90(N, NAME, P, I)                                                                   \
  KERNEL(384, 1) quant90_##N##_##NAME(ENDING, MAP w, MAP x, MAP scales, PLAN, ADAPTERS, TAIL) {  \
    if (stopped(fault, tag)) return;                                                             \
    Ending to{out, os, bias, rows, n, plus, ps, gated};                                          \
    product_of<N, P, I>(to, w, x, scales, wide, each, parts, come, expands, many);               \
  }

QUANT90(8, 1, 1, false)
QUANT90(16, 1, 1, false)
QUANT90(32, 1, 1, false)
QUANT90(64, 1, 1, false)
QUANT90(96, 1, 1, false)
QUANT90(8, 3, 3, false)
QUANT90(16, 3, 3, false)
QUANT90(32, 3, 3, false)
QUANT90(64, 3, 3, false)
QUANT90(8, int, 1, true)
QUANT90(16, int, 1, true)
QUANT90(32, int, 1, true)
QUANT90(64, int, 1, true)
QUANT90(96, int, 1, true)
