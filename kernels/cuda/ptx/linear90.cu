// linear90: linear's product out = x·Wᵀ + bias on Hopper, by wgmma: 64 outputs are the instruction's rows, 8 to 192
// tokens its columns, 16 terms of K each.
//
// A weight's tiles (see linear) are already what wgmma calls swizzled by 64 bytes, and pack_tokens lays tokens
// likewise (order 2): so boxes of whole tiles come by TMA as they are, 512 bytes in a row, and shared memory is
// read without conflicts. Both sides' tiles beyond the last are zeros: outside the tensor map.
//
// One order, fixed by the length K, whatever the number of tokens and of blocks: steps of 2 tiles (64 terms), the last
// filled up with zeros; tile by tile, piece by piece, two instructions a tile; 8 steps are a segment, summed from zero
// by the matrix unit; the segments' sums are added in order. That an instruction's bits do not depend on its number of
// columns is for a GPU to show (package probe).
//   linear90_v1   a warpgroup 64 outputs × 8 tokens, tiles carried by the threads: the definition
//   linear90_N_P  blocks that stay, one a multiprocessor, each for a run of segments: of tiles of 128 outputs × N tokens
//                 of P pieces. A thread of the first warpgroup keeps the stages of shared memory full, across tiles;
//                 two warpgroups of 64 outputs each empty them, and say so by mbarriers.
//                 Few tokens: runs end within tiles, so that all multiprocessors stream the weight, 2 bytes for each of
//                 its numbers and no more from memory. A part of a tile leaves each segment's sums (the first part: their
//                 sum) in scratch memory, and what comes last adds them in order. That is N/128 of the weight's bytes
//                 written and read again, within the L2 cache.
//                 Many tokens: runs are whole tiles, those at work at a time 16 tiles of outputs by a few of tokens:
//                 for 16 terms and P = 1 a multiprocessor takes 4 + N/32 KB from L2 and N clocks of the matrix unit,
//                 64 bytes a clock with N = 128, 53 with 192. Two f32 sums of each output, as the order asks for, leave
//                 room in the registers for no more than N = 192.
//                 Clusters of wide × high blocks (1, 2 or 4, as the host chooses) take wide tiles of outputs and high of
//                 tokens beside each other: each block brings its part of a tile for all that need it, by multicast, and the
//                 cache gives 4/high + N·P/32/wide KB a block. With P = 1 and N = 192 that is 37 bytes a clock for 2 × 1, 29
//                 for 4 × 1 and 27 for 2 × 2; with P = 3 already 23 for 2 × 1. They stop sharing where the parts of a tile are
//                 less than a row of tiles.
//   not tried     128 × 256: its sums of segments would lie in shared memory, 128 of 227 KB, and leave two stages; 47 bytes a clock
//                 alone. A third warpgroup has no registers for two sums of 64 × 192
// None has been timed; each prediction waits for hardware.
#include "hopper.h"
#include "ending.h"

#define TILE 512    // bytes
#define STEP 2      // tiles
#define SEGMENT 8   // steps
#define HIGH 16     // tiles of outputs that are beside each other before the next tile of tokens

#define TAIL u64 *fault, u32 tag

// The products of a step: 64 rows of the weight at w, its rows of tiles STEP apart, and tokens at x.
template <int P, int R> GPU void step_products(float (&d)[R], const u8* w, const u8* x) {
#pragma unroll
  for (int j = 0; j < STEP; j++)
#pragma unroll
    for (int p = 0; p < P; p++)
#pragma unroll
      for (int half = 0; half < 2; half++)
        product(d, operand64(w + j * TILE + half * 32, STEP * TILE), operand64(x + (j * P + p) * TILE + half * 32, STEP * P * TILE));
}

template <int P> GPU void define(const Ending& to, const uint4* w, const uint4* x, int wide) {
  __shared__ __align__(1024) u8 space[(8 + P) * STEP * TILE];
  uint4 *tw = (uint4*)space, *tx = tw + 8 * STEP * 32;
  int high = (to.n + 31) / 32 * 4;  // the weight's rows of tiles
  float s[4] = {}, d[4];
  for (int k = 0; k < wide; k += STEP) {
    for (int i = threadIdx.x; i < 8 * STEP * 32; i += 128) {
      int row = blockIdx.x * 8 + i / (STEP * 32), col = k + i / 32 % STEP;
      tw[i] = row < high && col < wide ? w[((size_t)row * wide + col) * 32 + i % 32] : make_uint4(0, 0, 0, 0);
    }
    for (int i = threadIdx.x; i < P * STEP * 32; i += 128) {
      int col = k + i / 32 / P;
      tx[i] = col < wide ? x[((size_t)blockIdx.y * wide + k) * P * 32 + i] : make_uint4(0, 0, 0, 0);
    }
    fence_async();
    __syncthreads();
    if (k % (STEP * SEGMENT) == 0) d[0] = d[1] = d[2] = d[3] = 0;
    begin_products(d);
    step_products<P>(d, space, space + 8 * STEP * TILE);
    end_products();
    wait_products(d);
    if (k / STEP % SEGMENT == SEGMENT - 1 || k + STEP >= wide)
      for (int e = 0; e < 4; e++) s[e] += d[e];
    __syncthreads();
  }
  put(to, s, nullptr, 0, blockIdx.x * 64, blockIdx.y * 8);
}

KERNEL(128) linear90_v1(float* out, int os, const float* bias, int rows, int n, const uint4* w, const uint4* x, int wide, int pieces, TAIL) {
  if (stopped(fault, tag)) return;
  Ending to{out, os, bias, rows, n};
  if (pieces == 1) define<1>(to, w, x, wide);
  else define<3>(to, w, x, wide);
}

// The stages of shared memory, after them for each the barriers that say it is full, and empty again, a word for each
// warpgroup, and what adapters add. There is no other shared memory: the stages must begin at a multiple of 512, where the tiles' exchange of
// pieces does.
template <int N, int P> struct Ring {
  enum : int {
    WEIGHT = 16 * STEP * TILE,
    BYTES = WEIGHT + N / 8 * STEP * P * TILE,
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

// The parts of tiles that a block computes, in order. All segments of all tiles stand in a row; a block takes `each` of
// them, and again so many gridDim.x·each further on.
struct Parts {
  int each, segments, all;  // segments: of a tile
  int at, end;              // the next segment, and where the block's run ends
  int beyond;               // from the end of a run to the next one's beginning
  int tile, lo, hi;         // the part is segments lo … hi-1

  GPU Parts(int each, int segments, int tiles, int wide) : each(each), segments(segments), all(tiles * segments) {
    at = blockIdx.x / wide * each;
    beyond = (gridDim.x / wide - 1) * each;
    end = min(at + each, all);
  }
  GPU bool next() {
    if (at == end) {
      at += beyond;
      end = min(at + each, all);
    }
    if (at >= all) return false;
    tile = at / segments, lo = at % segments;
    hi = min(segments, lo + end - at);
    at += hi - lo;
    return true;
  }
  GPU bool whole() const { return hi - lo == segments; }
};

// A block's cluster: wide × high blocks, the block is at (x, y) of it. Those at the same x share a tile of the weight, those
// at the same y one of tokens: each brings its part for all of them.
struct Cluster {
  int wide, high, x, y;

  GPU Cluster() : wide(cluster_wide()), high(cluster_high()) {
    int rank = cluster_rank();
    x = rank % wide, y = rank / wide;
  }
  GPU int blocks() const { return wide * high; }
  GPU bool peers(int rank) const { return rank < blocks() && (rank % wide == x || rank / wide == y); }
  GPU u32 column() const {  // as a mask
    u32 mask = 0;
#pragma unroll 1
    for (int i = 0; i < high; i++) mask |= 1u << (i * wide + x);
    return mask;
  }
  GPU u32 row() const { return ((1u << wide) - 1) << (y * wide); }
};

// What a launch is about: tall × long tiles of a cluster, of steps of K, and where parts of tiles meet.
struct Plan {
  Cluster in;
  int tall, tokens, steps, each;
  int high;      // rows of tiles that a block brings of each of the weight's halves, or of the whole
  float* parts;  // 128·N sums for each segment of each tile
  u32* come;     // for each tile and warpgroup the segments that are in parts; 0 between launches

  GPU Parts first() const { return Parts(each, (steps + SEGMENT - 1) / SEGMENT, tall * tokens, in.wide); }
  // The block's own of a cluster's tile: of outputs, of tokens, and the number of all.
  GPU void place(int tile, int& o, int& t, int& number) const {
    int most = HIGH / in.wide, first = tile / (most * tokens) * most, high = min(most, tall - first), i = tile - first * tokens;
    o = (first + i % high) * in.wide + in.x, t = i / high * in.high + in.y;
    number = tile * in.blocks() + in.y * in.wide + in.x;
  }
};

template <int N, int P> GPU void produce(Ring<N, P> r, const TensorMap& w, const TensorMap& x, const Plan& plan) {
  bool alone = plan.in.blocks() == 1;
  u32 column = plan.in.column(), row = plan.in.row();
  int high = N / 8 / plan.in.wide;  // rows of tiles of tokens that the block brings
  u8* space = r.space + plan.in.y * (r.WEIGHT / plan.in.high);
  int tokens = r.WEIGHT - plan.in.y * (r.WEIGHT / plan.in.high) + plan.in.x * (high * STEP * P * TILE);
  for (Parts p = plan.first(); p.next();) {
    int o, t, number, last = min(p.hi * SEGMENT, plan.steps);
    plan.place(p.tile, o, t, number);
    o = (o * plan.in.high + plan.in.y) * plan.high, t = (t * plan.in.wide + plan.in.x) * high;
    for (int step = p.lo * SEGMENT; step < last; step++, r.next()) {
      u64* full = r.full + r.stage;
      barrier_wait_for_all(r.empty + r.stage, r.parity ^ 1);  // the phase before the first counts as over
      barrier_expect(full, r.BYTES);
      u8* to = space + r.stage * r.BYTES;
      if (alone) {
        bring_box(to, w, 0, step * STEP, 0, o, full);
        bring_box(to + tokens, x, 0, step * STEP * P, t, full);
      } else {
        bring_box(to, w, 0, step * STEP, 0, o, full, column);
        bring_box(to + tokens, x, 0, step * STEP * P, t, full, row);
      }
    }
  }
}

// A segment of one warpgroup's 64 outputs × N tokens, from zero. A stage is given back when the products of the next one
// are on their way: to each block that brings parts of it by a lane of its own, whose `back` is where that has its barriers.
template <int N, int P> GPU void segment(float (&d)[N / 2], Ring<N, P>& r, u32 back, int group, int steps) {
#pragma unroll
  for (int i = 0; i < N / 2; i++) d[i] = 0;
  begin_products(d);
  u32 before = 0;
  for (; steps > 0; steps--, r.next()) {
    barrier_wait(r.full + r.stage, r.parity);
    step_products<P>(d, r.weight() + group * 8 * STEP * TILE, r.weight() + r.WEIGHT);
    end_products();
    wait_products<1>();
    if (before) barrier_arrive_at(before);
    before = back ? back + r.stage * 8 : 0;
  }
  wait_products(d);
  if (before) barrier_arrive_at(before);
}

// ---- parts of tiles: a warpgroup's sums of a segment, four by four: 128 threads' lie end to end

template <int R> GPU float4* slot(float* parts, int segment, int group) {
  return (float4*)parts + ((size_t)segment * 2 + group) * (R / 4 * 128) + threadIdx.x % 128;
}

// Whether a thread's i-th four are of tokens that there are, of so many from the tile's first on.
GPU bool there(int i, int rows) { return 8 * i + lane_id() % 4 * 2 < rows; }

template <int R> GPU void leave(float4* to, const float (&d)[R], int rows) {
#pragma unroll
  for (int i = 0; i < R / 4; i++)
    if (there(i, rows)) to[i * 128] = make_float4(d[4 * i], d[4 * i + 1], d[4 * i + 2], d[4 * i + 3]);
}

template <int R> GPU void add(float (&s)[R], const float4* from, int rows) {
#pragma unroll
  for (int i = 0; i < R / 4; i++)
    if (there(i, rows)) {
      float4 v = from[i * 128];
      s[4 * i] += v.x, s[4 * i + 1] += v.y, s[4 * i + 2] += v.z, s[4 * i + 3] += v.w;
    }
}

// Counts a part's segments, which the warpgroup has left, and says whether it is the last of the tile's: then all are
// seen. word is the warpgroup's in shared memory.
GPU bool last_to_come(u32* come, int mine, int all, int group, u32* word) {
  group_barrier(1 + group, 128);
  if (threadIdx.x % 128 == 0) {
    fence_blocks();
    bool last = count_up(come, mine) + mine == all;
    fence_blocks();
    if (last) count_up(come, -all);
    *word = last;
  }
  group_barrier(1 + group, 128);
  return *word;
}

// ---- the kernels

template <int N, int P>
GPU void consume(const Ending& to, Ring<N, P> r, const Plan& plan, const Expand* expands, int many, int group, u32* word) {
  float s[N / 2], d[N / 2];
  u32 back = plan.in.peers(lane_id()) ? address_in(lane_id(), r.empty) : 0;
  for (Parts p = plan.first(); p.next();) {
    int o, t, number;
    plan.place(p.tile, o, t, number);
    int base = number * p.segments;
    int left = to.rows - t * N;
#pragma unroll
    for (int i = 0; i < N / 2; i++) s[i] = 0;
    for (int i = p.lo; i < p.hi; i++) {
      segment<N, P>(d, r, back, group, min(SEGMENT, plan.steps - i * SEGMENT));
      if (p.lo) leave(slot<N / 2>(plan.parts, base + i, group), d, left);
#pragma unroll
      for (int e = 0; e < N / 2; e++) s[e] += d[e];
    }
    if (!p.whole()) {
      if (!p.lo) leave(slot<N / 2>(plan.parts, base, group), s, left);
      if (!last_to_come(plan.come + 2 * number + group, p.hi - p.lo, p.segments, group, word)) continue;
#pragma unroll
      for (int e = 0; e < N / 2; e++) s[e] = 0;
      add(s, slot<N / 2>(plan.parts, base, group), left);
      for (int i = p.each - p.tile * p.segments % p.each; i < p.segments; i++) add(s, slot<N / 2>(plan.parts, base + i, group), left);
    }
    put(to, s, expands, many, o * 128 + group * 64, t * N);
  }
}

#define ENDING float *out, int os, const float *bias, int rows, int n, const float *plus, int ps, int gated
#define PLAN int wide, int each, float *parts, u32 *come
#define ADAPTERS const __grid_constant__ Expands expands, int many

template <int N, int P> GPU void product_of(const Ending& to, const TensorMap& w, const TensorMap& x, PLAN, const Expands& expands, int many) {
  using Stages = Ring<N, P>;
  extern __shared__ __align__(1024) u8 space[];
  u64 *full = (u64*)(space + Stages::STAGES * Stages::BYTES), *empty = full + Stages::STAGES;
  Expand* kept = (Expand*)(empty + Stages::STAGES + 1);
  Cluster in;
  if (threadIdx.x == 0) {
    for (int i = 0; i < Stages::STAGES; i++) {
      barrier_init(full + i, 1);
      barrier_init(empty + i, 8 * (in.wide + in.high - 1));  // a lane of each warp that reads what the block brings
    }
    barriers_made();
  }
#pragma unroll
  for (int i = 0; i < EXPANDS; i++)  // parameters by constant indices
    if (threadIdx.x == i) kept[i] = expands.of[i];
  cluster_barrier();
  Plan plan{in, (to.n + 128 * in.wide - 1) / (128 * in.wide), (to.rows + N * in.high - 1) / (N * in.high), (wide + STEP - 1) / STEP, each,
            (to.gated ? 8 : 16) / in.high, parts, come};
  Stages ring{space, full, empty, 0, 0};
  if (warp_id() < 4) {
    fewer_registers<40>();
    if (threadIdx.x == 0) produce(ring, w, x, plan);
  } else {
    more_registers<232>();
    int group = warp_id() / 4 - 1;
    consume(to, ring, plan, kept, many, group, (u32*)(empty + Stages::STAGES) + group);
  }
  cluster_barrier();
}

#define LINEAR90(N, P)                                                                           \
  KERNEL(384, 1) linear90_##N##_##P(ENDING, MAP w, MAP x, PLAN, ADAPTERS, TAIL) {                 \
    if (stopped(fault, tag)) return;                                                             \
    Ending to{out, os, bias, rows, n, plus, ps, gated};                                          \
    product_of<N, P>(to, w, x, wide, each, parts, come, expands, many);                          \
  }

LINEAR90(8, 1)
LINEAR90(16, 1)
LINEAR90(32, 1)
LINEAR90(64, 1)
LINEAR90(128, 1)
LINEAR90(192, 1)
LINEAR90(8, 3)
LINEAR90(16, 3)
LINEAR90(32, 3)
LINEAR90(64, 3)
LINEAR90(128, 3)
LINEAR90(192, 3)
