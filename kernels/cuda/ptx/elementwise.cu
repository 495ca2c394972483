// elementwise: Fill, Copy, Add, SwiGLU, SwiGLUGrad and AdamW.
// A thread has one column of a block of 256 and walks down the rows; the host makes one long row of
// operands that lie end to end. Memory-bound, so there is one version of each.
#include "adam.h"

// The loop over a thread's elements: row r, column c.
#define EACH(rows, cols)                           \
  if (stopped(fault, tag)) return;                 \
  int c = blockIdx.x * 256 + threadIdx.x;          \
  if (c < cols)                                    \
    for (int r = blockIdx.y; r < rows; r += gridDim.y)

GPU size_t at(int r, int stride, int c) { return (size_t)r * stride + c; }

KERNEL(256) fill(float* x, int xs, int rows, int cols, float v, u64* fault, u32 tag) {
  EACH(rows, cols) x[at(r, xs, c)] = v;
}

KERNEL(256) copy(u32* out, int os, const u32* x, int xs, int rows, int cols, u64* fault, u32 tag) {
  EACH(rows, cols) out[at(r, os, c)] = x[at(r, xs, c)];
}

KERNEL(256) add(float* out, int os, const float* a, int as, const float* b, int bs, int rows, int cols, u64* fault, u32 tag) {
  EACH(rows, cols) out[at(r, os, c)] = a[at(r, as, c)] + b[at(r, bs, c)];
}

// out = silu(gate)·up
KERNEL(256) swiglu(float* out, int os, const float* gate, int gs, const float* up, int us, int rows, int cols, u64* fault, u32 tag) {
  EACH(rows, cols) {
    float g = gate[at(r, gs, c)];
    out[at(r, os, c)] = g / (1.f + exp32(-g)) * up[at(r, us, c)];
  }
}

KERNEL(256) swiglu_grad(float* dgate, int dgs, float* dup, int dus, const float* dy, int ys, const float* gate, int gs,
                        const float* up, int us, int rows, int cols, u64* fault, u32 tag) {
  EACH(rows, cols) {
    float g = gate[at(r, gs, c)], s = sigmoid(g), d = dy[at(r, ys, c)];
    float *pu = dup + at(r, dus, c), *pg = dgate + at(r, dgs, c);
    *pu = fmaf(d, g * s, *pu);
    *pg = fmaf(d * up[at(r, us, c)], s * fmaf(1.f - s, g, 1.f), *pg);
  }
}

KERNEL(256) adamw(float* w, int ws, float* m, int ms, float* v, int vs, const float* g, int gs, int rows, int cols, float decay, ADAM,
                  u64* fault, u32 tag) {
  EACH(rows, cols) step(w + at(r, ws, c), m + at(r, ms, c), v + at(r, vs, c), g[at(r, gs, c)], decay, PASS_ADAM);
}
