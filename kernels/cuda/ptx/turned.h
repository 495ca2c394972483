// turned.h: products of a warpgroup whose first operand is read across from shared memory: its rows go along K, as those of a
// weight do for its gradient.
#pragma once
#include "hopper.h"

// What describes tiles that begin at p, a multiple of 512, as an operand whose rows go along K: 16 of them. The next 32
// columns are `across` bytes on, the next 8 rows `down` bytes.
GPU u64 operand64_across(const void* p, int across, int down) {
  return (u64)(shared_address(p) >> 4) | (u64)(across >> 4) << 16 | (u64)(down >> 4) << 32 | (u64)2 << 62;
}

// hopper.h's product with such an a: d += a·b, or d = a·b.
#define TURNED(NAME, N, R, A, B, ADD, ...)                                                                                \
  GPU void NAME(float (&d)[N / 2], u64 a, u64 b) {                                                                        \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" R "}, " A ", " B ", " ADD ", 1, 1, 1, 0;"   \
                 : __VA_ARGS__                                                                                            \
                 : "l"(a), "l"(b)                                                                                         \
                 : "memory");                                                                                             \
  }
TURNED(begin_turned, 8, R4, "%4", "%5", "0", D4(0))
TURNED(begin_turned, 64, R32, "%32", "%33", "0", D16(0), D16(16))
TURNED(begin_turned, 128, R64, "%64", "%65", "0", D16(0), D16(16), D16(32), D16(48))
TURNED(product_turned, 8, R4, "%4", "%5", "1", D4(0))
TURNED(product_turned, 64, R32, "%32", "%33", "1", D16(0), D16(16))
TURNED(product_turned, 128, R64, "%64", "%65", "1", D16(0), D16(16), D16(32), D16(48))
