// gpu.h: the one header that kernels include, and the rules they keep.
//
//   - NVRTC 12.4 compiles it alone (no NVIDIA header) for sm_80 and later; inline PTX stands here only.
//   - Multiplications and additions are fused where the source says fmaf, and nowhere else (--fmad=false),
//     and exp32 is a polynomial: so outside the matrix instructions every machine gives the same bits.
//   - A sum has one order, fixed by its length. No float atomics.
//   - Every kernel ends with (u64* fault, u32 tag). The first thing it does is to return if an earlier
//     operation has failed; what it finds wrong it leaves in *fault (see fail).
//   - Rows are stride elements apart and may begin anywhere: 16-byte accesses are for memory that the
//     host has laid out, or behind a test of the address.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define GPU __device__ __forceinline__
#define KERNEL(...) extern "C" __global__ void __launch_bounds__(__VA_ARGS__)  // threads, and blocks a multiprocessor
#define FULL 0xffffffffu
#define INFINITY __int_as_float(0x7f800000)

// ---- failures: *fault is ~0, or tag << 40 | row << 8 | reason of the operation that failed first.
// Within an operation the lowest row stands, so that the answer does not depend on the schedule.

enum Reason { OUTSIDE = 1, NOT_FINITE, FORBIDDEN, BAD_SEQUENCE, TOO_MANY_QUERIES, BAD_PAGE };

GPU bool stopped(const u64* fault, u32 tag) {
  u64 f;
  asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(f) : "l"(fault) : "memory");
  return f != ~0ull && (u32)(f >> 40) != tag;
}

GPU void fail(u64* fault, u32 tag, int row, Reason why) {
  atomicMin(fault, (u64)tag << 40 | (u64)(u32)row << 8 | why);
}

// ---- sequences of attention

// The row of the first of `shared` keys that sequence s has of its leader, the last sequence before it that
// sees its own rows alone. False: the leader has fewer.
GPU bool lead(const int* starts, int ss, const int* lengths, int ls, int s, int shared, int& leader) {
  leader = 0;
  if (shared <= 0) return true;
  int own = starts[(size_t)s * ss];
  while (--s >= 0) {
    int lo = starts[(size_t)s * ss], n = lengths[(size_t)s * ls];
    if (n == starts[(size_t)(s + 1) * ss] - lo) {
      leader = lo;
      return lo >= 0 && shared <= n && lo + shared <= own;
    }
  }
  return false;
}

// ---- warps

GPU int lane_id() { return threadIdx.x & 31; }
GPU int warp_id() { return threadIdx.x >> 5; }

// The sum of 32 lanes, by halves: every lane gets it.
GPU float warp_sum(float v) {
  for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(FULL, v, o);
  return v;
}

// The largest of 32 lanes; a NaN is passed over.
GPU float warp_max(float v) {
  for (int o = 16; o; o >>= 1) v = fmaxf(v, __shfl_xor_sync(FULL, v, o));
  return v;
}

// The sum over a block of W warps, warps in order. part is W floats of shared memory; a barrier must
// stand between two uses of it.
template <int W> GPU float block_sum(float v, float* part) {
  v = warp_sum(v);
  if (lane_id() == 0) part[warp_id()] = v;
  __syncthreads();
  float s = 0;
  for (int i = 0; i < W; i++) s += part[i];
  return s;
}

// ---- numbers

// exp by x = n ln2 + r and a polynomial on r (Cephes' expf), the very one of kernels/cpu.
GPU float exp32(float x) {
  if (x != x) return x;
  x = fminf(fmaxf(x, -104.f), 89.f);
  float n = rintf(x * 1.44269504088896341f);
  float r = fmaf(n, -0.693359375f, x);
  r = fmaf(n, 2.12194440e-4f, r);
  float p = 1.9875691500e-4f;
  p = fmaf(p, r, 1.3981999507e-3f);
  p = fmaf(p, r, 8.3334519073e-3f);
  p = fmaf(p, r, 4.1665795894e-2f);
  p = fmaf(p, r, 1.6666665459e-1f);
  p = fmaf(p, r, 5.0000001201e-1f);
  p = fmaf(p, r * r, r) + 1.f;
  int i = (int)n, h = i / 2;  // twice, so that neither factor leaves the range
  return p * __int_as_float((h + 127) << 23) * __int_as_float((i - h + 127) << 23);
}

// log of a positive finite number: 2 atanh((m-1)/(m+1)) + e ln2, m in [1/sqrt2, sqrt2).
GPU double log64(double x) {
  u64 b = __double_as_longlong(x);
  int e = (int)(b >> 52) - 1023;
  double m = __longlong_as_double((b & 0xfffffffffffffull) | 0x3ff0000000000000ull);
  if (m > 1.4142135623730951) { m *= 0.5; e++; }
  double s = (m - 1) / (m + 1), z = s * s, p = 0;
#pragma unroll
  for (int k = 21; k >= 1; k -= 2) p = fma(p, z, 1.0 / k);
  return fma((double)e, 0.6931471805599453, 2 * s * p);
}

GPU float sigmoid(float x) { return 1.f / (1.f + exp32(-x)); }

GPU float from_bf16(u16 v) { return __uint_as_float((u32)v << 16); }

// To the nearest, ties to even. A NaN stays one.
GPU u16 to_bf16(float v) {
  u32 b = __float_as_uint(v);
  if (v != v) return (u16)(b >> 16 | 0x40);
  return (u16)((b + 0x7fff + (b >> 16 & 1)) >> 16);
}

// ---- shared memory and asynchronous copies (sm_80)

GPU u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// 16 bytes, or zeros where there is nothing to copy. Both addresses are multiples of 16.
GPU void copy16(void* to, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(there ? 16 : 0) : "memory");
}

GPU void copy4(void* to, const void* from, bool there) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from), "r"(there ? 4 : 0) : "memory");
}

GPU void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most N of this thread's groups are under way.
template <int N> GPU void copies_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

GPU bool aligned16(const void* p) { return ((u64)p & 15) == 0; }

// ---- rows in shared memory

// The columns that a row of dim takes: whole groups of four, and one group more to keep rows apart.
GPU int padded(int dim) { return (dim + 3) / 4 * 4 + 4; }

// Copies columns col … col+dim-1 of a row, or zeros, and zeros up to a whole group of four.
GPU void bring(float* to, const float* from, bool there, int dim, bool wide, int lane, int lanes) {
  if (wide) {
#pragma unroll 1
    for (int d = lane * 4; d < dim; d += lanes * 4) copy16(to + d, there ? from + d : from, there);
  } else {
#pragma unroll 1
    for (int d = lane; d < (dim + 3) / 4 * 4; d += lanes) copy4(to + d, there && d < dim ? from + d : from, there && d < dim);
  }
}

// ---- matrix instructions (sm_80)

// d += a·b for a 16×16 of bf16, b 16×8 of bf16, d 16×8 of f32. With g = lane/4 and c = lane%4 a lane has
// rows g and g+8 of a, columns 2c, 2c+1 (a0, a1) and 2c+8, 2c+9 (a2, a3); column g of b, rows 2c, 2c+1 (b0)
// and 2c+8, 2c+9 (b1); and of d the columns 2c, 2c+1 of row g (d0, d1) and of row g+8 (d2, d3).
GPU void mma16816(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Four 8×8 matrices of 16 bits, transposed: lane 8i+r gives the address of the 16 bytes of row r of matrix
// i, and gets of each matrix rows 2c and 2c+1 of column g.
GPU void load_transposed(u32& a, u32& b, u32& c, u32& d, const void* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(a), "=r"(b), "=r"(c), "=r"(d)
               : "r"(shared_address(p))
               : "memory");
}
