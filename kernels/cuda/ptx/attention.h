// attention.h: the sequences of attention, their keys' rows, and tiles of query rows, for the kernels of both generations.
#pragma once
#include "gpu.h"

#define SEGMENT 256

struct Shape {
  const int *starts, *lengths, *pages;
  int ss, ls, ps;      // their strides
  int size, wide;      // rows of a page, columns of pages
  int rows, key_rows;  // of q, of k
  int heads, kv, dim, most;
  float scale;
};

#define SHAPE                                                                                                                          \
  const int *starts, int ss, const int *lengths, int ls, const int *pages, int ps, int size, int wide, int rows, int key_rows,         \
      int heads, int kv, int dim, int most, float scale, u64 *fault, u32 tag
#define SHAPED Shape{starts, lengths, pages, ss, ls, ps, size, wide, rows, key_rows, heads, kv, dim, most, scale}

// A sequence: query rows lo … hi-1; the last of them sees n keys. `at` is its row of pages; without pages the
// row of its leader's first key.
struct Sequence {
  int at, lo, hi, n;
  GPU int before() const { return n - (hi - lo); }  // keys before its own
};

// Sequence s; a bad one has no rows and is a failure.
GPU Sequence sequence(const Shape& a, int s, u64* fault, u32 tag) {
  Sequence q = {s, a.starts[(size_t)s * a.ss], a.starts[(size_t)(s + 1) * a.ss], a.lengths[(size_t)s * a.ls]};
  Reason why = (Reason)0;
  if (q.lo < 0 || q.hi < q.lo || q.hi > a.rows || q.before() < 0 ||
      (!a.pages && !lead(a.starts, a.ss, a.lengths, a.ls, s, q.before(), q.at)))
    why = BAD_SEQUENCE;
  else if (q.hi - q.lo > a.most)
    why = TOO_MANY_QUERIES;
  else
    return q;
  if (threadIdx.x == 0) fail(fault, tag, q.lo, why);
  return Sequence{s, q.lo, q.lo, 0};
}

// The keys that token t of the sequence sees.
GPU int seen(const Sequence& q, int t) { return q.before() + 1 + t; }

// The row of k and v that holds key j, or -1: a failure.
GPU int key_row(const Shape& a, const Sequence& q, int j, u64* fault, u32 tag) {
  if (!a.pages) return j + (j < q.before() ? q.at : q.hi - q.n);
  int page = j / a.size < a.wide ? a.pages[(size_t)q.at * a.ps + j / a.size] : -1;
  long long row = (long long)page * a.size + j % a.size;
  if (row >= 0 && row < a.key_rows) return (int)row;
  fail(fault, tag, q.lo, BAD_PAGE);
  return -1;
}

// Query rows u0 … of one key head of a sequence, row u being head u % group of token u / group.
struct Tile {
  Shape a;
  Sequence sq;
  int u0, group, head, rows;

  GPU Tile(const Shape& shape, const Sequence& seq, int first, int most, int kv_head)
      : a(shape), sq(seq), u0(first), group(shape.heads / shape.kv), head(kv_head) {
    rows = min(most, (seq.hi - seq.lo) * group - first);
  }
  GPU int token(int r) const { return (u0 + r) / group; }
  GPU int row(int r) const { return sq.lo + token(r); }
  GPU int column(int r) const { return head * group + (u0 + r) % group; }
  GPU int keys(int r) const { return r < rows ? seen(sq, token(r)) : 0; }
};
