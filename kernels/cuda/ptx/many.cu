// many: AdamW and sums of squares of many tensors as one launch, or two: those of a hundred LoRA pairs a step are small
// each, and a launch of its own for each would take longer than its work. Element by element and piece by piece it is
// what adamw and squares_part do, so the bits are theirs. A block has a piece of one tensor, which it finds in the list.
//   one by one     392 launches for 28 layers' pairs, 2 µs each at least: 0.8 ms
//   adamw_many     one; of 80 million elements 28 bytes each, 2.2 GB, 0.7 ms of an H100's memory
//   squares_many   two, over 4 bytes each: 0.1 ms
// None has been timed; each prediction waits for hardware.
#include "adam.h"

// A tensor, its elements end to end, and the first of its pieces; squares use w alone.
struct Entry {
  float *w, *m, *v;
  const float* g;
  u64 count;
  int first;
  float decay;
};

// The entry that a piece is of: the last that begins there or before.
GPU const Entry* entry_of(const Entry* all, int n, int piece) {
  int lo = 0;
  for (int hi = n; hi - lo > 1;) {
    int mid = (lo + hi) / 2;
    if (all[mid].first <= piece) lo = mid;
    else hi = mid;
  }
  return all + lo;
}

KERNEL(256) adamw_many(const Entry* all, int n, ADAM, u64* fault, u32 tag) {
  if (stopped(fault, tag)) return;
  Entry e = *entry_of(all, n, blockIdx.x);
#pragma unroll
  for (int j = 0; j < 4; j++) {
    u64 i = (u64)(blockIdx.x - e.first) * 1024 + j * 256 + threadIdx.x;
    if (i < e.count) step(e.w + i, e.m + i, e.v + i, e.g[i], e.decay, PASS_ADAM);
  }
}

KERNEL(256) squares_many(float* parts, const Entry* all, int n, u64* fault, u32 tag) {
  __shared__ float part[8];
  if (stopped(fault, tag)) return;
  const Entry* e = entry_of(all, n, blockIdx.x);
  const float* x = e->w;
  u64 count = e->count, lo = (u64)(blockIdx.x - e->first) * 8192, hi = lo + 8192 < count ? lo + 8192 : count;
  float s = 0;
  for (u64 i = lo + threadIdx.x; i < hi; i += 256) s = fmaf(x[i], x[i], s);
  s = block_sum<8>(s, part);
  if (threadIdx.x == 0) parts[blockIdx.x] = s;
}

// The sum of entry blockIdx.x; the list has an entry more, that begins where all end.
KERNEL(256) squares_many_join(float* out, const float* parts, const Entry* all, u64* fault, u32 tag) {
  __shared__ double sums[256];
  if (stopped(fault, tag)) return;
  int lo = all[blockIdx.x].first, hi = all[blockIdx.x + 1].first;
  double s = 0;
  for (int i = lo + threadIdx.x; i < hi; i += 256) s += (double)parts[i];
  sums[threadIdx.x] = s;
  __syncthreads();
  if (threadIdx.x) return;
  for (int i = 1; i < 256; i++) s += sums[i];
  out[blockIdx.x] = (float)s;
}
