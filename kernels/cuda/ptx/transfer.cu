// transfer: the small things that a step brings to the device and takes from it, each in one copy.
// Some hundred words: there is one version of each.
#include "gpu.h"

// One of the pieces of an upload.
struct Piece {
  u32* to;
  u32 from, words;  // in the upload
};

// Takes the pieces of an upload to their places; a block has one.
KERNEL(128) distribute(const u32* sent, const Piece* pieces, u64* fault, u32 tag) {
  if (stopped(fault, tag)) return;
  Piece p = pieces[blockIdx.x];
  for (u32 i = threadIdx.x; i < p.words; i += 128) p.to[i] = sent[p.from + i];
}

// Puts the fault word, na words from a and nb from b, one after another, for a download. It does so after a
// failure too: that is how the host learns of it.
KERNEL(128) collect(u32* out, const u32* a, int na, const u32* b, int nb, u64* fault, u32 tag) {
  int i = blockIdx.x * 128 + threadIdx.x;
  if (i == 0) *(u64*)out = *fault;
  if (i < na)
    out[2 + i] = a[i];
  else if (i < na + nb)
    out[2 + i] = b[i - na];
}
