// ending.h: what linear90's products end with, without a pass of their own over the outputs. Each part has the bits of the
// kernel that it stands for. What each should bring, to be measured yet:
//   plus    a launch less, and 8 bytes an output and token
//   gated   a launch less, and 16 bytes a gate and token: of a 7B model's gates and ups 76 KB a token stay of 379, which for
//           2,048 tokens is 0.19 ms of the memory's time beside 0.8 of the matrix units'
//   expand  a launch less for each pair and adapter: of up to 64 tokens; of more there are too few registers
#pragma once
#include "hopper.h"

// What follows the sums of n outputs of each of so many rows, in this order: bias is added; what adapters add, low·bᵀ, a chain
// of fused multiply-adds as matmul's; gated, the outputs are gates and then as many ups, of which silu(gate)·up is made, as
// swiglu does; plus is added.
struct Ending {
  float* out;
  int os;
  const float* bias;
  int rows, n;
  const float* plus;
  int ps, gated;
};

// What an adapter adds to rows from `row` on and outputs from `col` on: low is of `rank` columns, b of as many.
struct Expand {
  const float *low, *b;
  int ls, bs, rank, row;
  u32 rows;
  int col, cols, none;
};
#define EXPANDS 8
struct alignas(64) Expands { Expand of[EXPANDS]; };

// The most tokens of a tile in whose ending adapters have a part: more take more registers than there are.
#define FEW 64

// W steps of the sum at a time: where both factors' rows begin at multiples of 4·W bytes.
template <int W, int R> GPU void expand(const Expand& x, float (&s)[R], int half, const float* b, const float* low, int first) {
#pragma unroll 1
  for (int k = 0; k < x.rank; k += W) {
    float u[W], v[W];
    if (W == 4) *(float4*)v = *(const float4*)(b + k);
    else v[0] = b[k];
#pragma unroll
    for (int i = 0; i < R / 4; i++)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        if ((u32)(first + 8 * i + e) >= x.rows) continue;
        const float* from = low + (8 * i + e) * x.ls + k;
        if (W == 4) *(float4*)u = *(const float4*)from;
        else u[0] = from[0];
#pragma unroll
        for (int c = 0; c < W; c++) s[4 * i + 2 * half + e] = fmaf(u[c], v[c], s[4 * i + 2 * half + e]);
      }
  }
}

template <int R> GPU void expand(Expand x, float (&s)[R], int half, int o, int t) {
  const float *b = x.b + (size_t)(o - x.col) * x.bs, *low = x.low + (long long)(t - x.row) * x.ls;
  if (aligned16(x.low) && aligned16(x.b) && ((x.ls | x.bs | x.rank) & 3) == 0) expand<4>(x, s, half, b, low, t - x.row);
  else expand<1>(x, s, half, b, low, t - x.row);
}

// Adds to half of what a thread has what comes before the last step, at output number `at`.
template <int R> GPU void add_to(const Ending& to, float (&s)[R], const Expand* expands, int many, int half, int at, int t) {
  if (to.bias) {
    float b = to.bias[at];
#pragma unroll
    for (int i = 0; i < R / 4; i++) s[4 * i + 2 * half] += b, s[4 * i + 2 * half + 1] += b;
  }
  if (R <= FEW / 2)
#pragma unroll 1
    for (const Expand* x = expands; x < expands + many; x++)
      if (at >= x->col && at < x->col + x->cols) expand(*x, s, half, at, t);
}

// Stores half of what a thread has as column `at` of out.
template <int R> GPU void store(const Ending& to, const float (&s)[R], int half, int at, int t) {
#pragma unroll
  for (int i = 0; i < R / 4; i++)
#pragma unroll
    for (int e = 0; e < 2; e++) {
      int row = t + 8 * i + e;
      float v = s[4 * i + 2 * half + e];
      if (row < to.rows) to.out[(size_t)row * to.os + at] = to.plus ? to.plus[(size_t)row * to.ps + at] + v : v;
    }
}

// Ends what a thread has of a tile's 64 rows of the weight, the first of them number o, × N tokens from t on. A gated
// tile's rows are 8 gates, their 8 ups, and so on: a thread has both.
template <int R> GPU void put(const Ending& to, float (&s)[R], const Expand* expands, int many, int o, int t) {
  t += lane_id() % 4 * 2;
  if (to.gated) {
    o = o / 2 + warp_id() % 4 * 8 + lane_id() / 4;
    if (o >= to.n / 2) return;
    add_to(to, s, expands, many, 0, o, t);
    add_to(to, s, expands, many, 1, to.n / 2 + o, t);
#pragma unroll
    for (int i = 0; i < R / 4; i++)
#pragma unroll
      for (int e = 0; e < 2; e++) s[4 * i + e] = s[4 * i + e] / (1.f + exp32(-s[4 * i + e])) * s[4 * i + 2 + e];
    store(to, s, 0, o, t);
    return;
  }
  o += warp_id() % 4 * 16 + lane_id() / 4;
#pragma unroll
  for (int half = 0; half < 2; half++, o += 8)
    if (o < to.n) {
      add_to(to, s, expands, many, half, o, t);
      store(to, s, half, o, t);
    }
}
