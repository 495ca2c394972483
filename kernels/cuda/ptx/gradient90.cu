// gradient90: linear_grad's product dx += dout·W on Hopper, by wgmma: 64 of the weight's columns are the instruction's rows,
// 8, 64 or 128 tokens its columns, 16 of the weight's rows the terms.
//
// The weight's tiles (see linear) come by TMA as they are and are read across: a descriptor says that an operand's rows go
// along K (its lines of 32 columns along M, swizzled by 64 bytes), so no turned copy of a weight is kept. Tokens are
// packed as for linear90 (order 2), P pieces of each number of dout.
//
// One order, fixed by the number of terms, whatever the number of tokens and of blocks: steps of a tile (32 terms); tile by
// tile, piece by piece, two instructions a tile; 2 steps are a chunk, summed from zero by the matrix unit; the chunks' sums
// are added in order. The unit's own sum is short, so that how it rounds hardly counts; and because it is short, a warpgroup
// can do with one for two halves of its columns, one after the other, from the same stages: with the f32 sums of 128 × 128
// outputs in registers there is room for no second one.
//   gradient90_v1    a warpgroup 64 columns × 8 tokens, tiles carried by the threads: the definition
//   gradient90_N_P   blocks that stay, one a multiprocessor, tile after tile of 256 columns × N tokens: a thread of the
//                    first warpgroup keeps the stages of shared memory full, two warpgroups of 128 columns empty them.
//                    For a step a block takes 16 KB of the weight and N/16·P KB of tokens from L2: with P = 3 and N = 128
//                    40 KB for 1,536 clocks of products, where linear90's 128 × 192 would take 44 KB for 1,152. Gates and ups
//                    of a 7B model and 2,048 tokens: 10.9 GB, 1.9 ms of the L2 cache beside 1.7 of the matrix units;
//                    linear_grad takes 17.4 GB, 3.1 ms
//   the same, in clusters of wide × high blocks that share tokens and a weight by multicast: with 2 × 1 a block takes 28 KB
//                    of that step, and with P = 1 and 2 × 2 12 KB for 512 clocks where it took 24: the matrix units are what is
//                    left to wait for
// None has been timed; each prediction waits for hardware.
#include "hopper.h"
#include "turned.h"

#define TILE 512     // bytes
#define ACROSS 8     // tiles of columns that a block has
#define DEEP 4       // rows of tiles in a step
#define WEIGHT (ACROSS * DEEP * TILE)
#define CHUNK 2      // steps
#define HIGH 8       // blocks' columns that are beside each other before the next tile of tokens

#define TAIL u64 *fault, u32 tag

// The products of a step: 64 of the weight's columns from w on, its tiles apart by 512 bytes across and by so many down, and N
// tokens at x. With `first` they begin from zero.
template <int P, int R> GPU void step_products(float (&d)[R], const u8* w, int down, const u8* x, bool first) {
#pragma unroll
  for (int p = 0; p < P; p++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      u64 a = operand64_across(w + half * 2 * down, TILE, down), b = operand64(x + p * TILE + half * 32, P * TILE);
      if (first && p == 0 && half == 0) begin_turned(d, a, b);
      else product_turned(d, a, b);
    }
}

// Adds what a thread has of 64 columns × N tokens to dx, from column o and token t on.
template <int R> GPU void add_to(float* dx, int ds, const float (&s)[R], int rows, int cols, int o, int t) {
  o += warp_id() % 4 * 16 + lane_id() / 4;
  t += lane_id() % 4 * 2;
#pragma unroll
  for (int i = 0; i < R; i++) {
    int row = t + i / 4 * 8 + i % 2, col = o + i / 2 % 2 * 8;
    if (row < rows && col < cols) dx[(size_t)row * ds + col] += s[i];
  }
}

#define GRAD float *dx, int ds, int rows, int cols, int steps

template <int P> GPU void define(GRAD, const uint4* w, const uint4* x) {
  __shared__ __align__(1024) u8 space[(2 * DEEP + P) * TILE];
  uint4 *tw = (uint4*)space, *tx = tw + 2 * DEEP * 32;
  int wide = (cols + 31) / 32;
  float s[4] = {}, d[4] = {};
  for (int step = 0; step < steps; step++) {
    for (int i = threadIdx.x; i < 2 * DEEP * 32; i += 128) {
      int row = step * DEEP + i / 64, col = blockIdx.x * 2 + i / 32 % 2;
      tw[i] = col < wide ? w[((size_t)row * wide + col) * 32 + i % 32] : make_uint4(0, 0, 0, 0);
    }
    for (int i = threadIdx.x; i < P * 32; i += 128) tx[i] = x[((size_t)blockIdx.y * steps + step) * P * 32 + i];
    fence_async();
    __syncthreads();
    begin_products(d);
    step_products<P>(d, space, 2 * TILE, space + 2 * DEEP * TILE, step % CHUNK == 0);
    end_products();
    wait_products(d);
    if (step % CHUNK == CHUNK - 1 || step == steps - 1)
      for (int e = 0; e < 4; e++) s[e] += d[e];
    __syncthreads();
  }
  add_to(dx, ds, s, rows, cols, blockIdx.x * 64, blockIdx.y * 8);
}

// grid: 64 columns, 8 tokens
KERNEL(128) gradient90_v1(GRAD, const uint4* w, const uint4* x, int pieces, TAIL) {
  if (stopped(fault, tag)) return;
  if (pieces == 1) define<1>(dx, ds, rows, cols, steps, w, x);
  else define<3>(dx, ds, rows, cols, steps, w, x);
}

// The stages of shared memory, a step each, and after them for each the barriers that say it is full, and empty again. There is no
// other shared memory: the stages must begin at a multiple of 512.
template <int N, int P> struct Ring {
  enum : int {
    BYTES = WEIGHT + N / 8 * P * TILE,
    STAGES = 220 * 1024 / BYTES < 8 ? 220 * 1024 / BYTES : 8,
  };
  u8* space;
  u64 *full, *empty;
  int stage, parity;

  GPU const u8* weight() const { return space + stage * BYTES; }
  GPU const u8* tokens() const { return weight() + WEIGHT; }
  GPU void next() {
    if (++stage == STAGES) stage = 0, parity ^= 1;
  }
};

// A block's cluster: wide × high blocks, the block is at (x, y) of it. Those at the same x share a tile of the weight, those
// at the same y one of tokens: each brings its part for all of them.
struct Cluster {
  int wide, high, x, y;

  GPU Cluster() : wide(cluster_wide()), high(cluster_high()) { x = cluster_rank() % wide, y = cluster_rank() / wide; }
  GPU bool peers(int rank) const { return rank < wide * high && (rank % wide == x || rank / wide == y); }
  GPU u32 row() const { return ((1u << wide) - 1) << (y * wide); }  // as a mask
  GPU u32 column() const {
    u32 mask = 0;
#pragma unroll 1
    for (int i = 0; i < high; i++) mask |= 1u << (i * wide + x);
    return mask;
  }
};

// Tiles of 256 columns × N tokens for each block of a cluster: cluster number b has those numbered b, b + so many clusters, …
struct Tiles {
  Cluster in;
  int tall, tokens, steps;

  GPU int first() const { return blockIdx.x / in.wide; }
  GPU int beyond() const { return gridDim.x / in.wide; }
  GPU int all() const { return tall * tokens; }
  GPU void place(int tile, int& o, int& t) const {
    int most = HIGH / in.wide, first = tile / (most * tokens) * most, high = min(most, tall - first), i = tile - first * tokens;
    o = (first + i % high) * in.wide + in.x, t = i / high * in.high + in.y;
  }
};

template <int N, int P> GPU void produce(Ring<N, P> r, const TensorMap& w, const TensorMap& x, const Tiles& tiles) {
  const Cluster& in = tiles.in;
  bool alone = in.wide * in.high == 1;
  u32 column = in.column(), row = in.row();
  int deep = DEEP / in.high, high = N / 8 / in.wide;  // rows of tiles that the block brings
  for (int tile = tiles.first(); tile < tiles.all(); tile += tiles.beyond()) {
    int o, t;
    tiles.place(tile, o, t);
    for (int step = 0; step < tiles.steps; step++, r.next()) {
      u64* full = r.full + r.stage;
      barrier_wait_for_all(r.empty + r.stage, r.parity ^ 1);  // the phase before the first counts as over
      barrier_expect(full, r.BYTES);
      u8 *weight = r.space + r.stage * r.BYTES + in.y * deep * ACROSS * TILE;
      u8 *tokens = r.space + r.stage * r.BYTES + WEIGHT + in.x * high * P * TILE;
      if (alone) {
        bring_box(weight, w, 0, o * ACROSS, step * DEEP, full);
        bring_box(tokens, x, 0, step * P, t * high, full);
      } else {
        bring_box(weight, w, 0, o * ACROSS, step * DEEP + in.y * deep, full, column);
        bring_box(tokens, x, 0, step * P, (t * in.wide + in.x) * high, full, row);
      }
    }
  }
}

// A chunk of one or two steps, added to the sums of one warpgroup's 2 × 64 columns × N tokens. Its stages are given back to each
// block that brings parts of them by a lane of its own, whose `back` is where that has its barriers.
template <int N, int P> GPU void chunk(float (&s)[2][N / 2], float (&d)[N / 2], Ring<N, P>& r, u32 back, int group, int steps) {
  Ring<N, P> second = r;
  second.next();
  barrier_wait(r.full + r.stage, r.parity);
  if (steps > 1) barrier_wait(second.full + second.stage, second.parity);
#pragma unroll
  for (int half = 0; half < 2; half++) {
    int at = (group * 2 + half) * 2 * TILE;
    begin_products(d);
    step_products<P>(d, r.weight() + at, ACROSS * TILE, r.tokens(), true);
    if (steps > 1) step_products<P>(d, second.weight() + at, ACROSS * TILE, second.tokens(), false);
    end_products();
    wait_products(d);
#pragma unroll
    for (int i = 0; i < N / 2; i++) s[half][i] += d[i];
  }
  if (back) barrier_arrive_at(back + 8 * r.stage);
  if (back && steps > 1) barrier_arrive_at(back + 8 * second.stage);
  r = second;
  if (steps > 1) r.next();
}

template <int N, int P> GPU void consume(GRAD, Ring<N, P> r, const Tiles& tiles, int group) {
  float s[2][N / 2], d[N / 2];
  u32 back = tiles.in.peers(lane_id()) ? address_in(lane_id(), r.empty) : 0;
  for (int tile = tiles.first(); tile < tiles.all(); tile += tiles.beyond()) {
    int o, t;
    tiles.place(tile, o, t);
#pragma unroll
    for (int i = 0; i < N / 2; i++) s[0][i] = s[1][i] = d[i] = 0;
    for (int step = 0; step < steps; step += CHUNK) chunk<N, P>(s, d, r, back, group, steps - step);
#pragma unroll
    for (int half = 0; half < 2; half++) add_to(dx, ds, s[half], rows, cols, o * 256 + (group * 2 + half) * 64, t * N);
  }
}

template <int N, int P> GPU void product_of(GRAD, const TensorMap& w, const TensorMap& x) {
  using Stages = Ring<N, P>;
  extern __shared__ __align__(1024) u8 space[];
  u64 *full = (u64*)(space + Stages::STAGES * Stages::BYTES), *empty = full + Stages::STAGES;
  Cluster in;
  if (threadIdx.x == 0) {
    for (int i = 0; i < Stages::STAGES; i++) {
      barrier_init(full + i, 1);
      barrier_init(empty + i, 8 * (in.wide + in.high - 1));  // a lane of each warp that reads what the block brings
    }
    barriers_made();
  }
  cluster_barrier();
  Tiles tiles{in, (cols + 256 * in.wide - 1) / (256 * in.wide), (rows + N * in.high - 1) / (N * in.high), steps};
  Stages ring{space, full, empty, 0, 0};
  if (warp_id() < 4) {
    fewer_registers<40>();
    if (threadIdx.x == 0) produce(ring, w, x, tiles);
  } else {
    more_registers<232>();
    consume(dx, ds, rows, cols, steps, ring, tiles, warp_id() / 4 - 1);
  }
  cluster_barrier();
}

#define GRADIENT90(N, P)                                                                 \
  KERNEL(384, 1) gradient90_##N##_##P(GRAD, MAP w, MAP x, TAIL) {                        \
    if (!stopped(fault, tag)) product_of<N, P>(dx, ds, rows, cols, steps, w, x);         \
  }

GRADIENT90(8, 1)
GRADIENT90(64, 1)
GRADIENT90(128, 1)
GRADIENT90(8, 3)
GRADIENT90(64, 3)
GRADIENT90(128, 3)
