// linear90: linear's product out = x·Wᵀ + bias on Hopper, by wgmma: 64 outputs are the instruction's rows, 8 to 128
// tokens its columns, 16 terms of K each.
//
// A weight's tiles (see linear) are already what wgmma calls swizzled by 64 bytes, and pack_tokens lays tokens
// likewise (order 2): so boxes of whole tiles come by TMA as they are, 512 bytes in a row, and shared memory is
// read without conflicts. Both sides' tiles beyond the last are zeros: outside the tensor map.
//
// One order, fixed by the length K, whatever the number of tokens: steps of 2 tiles (64 terms), the last filled up
// with zeros; tile by tile, piece by piece, two instructions a tile; 4 steps are a segment, summed from zero by the
// matrix unit; the segments' sums are added in order. That an instruction's bits do not depend on its number of
// columns is for a GPU to show (package probe).
//   linear90_v1   a warpgroup 64 outputs × 8 tokens, tiles carried by the threads: the definition
//   linear90_N_P  128 outputs × N tokens of P pieces; a thread of the first warpgroup keeps the stages of shared
//                 memory full, two warpgroups of 64 outputs each empty them, and say so by mbarriers
#include "hopper.h"

#define TILE 512    // bytes
#define STEP 2      // tiles
#define SEGMENT 4   // steps

#define EPILOGUE float *out, int os, const float *bias, int rows, int n
#define TAIL u64 *fault, u32 tag

// Stores what a thread has of 64 outputs from o on × N tokens from t on.
template <int R> GPU void put(EPILOGUE, const float (&s)[R], int o, int t) {
  o += warp_id() % 4 * 16 + lane_id() / 4;
  t += lane_id() % 4 * 2;
#pragma unroll
  for (int half = 0; half < 2; half++, o += 8) {
    if (o >= n) break;
    float b = bias ? bias[o] : 0.f;
#pragma unroll
    for (int i = 0; i < R / 4; i++)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        float v = s[4 * i + 2 * half + e];
        if (t + 8 * i + e < rows) out[(size_t)(t + 8 * i + e) * os + o] = bias ? v + b : v;
      }
  }
}

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

template <int P> GPU void define(EPILOGUE, const uint4* w, const uint4* x, int wide) {
  __shared__ __align__(1024) u8 space[(8 + P) * STEP * TILE];
  uint4 *tw = (uint4*)space, *tx = tw + 8 * STEP * 32;
  int high = (n + 31) / 32 * 4;  // the weight's rows of tiles
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
  put(out, os, bias, rows, n, s, blockIdx.x * 64, blockIdx.y * 8);
}

KERNEL(128) linear90_v1(EPILOGUE, const uint4* w, const uint4* x, int wide, int pieces, TAIL) {
  if (stopped(fault, tag)) return;
  if (pieces == 1) define<1>(out, os, bias, rows, n, w, x, wide);
  else define<3>(out, os, bias, rows, n, w, x, wide);
}

// The stages of shared memory, and after them for each the barriers that say it is full, and empty again. There is
// no other shared memory: the stages must begin at a multiple of 512, where the tiles' exchange of pieces does.
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

template <int N, int P> GPU void produce(Ring<N, P> r, const TensorMap& w, const TensorMap& x, int steps) {
  for (int step = 0; step < steps; step++, r.next()) {
    barrier_wait(r.empty + r.stage, r.parity ^ 1);  // the phase before the first counts as over
    barrier_expect(r.full + r.stage, r.BYTES);
    u8* to = r.space + r.stage * r.BYTES;
    bring_box(to, w, 0, step * STEP, blockIdx.x * 16, r.full + r.stage);
    bring_box(to + r.WEIGHT, x, 0, step * STEP * P, blockIdx.y * (N / 8), r.full + r.stage);
  }
}

// One warpgroup's 64 outputs × N tokens. A stage is given back when the products of the next one are on their way.
template <int N, int P> GPU void consume(float (&s)[N / 2], Ring<N, P> r, int group, int steps) {
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
      step_products<P>(d, r.weight() + group * 8 * STEP * TILE, r.weight() + r.WEIGHT);
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

template <int N, int P> GPU void tile(EPILOGUE, const TensorMap& w, const TensorMap& x, int wide) {
  using Stages = Ring<N, P>;
  extern __shared__ __align__(1024) u8 space[];
  u64 *full = (u64*)(space + Stages::STAGES * Stages::BYTES), *empty = full + Stages::STAGES;
  if (threadIdx.x == 0) {
    for (int i = 0; i < Stages::STAGES; i++) {
      barrier_init(full + i, 1);
      barrier_init(empty + i, 8);  // a lane of each warp that reads it
    }
    barriers_made();
  }
  __syncthreads();
  int steps = (wide + STEP - 1) / STEP;
  Stages ring{space, full, empty, 0, 0};
  if (warp_id() < 4) {
    fewer_registers<40>();
    if (threadIdx.x == 0) produce(ring, w, x, steps);
  } else {
    more_registers<232>();
    int group = warp_id() / 4 - 1;
    float s[N / 2];
    consume(s, ring, group, steps);
    put(out, os, bias, rows, n, s, blockIdx.x * 128 + group * 64, blockIdx.y * N);
  }
}

#define LINEAR90(N, P)                                                                      \
  KERNEL(384, 1) linear90_##N##_##P(EPILOGUE, MAP w, MAP x, int wide, TAIL) {               \
    if (!stopped(fault, tag)) tile<N, P>(out, os, bias, rows, n, w, x, wide);               \
  }

LINEAR90(8, 1)
LINEAR90(16, 1)
LINEAR90(32, 1)
LINEAR90(64, 1)
LINEAR90(128, 1)
LINEAR90(8, 3)
LINEAR90(16, 3)
LINEAR90(32, 3)
LINEAR90(64, 3)
LINEAR90(128, 3)
