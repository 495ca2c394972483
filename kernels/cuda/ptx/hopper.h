// hopper.h: what only sm_90a has, for the kernels whose names end in 90. Each wraps an instruction or two.
//
// Shared memory is written by threads, and read and written by units beside them: the one that copies tiles
// (TMA) and the matrix units. mbarriers tell threads of a unit's copies; wait_products of the products' reads;
// fence_async the units of what threads have written.
#pragma once
#include "gpu.h"

// A tensor map, as the driver encodes it (driver.Tile), a parameter of a kernel.
struct alignas(64) TensorMap { u64 words[16]; };
#define MAP const __grid_constant__ TensorMap

// ---- mbarriers. Phases are counted from 0; a wait is for the end of a phase, by the parity of its number.

GPU void barrier_init(u64* b, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(arrivals) : "memory");
}

// Lets the copying unit see barriers that were just made. A barrier of the block must follow.
GPU void barriers_made() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

GPU void barrier_arrive(u64* b) {
  asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(shared_address(b)) : "memory");
}

// Arrives, and lets the phase wait for so many bytes of copies too.
GPU void barrier_expect(u64* b, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)), "r"(bytes) : "memory");
}

GPU bool barrier_done(u64* b, int parity) {
  u32 done;
  asm volatile(
      "{\n.reg .pred p;\nmbarrier.try_wait.parity.acquire.cta.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
      : "=r"(done)
      : "r"(shared_address(b)), "r"(parity)
      : "memory");
  return done;
}

GPU void barrier_wait(u64* b, int parity) {
  while (!barrier_done(b, parity)) {
  }
}

// ---- tiles

// Copies the map's box at (x, y, z) to shared memory, at a multiple of 128; its bytes count at b.
GPU void bring_box(void* to, const TensorMap& map, int x, int y, int z, u64* b) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(
          shared_address(to)),
      "l"((u64)&map), "r"(x), "r"(y), "r"(z), "r"(shared_address(b))
      : "memory");
}

// The same of a map of four dimensions.
GPU void bring_box(void* to, const TensorMap& map, int x, int y, int z, int w, u64* b) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(
          shared_address(to)),
      "l"((u64)&map), "r"(x), "r"(y), "r"(z), "r"(w), "r"(shared_address(b))
      : "memory");
}

// The same to that place of each block of the cluster that mask has a bit for; the bytes count at each one's b.
GPU void bring_box(void* to, const TensorMap& map, int x, int y, int z, u64* b, u32 mask) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(
          shared_address(to)),
      "l"((u64)&map), "r"(x), "r"(y), "r"(z), "r"(shared_address(b)), "h"((u16)mask)
      : "memory");
}

GPU void bring_box(void* to, const TensorMap& map, int x, int y, int z, int w, u64* b, u32 mask) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, %3, %4, %5}], [%6], %7;" ::"r"(
          shared_address(to)),
      "l"((u64)&map), "r"(x), "r"(y), "r"(z), "r"(w), "r"(shared_address(b)), "h"((u16)mask)
      : "memory");
}

GPU void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- blocks of a cluster, a launch without clusters has them of one block: number x + wide·y at (x, y)

GPU int cluster_rank() {
  int r;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
  return r;
}

GPU int cluster_wide() {
  int n;
  asm volatile("mov.u32 %0, %%cluster_nctaid.x;" : "=r"(n));
  return n;
}

GPU int cluster_high() {
  int n;
  asm volatile("mov.u32 %0, %%cluster_nctaid.y;" : "=r"(n));
  return n;
}

// Waits for all threads of the cluster that have not ended. It stands before a block's first use of another's shared memory,
// and before a block ends that another may still use.
GPU void cluster_barrier() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

// Where another block has what is at p here.
GPU u32 address_in(int rank, const void* p) {
  u32 at;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(at) : "r"(shared_address(p)), "r"(rank));
  return at;
}

// Arrives at a block's mbarrier by such an address.
GPU void barrier_arrive_at(u32 b) { asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(b) : "memory"); }

// Waits for a phase in which threads of other blocks arrive.
GPU void barrier_wait_for_all(u64* b, int parity) {
  u32 done;
  do {
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(shared_address(b)), "r"(parity)
        : "memory");
  } while (!done);
}

// ---- some of a block's warps, and blocks of a launch

// A barrier of so many threads, by its number from 1 on (0 is of the whole block).
GPU void group_barrier(int number, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory"); }

// Orders what this thread has done, and what it knows of, before what others do who learn of it by a count_up, and
// what it has learned of so before what it does.
GPU void fence_blocks() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }

// Adds n, and returns what was there.
GPU u32 count_up(u32* p, u32 n) {
  u32 was;
  asm volatile("atom.relaxed.gpu.global.add.u32 %0, [%1], %2;" : "=r"(was) : "l"(p), "r"(n) : "memory");
  return was;
}

// ---- registers of a warpgroup: those of all must not be more than the block began with

template <int N> GPU void fewer_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> GPU void more_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }

// ---- products of a warpgroup: d (64 × N, f32) += a·b, a 64 × 16 and b 16 × N of bf16 in shared memory, each row
// of a and column of b along K. With warp w of the four, g = lane/4 and c = lane%4 a thread has in d[4i + e] row
// 16w + g + 8(e/2), column 8i + 2c + e%2. d is the unit's between a product and the wait for it.

// What describes an operand that begins at p, a multiple of 512 but for the 16-column half of a row: rows of 64
// bytes, whose 16-byte pieces are exchanged as 64-byte swizzling does, eight a group, a group every `apart` bytes.
GPU u64 operand64(const void* p, int apart) {
  return (u64)(shared_address(p) >> 4) | (u64)1 << 16 | (u64)(apart >> 4) << 32 | (u64)2 << 62;
}

// The same of rows of 128 bytes (64 columns), with 128-byte swizzling: p is a multiple of 1024 but for the 16 columns of
// a row; groups of eight rows stand end to end.
GPU u64 operand128(const void* p) { return (u64)(shared_address(p) >> 4) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62; }

// The same rows as an operand whose rows go along K: 16 of them from p on, a multiple of 1024; the next 64 columns are
// `apart` bytes on.
GPU u64 operand128_across(const void* p, int apart) {
  return (u64)(shared_address(p) >> 4) | (u64)(apart >> 4) << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}

// Before the first product, and after the threads have changed d.
template <int R> GPU void begin_products(float (&d)[R]) {
#pragma unroll
  for (int i = 0; i < R; i++) asm volatile("" : "+f"(d[i])::"memory");
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

GPU void end_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most N groups of products are under way.
template <int N> GPU void wait_products() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }

// Waits for all, and gives d back to the threads.
template <int R> GPU void wait_products(float (&d)[R]) {
  wait_products<0>();
#pragma unroll
  for (int i = 0; i < R; i++) asm volatile("" : "+f"(d[i])::"memory");
}

#define D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define D16(i) D4(i), D4(i + 4), D4(i + 8), D4(i + 12)
#define R4 "%0,%1,%2,%3"
#define R8 R4 ",%4,%5,%6,%7"
#define R16 R8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define R32 R16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define R64 R32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define R96 R64 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define PRODUCT(N, R, A, B, ...)                                                                                       \
  GPU void product(float (&d)[N / 2], u64 a, u64 b) {                                                                  \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" R "}, " A ", " B ", 1, 1, 1, 0, 0;"       \
                 : __VA_ARGS__                                                                                         \
                 : "l"(a), "l"(b)                                                                                      \
                 : "memory");                                                                                          \
  }

PRODUCT(8, R4, "%4", "%5", D4(0))
PRODUCT(16, R8, "%8", "%9", D4(0), D4(4))
PRODUCT(32, R16, "%16", "%17", D16(0))
PRODUCT(64, R32, "%32", "%33", D16(0), D16(16))
PRODUCT(128, R64, "%64", "%65", D16(0), D16(16), D16(32), D16(48))
PRODUCT(192, R96, "%96", "%97", D16(0), D16(16), D16(32), D16(48), D16(64), D16(80))

// d += a·b, a in registers: with g = lane/4 and c = lane%4 a thread has of row g the columns 2c, 2c+1 (a[0]) and 2c+8,
// 2c+9 (a[2]), of row g + 8 a[1] and a[3]; b is an operand128_across. Between begin_products and the wait nobody writes a.
#define PRODUCT_ACROSS(N, R, A, B, ...)                                                                                   \
  GPU void product_across(float (&d)[N / 2], const u32 (&a)[4], u64 b) {                                                  \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" R "}, {" A "}, " B ", 1, 1, 1, 1;"           \
                 : __VA_ARGS__                                                                                            \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)                                                     \
                 : "memory");                                                                                             \
  }

PRODUCT_ACROSS(64, R32, "%32,%33,%34,%35", "%36", D16(0), D16(16))
PRODUCT_ACROSS(128, R64, "%64,%65,%66,%67", "%68", D16(0), D16(16), D16(32), D16(48))

// ---- bf16

// The two numbers rounded to bf16, x in the low half, and what is left of them in their place. Of an infinity a NaN is left.
GPU u32 take_bf16(float& x, float& y) {
  u32 both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(y), "f"(x));
  x -= __uint_as_float(both << 16);
  y -= __uint_as_float(both & 0xffff0000u);
  return both;
}
