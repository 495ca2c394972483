// parts.h: how blocks that stay share out a product's tiles of 128 outputs × N tokens, and where parts of a tile meet.
#pragma once
#include "hopper.h"

#define HIGH 16  // tiles of outputs that are beside each other before the next tile of tokens

// The parts of tiles that a block computes, in order. All segments of all tiles stand in a row; a block takes `each` of
// them, and again so many gridDim.x·each further on.
struct Parts {
  int each, segments, all;  // segments: of a tile
  int at, end;              // the next segment, and where the block's run ends
  int tile, lo, hi;         // the part is segments lo … hi-1

  GPU Parts(int each, int segments, int tiles) : each(each), segments(segments), all(tiles * segments) {
    at = blockIdx.x * each;
    end = min(at + each, all);
  }
  GPU bool next() {
    if (at == end) {
      at += (gridDim.x - 1) * each;
      end = min(at + each, all);
    }
    if (at >= all) return false;
    tile = at / segments, lo = at % segments;
    hi = min(segments, lo + end - at);
    at += hi - lo;
    return true;
  }
  GPU bool whole() const { return hi - lo == segments; }
};

// What a launch is about: tall × tokens tiles, of steps of K in segments, and where parts of tiles meet.
struct Plan {
  int tall, tokens, steps, segments, each;
  int high;      // rows of tiles that a tile of 128 takes of each of the weight's halves, or of the whole
  float* parts;  // 128·N sums for each segment of each tile
  u32* come;     // for each tile and warpgroup the segments that are in parts; 0 between launches

  GPU Parts first() const { return Parts(each, segments, tall * tokens); }
  GPU void place(int tile, int& o, int& t) const {
    int first = tile / (HIGH * tokens) * HIGH, high = min(HIGH, tall - first), i = tile - first * tokens;
    o = first + i % high, t = i / high;
  }
};

// ---- parts of tiles: a warpgroup's sums of a segment, four by four: 128 threads' lie end to end

template <int R> GPU float4* slot(float* parts, int segment, int group) {
  return (float4*)parts + ((size_t)segment * 2 + group) * (R / 4 * 128) + threadIdx.x % 128;
}

// Whether a thread's i-th four are of tokens that there are, of so many from the tile's first on.
GPU bool there(int i, int rows) { return 8 * i + lane_id() % 4 * 2 < rows; }

template <int R> GPU void leave(float4* to, const float (&d)[R], int rows) {
#pragma unroll
  for (int i = 0; i < R / 4; i++)
    if (there(i, rows)) to[i * 128] = make_float4(d[4 * i], d[4 * i + 1], d[4 * i + 2], d[4 * i + 3]);
}

template <int R> GPU void add(float (&s)[R], const float4* from, int rows) {
#pragma unroll
  for (int i = 0; i < R / 4; i++)
    if (there(i, rows)) {
      float4 v = from[i * 128];
      s[4 * i] += v.x, s[4 * i + 1] += v.y, s[4 * i + 2] += v.z, s[4 * i + 3] += v.w;
    }
}

// Counts a part's segments, which the warpgroup has left, and says whether it is the last of the tile's: then all are
// seen. word is the warpgroup's in shared memory.
GPU bool last_to_come(u32* come, int mine, int all, int group, u32* word) {
  group_barrier(1 + group, 128);
  if (threadIdx.x % 128 == 0) {
    fence_blocks();
    bool last = count_up(come, mine) + mine == all;
    fence_blocks();
    if (last) count_up(come, -all);
    *word = last;
  }
  group_barrier(1 + group, 128);
  return *word;
}
