// sides.h: what a block of threads of attentiongrad90 has in shared memory, and what its first warpgroup brings there.
#pragma once
#include "panels.h"

// ---- shared memory: the block's own rows, then stages of the other side's, then what is to be known of them

// What is known of a query: the last key that it sees, its log-sum-exp times -1, and its delta.
struct alignas(16) Note {
  int reach;
  float base, delta;
};

// Of a stage: its mbarriers, the rows of it that are not finite, and if they are queries what is known of them, and the
// least reach.
struct Notes {
  u64 full, empty, bad[2][4];
  Note of[KEYS];
  int least;
};

template <int D, int P> struct Room {
  enum : int {
    TURNS = P == 3 ? 2 : 1,  // of the warpgroups: every block is of one of them, or of both
    OWN = 2 * ROWS / TURNS,
    TILE = P * Panels<D, OWN>::PIECE,
    BLOCK = P * Panels<D, KEYS>::PIECE,
    STAGES = D * P == 384 ? 2 : 4,
    BRINGS = D == 64 ? 88 : 112,  // registers of a thread that brings, and of one that multiplies: these need no local memory
    TAKES = D == 64 ? 208 : 192,
  };
  u8* space;

  GPU u8* own(int operand) const { return space + operand * TILE; }
  GPU u8* other(int block, int operand) const { return space + 2 * TILE + (block % STAGES * 2 + operand) * BLOCK; }
  GPU Notes& notes(int block) const { return ((Notes*)(space + 2 * TILE + 2 * STAGES * BLOCK))[block % STAGES]; }
  static GPU int parity(int block) { return block / STAGES & 1; }
};

// ---- what a block of threads does

// A side's two operands.
struct Side {
  const float *x, *y;
  int xs, ys;
};

// `rows` are its own rows; of the other side it takes those from `start` to `stop`, as the sequence counts them, of head `head`.
// KV: its own rows are keys. They see queries of the sequence and of those after it that share keys.
template <bool KV> struct Work {
  Tile rows;
  Side own, other;
  int start, stop, head, sequence;

  GPU int count() const { return (stop - start + KEYS - 1) / KEYS; }
  // The row of the other side that lane i < 4 of 16 finds for the others of a block, i of theirs; after the last row the last
  // one's again.
  GPU int find(int block) const {
    int i = threadIdx.x % 16, j = min(start + block * KEYS + threadIdx.x % 128 / 16 + 8 * i, stop - 1);
    if (i >= KEYS / 8) return 0;
    return KV ? rows.sq.lo + j : key_row(rows.a, rows.sq, j, nullptr, 0);
  }
  // The last key that query j sees.
  GPU int reach(int j) const {
    const Sequence& sq = rows.sq;
    if (sq.lo + j < sq.hi) return j;
    int s = sequence + 1;
    while (rows.a.starts[(size_t)(s + 1) * rows.a.ss] <= sq.lo + j) s++;
    int begin = rows.a.starts[(size_t)s * rows.a.ss], end = rows.a.starts[(size_t)(s + 1) * rows.a.ss];
    return rows.a.lengths[(size_t)s * rows.a.ls] - (end - begin) - 1;
  }
};

// The end of the rows of queries that see keys of sequence s; a bad sequence among them is not asked for its rows.
GPU int followed(const Shape& a, int s, const Sequence& sq, int sequences) {
  int end = sq.hi;
  if (sq.before() > 0) return end;
  for (s++; s < sequences; s++) {
    int next = a.starts[(size_t)(s + 1) * a.ss];
    if (a.lengths[(size_t)s * a.ls] - (next - end) <= 0 || next < end || next > a.rows) break;
    end = next;
  }
  return end;
}

template <int D, int P, bool KV>
GPU void produce(const Room<D, P>& room, const Work<KV>& w, const float* lse, int es, const float* delta, int heads) {
  int dim = w.rows.a.dim, count = w.count();
  bool wide_x = whole16(w.other.x, w.other.xs, dim), wide_y = whole16(w.other.y, w.other.ys, dim);
#pragma unroll 1
  for (int block = 0; block < count; block++) {
    Notes& notes = room.notes(block);
    int rows = w.find(block), j = w.start + block * KEYS + threadIdx.x;
    Share<D> x, y;
    x.fetch(w.other.x, w.other.xs, rows, w.head, dim, wide_x);
    y.fetch(w.other.y, w.other.ys, rows, w.head, dim, wide_y);
    barrier_wait(&notes.empty, Room<D, P>::parity(block) ^ 1);  // the phase before the first counts as over
    x.template store<P>(room.other(block, 0), notes.bad[0]);
    y.template store<P>(room.other(block, 1), notes.bad[1]);
    if (KV && threadIdx.x < KEYS) {
      bool there = j < w.stop;
      size_t row = w.rows.sq.lo + min(j, w.stop - 1);
      int reach = there ? w.reach(j) : -1;
      notes.of[threadIdx.x] = Note{reach, -lse[row * es + w.head], delta[row * heads + w.head]};
      for (int o = 16; o; o >>= 1) reach = min(reach, __shfl_xor_sync(FULL, reach, o));
      if (threadIdx.x == 0) notes.least = reach;
    }
    fence_async();
    warp_arrives(&notes.full);
  }
}
