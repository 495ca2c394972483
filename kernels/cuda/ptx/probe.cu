// probe: each wrapper of gpu.h by itself, and how fast the matrix instruction is. No operation uses these.
// A probe's block of 128 threads takes IN words for each thread and leaves OUT; what came out of a GPU is what a
// simulator of one must give. package probe says what each word is.
#include "gpu.h"

#define PROBE(name, IN, OUT)                                                                 \
  GPU void name(const u32* in, u32* out, u32* room);                                         \
  KERNEL(128) probe_##name(const u32* in, u32* out, u64* fault, u32 tag) {                   \
    __shared__ __align__(16) u32 room[1024];                                                 \
    name(in + ((size_t)blockIdx.x * 128 + threadIdx.x) * IN, out + ((size_t)blockIdx.x * 128 + threadIdx.x) * OUT, room); \
  }                                                                                          \
  GPU void name(const u32* in, u32* out, u32* room)

GPU float f(u32 v) { return __uint_as_float(v); }
GPU u32 w(float v) { return __float_as_uint(v); }

// What C itself gives, as compiled: the host's language has the same rules.
PROBE(arithmetic, 3, 10) {
  float a = f(in[0]), b = f(in[1]), c = f(in[2]);
  out[0] = w(a + b);
  out[1] = w(a * b);
  out[2] = w(fmaf(a, b, c));
  out[3] = w(a / b);
  out[4] = w(sqrtf(fabsf(a)));
  out[5] = w(fmaxf(a, b));
  out[6] = w(fminf(a, b));
  out[7] = w(rintf(a));
  out[8] = (u32)(int)a;
  out[9] = w((float)(int)in[1]);
}

PROBE(double_arithmetic, 6, 8) {
  u64 bits[3], r[4];
  double v[3];
  for (int i = 0; i < 3; i++) bits[i] = (u64)in[2 * i + 1] << 32 | in[2 * i], v[i] = __longlong_as_double(bits[i]);
  r[0] = __double_as_longlong(v[0] + v[1]);
  r[1] = __double_as_longlong(v[0] * v[1]);
  r[2] = __double_as_longlong(fma(v[0], v[1], v[2]));
  r[3] = __double_as_longlong(v[0] / v[1]);
  for (int i = 0; i < 4; i++) out[2 * i] = (u32)r[i], out[2 * i + 1] = (u32)(r[i] >> 32);
}

PROBE(warp_sum, 1, 1) { out[0] = w(warp_sum(f(in[0]))); }
PROBE(warp_max, 1, 1) { out[0] = w(warp_max(f(in[0]))); }
PROBE(block_sum, 1, 1) { out[0] = w(block_sum<4>(f(in[0]), (float*)room)); }
PROBE(exp32, 1, 1) { out[0] = w(exp32(f(in[0]))); }
PROBE(sigmoid, 1, 1) { out[0] = w(sigmoid(f(in[0]))); }
PROBE(bf16, 1, 2) {
  out[0] = to_bf16(f(in[0]));
  out[1] = w(from_bf16((u16)in[0]));
}

PROBE(log64, 2, 2) {
  u64 v = __double_as_longlong(log64(__longlong_as_double((u64)in[1] << 32 | in[0])));
  out[0] = (u32)v;
  out[1] = (u32)(v >> 32);
}

// Two groups of asynchronous copies; the first is waited for while the second may be under way. A word says
// which of the four are there.
PROBE(copies, 8, 8) {
  u32* mine = room + threadIdx.x * 8;
  for (int i = 0; i < 8; i++) mine[i] = 0x12345678;
  u32 there = in[0];
  copy16(mine, in, there & 1);
  copies_commit();
  copy4(mine + 4, in + 4, there & 2);
  copy4(mine + 5, in + 5, there & 4);
  copies_commit();
  copies_wait<1>();
  for (int i = 0; i < 4; i++) out[i] = mine[i];
  copies_wait<0>();
  for (int i = 4; i < 8; i++) out[i] = mine[i];
}

// A row of 13 columns, brought by each warp in pieces of 4 bytes, and of 16, brought in pieces of 16.
PROBE(bring, 8, 8) {
  int lane = lane_id(), warp = warp_id();
  const u32* first = in - lane * 8;
  float* mine = (float*)room + warp * 64;
  bring(mine, (const float*)first, first[0] & 1, 13, false, lane, 32);
  bring(mine + 20, (const float*)first + 16, first[0] & 2, 16, aligned16(first), lane, 32);
  copies_commit();
  copies_wait<0>();
  __syncwarp();
  for (int i = 0; i < 8; i++) out[i] = lane * 8 + i < 16 ? w(mine[lane * 8 + i]) : lane * 8 + i < 32 ? w(mine[4 + lane * 8 + i]) : padded(13);
}

PROBE(mma16816, 10, 4) {
  float d[4];
  for (int i = 0; i < 4; i++) d[i] = f(in[6 + i]);
  mma16816(d, in[0], in[1], in[2], in[3], in[4], in[5]);
  for (int i = 0; i < 4; i++) out[i] = w(d[i]);
}

PROBE(load_transposed, 4, 4) {
  u32* mine = room + warp_id() * 128;
  for (int i = 0; i < 4; i++) mine[lane_id() * 4 + i] = in[i];
  __syncwarp();
  load_transposed(out[0], out[1], out[2], out[3], mine + lane_id() * 4);
}

// The first failure of a block's threads, left in its first two words, which begin as ones.
PROBE(fail, 2, 2) {
  u64* word = (u64*)(out - threadIdx.x * 2);
  if (threadIdx.x == 0) *word = ~0ull;
  __syncthreads();
  if (in[0] & 1) fail(word, 77, (int)(in[1] & 0xffff), FORBIDDEN);
  __syncthreads();
  if (threadIdx.x == 1) out[0] = stopped(word, 77), out[1] = stopped(word, 78);
  if (threadIdx.x > 1) out[0] = out[1] = 0;
}

// Matrix instructions on registers alone: each warp does rounds of sixteen, in eight chains.
KERNEL(256) probe_rate(float* out, int rounds, u64* fault, u32 tag) {
  float d[8][4] = {};
  u32 a = threadIdx.x * 0x3f013f01u & 0x3fff3fff, b = a ^ 0x01020102;
#pragma unroll 1
  for (int i = 0; i < rounds; i++)
#pragma unroll
    for (int j = 0; j < 16; j++) mma16816(d[j & 7], a, b, a, b, b, a);
  float s = 0;
  for (int j = 0; j < 8; j++) s += d[j][0] + d[j][1] + d[j][2] + d[j][3];
  out[blockIdx.x * 256 + threadIdx.x] = s;
}
