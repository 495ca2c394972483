// together.h: sequences of a decode step that have the same keys in a segment, such as the samples of one prompt. What a row
// makes of a segment depends on no other row, so one block may do so for the rows of all of them, and bring the keys once.
#pragma once
#include "attention.h"

#define MOST_TOGETHER 16  // sequences: a bit each

// Whether sequence s has one query, which sees all keys before `last`.
GPU bool sees_all(const Shape& a, int s, int last) {
  int lo = a.starts[(size_t)s * a.ss], hi = a.starts[(size_t)(s + 1) * a.ss], n = a.lengths[(size_t)s * a.ls];
  return (lo >= 0) & (lo < a.rows) & (hi == lo + 1) & (n >= last);  // & so that nothing is read after something else
}

// How many sequences, from s on, of n the block of s does in the segment from key `first` on: as follow one another, see all of
// it and have it in the same pages. 0: an earlier one's block does it for s. So that each block finds this by itself, of sequences
// i·window … (i+1)·window-1 none goes with another; a window has at most MOST_TOGETHER. All threads of a block call it.
GPU int together(const Shape& a, int s, int n, int first, int window, u32* same) {
  int from = s / window * window, pairs = min(window, n - from) - 1;
  if (pairs == 0) return 1;
  if (threadIdx.x == 0) *same = (1u << pairs) - 1;  // bit p: from+p goes with the next
  __syncthreads();
  int page = first / a.size, pages = (first + SEGMENT - 1) / a.size - page + 1;
  for (int i = threadIdx.x; i < pairs * pages; i += blockDim.x) {
    int p = i / pages, x = from + p, at = page + i % pages;
    bool goes = at < a.wide && a.pages[(size_t)x * a.ps + at] == a.pages[(size_t)(x + 1) * a.ps + at];
    if (at == page) goes = goes & sees_all(a, x, first + SEGMENT) & sees_all(a, x + 1, first + SEGMENT);
    if (!goes) atomicAnd(same, ~(1u << p));
  }
  __syncthreads();
  u32 on = *same, next = on >> (s - from);
  if (on << 1 >> (s - from) & 1) return 0;
  return 1 + __popc(next & ~(next + 1));  // ones that next ends in
}
