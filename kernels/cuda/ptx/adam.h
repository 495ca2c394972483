// adam.h: a step of AdamW, for the kernels that take it of one tensor or of many.
#pragma once
#include "gpu.h"

// What of a step is the same for all elements; c1 and c2 are 1 - beta^step.
#define ADAM float lr, float beta1, float beta2, float eps, float scale, float c1, float c2
#define PASS_ADAM lr, beta1, beta2, eps, scale, c1, c2

// One step of an element. (Loshchilov and Hutter 2019)
GPU void step(float* w, float* m, float* v, float g, float decay, ADAM) {
  float d = g * scale, a = fmaf(beta1, *m, (1.f - beta1) * d), b = fmaf(beta2, *v, (1.f - beta2) * d * d), x = *w;
  *m = a;
  *v = b;
  x = fmaf(-lr * decay, x, x);
  *w = x - lr * (a / c1) / (sqrtf(b / c2) + eps);
}
