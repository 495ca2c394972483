// lanes.h: products of a warpgroup (see hopper.h) whose rows are in registers, and both of whose operands go along K.
#pragma once
#include "hopper.h"

// d = a·b, and d += a·b: with g = lane/4 and c = lane%4 a thread has of row g the columns 2c, 2c+1 (a[0]) and 2c+8, 2c+9
// (a[2]), of row g + 8 a[1] and a[3]; b is as for product. Between begin_products and the wait nobody writes a.
#define PRODUCT_LANES(N, R, A, B, ...)                                                                                     \
  GPU void product_first(float (&d)[N / 2], const u32* a, u64 b) {                                                         \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" R "}, {" A "}, " B ", 0, 1, 1, 0;"            \
                 : __VA_ARGS__                                                                                             \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)                                                      \
                 : "memory");                                                                                              \
  }                                                                                                                        \
  GPU void product_next(float (&d)[N / 2], const u32* a, u64 b) {                                                          \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" R "}, {" A "}, " B ", 1, 1, 1, 0;"            \
                 : __VA_ARGS__                                                                                             \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)                                                      \
                 : "memory");                                                                                              \
  }

// Before the first product, and after the threads have written a.
template <int M, int R> GPU void begin_lanes(u32 (&a)[M][R]) {
#pragma unroll
  for (int i = 0; i < M * R; i++) asm volatile("" : "+r"(a[i / R][i % R])::"memory");
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

#define R12 R8 ",%8,%9,%10,%11"
#define R24 R16 ",%16,%17,%18,%19,%20,%21,%22,%23"
#define R48 R32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
PRODUCT_LANES(8, R4, "%4,%5,%6,%7", "%8", D4(0))
PRODUCT_LANES(16, R8, "%8,%9,%10,%11", "%12", D4(0), D4(4))
PRODUCT_LANES(24, R12, "%12,%13,%14,%15", "%16", D4(0), D4(4), D4(8))
PRODUCT_LANES(32, R16, "%16,%17,%18,%19", "%20", D16(0))
PRODUCT_LANES(48, R24, "%24,%25,%26,%27", "%28", D16(0), D4(16), D4(20))
PRODUCT_LANES(64, R32, "%32,%33,%34,%35", "%36", D16(0), D16(16))
PRODUCT_LANES(96, R48, "%48,%49,%50,%51", "%52", D16(0), D16(16), D16(32))
PRODUCT_LANES(192, R96, "%96,%97,%98,%99", "%100", D16(0), D16(16), D16(32), D16(48), D16(64), D16(80))
