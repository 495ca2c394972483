// A libcuda whose devices have the host's memory. It runs the kernels it knows by their names, when the stream
// is waited for, and records launches: enough to see that every call passes what it should.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef int R;
typedef unsigned long long P;

static int env(const char *name, int otherwise) { return getenv(name) ? atoi(getenv(name)) : otherwise; }
#define STREAM ((void *)11)
#define CONTEXT(d) ((void *)(intptr_t)(1000 + (d)))
static int lost;     // the result of everything since a kernel faulted
static void *bound;  // the context

R cuInit(unsigned flags) { return env("FAKE_INIT", 0); }
R cuDriverGetVersion(int *v) { return *v = env("FAKE_DRIVER", 12040), 0; }
R cuDeviceGetCount(int *n) { return *n = env("FAKE_DEVICES", 1), 0; }
R cuDeviceGet(int *d, int i) { return *d = 40 + i, 0; }
R cuDeviceGetName(char *s, int n, int d) { return snprintf(s, n, d == 40 ? "Fake" : "Fake %d", d - 40), 0; }
R cuDeviceGetAttribute(int *v, int a, int d) {
  *v = a == 75 ? env("FAKE_MAJOR", 9) : a == 76 ? 0 : a == 97 ? 232448 : a == 16 ? 3 : -1;
  return d < 40;
}
R cuDevicePrimaryCtxRetain(void **c, int d) { return *c = CONTEXT(d), env("FAKE_TAKEN", 0); }
R cuDevicePrimaryCtxRelease_v2(int d) { return CONTEXT(d) != bound; }
R cuCtxSetCurrent(void *c) { return bound = c, c == 0; }

// ---- code

R cuModuleLoadDataEx(void **m, const char *text, unsigned n, int *options, void **values) {
  if (env("FAKE_REJECT", 0)) {
    if (n == 2 && options[0] == 5 && options[1] == 6) strncpy(values[0], "line 9: no such thing", (size_t)values[1]);
    return env("FAKE_REJECT", 0);
  }
  *m = (void *)9;
  if (!memcmp(text, "\177ELF", 4)) return 0;
  return !strstr(text, ".entry") || strstr(text, "bar.sink") ? 218 : 0;
}
R cuModuleLoadData(void **m, const char *text) { return cuModuleLoadDataEx(m, text, 0, 0, 0); }
R cuModuleUnload(void *m) { return m != (void *)9; }

struct kernel {
  char name[64];
  int shared;
};
R cuModuleGetFunction(struct kernel **f, void *m, const char *name) {
  if (!strcmp(name, "missing")) return 500;
  static struct kernel all[256]; // every module's, by name
  for (*f = all; (*f)->name[0] && strcmp((*f)->name, name); ++*f);
  return strncpy((*f)->name, name, 63), m != (void *)9;
}
R cuFuncGetAttribute(int *v, int a, struct kernel *f) { return *v = a == 8 ? f->shared : a == 4 ? 40 : 0, 0; }
R cuFuncSetAttribute(struct kernel *f, int a, int v) { return f->shared = v, a != 8 || v > 232448; }

struct map { // our own, in the 128 bytes of a tensor map
  P address, dims[2], strides[1];
  uint32_t box[2];
  int type, rank, swizzle, promote, interleave, fill;
};
R cuTensorMapEncodeTiled(struct map *m, int type, unsigned rank, P address, const P *dims, const P *strides, const uint32_t *box,
                         const uint32_t *steps, int interleave, int swizzle, int promote, int fill) {
  if ((P)m % 64 || rank != 2 || steps[0] != 1 || steps[1] != 1) return 1;
  *m = (struct map){address, {dims[0], dims[1]}, {strides[0]}, {box[0], box[1]}, type, (int)rank, swizzle, promote, interleave, fill};
  return 0;
}

// ---- memory

static size_t taken;
R cuMemAlloc_v2(P *p, size_t n) {
  if (lost) return lost;
  if (n > 1 << 30) return 2;
  return *p = (P)aligned_alloc(256, (n + 255) / 256 * 256), memset((void *)*p, 0xff, n), taken++, 0;
}
R cuMemFree_v2(P p) { return free((void *)p), taken--, lost; }
R cuMemAllocAsync(P *p, size_t n, void *s) { return s != STREAM ? 1 : cuMemAlloc_v2(p, n); }
R cuMemFreeAsync(P p, void *s) { return s != STREAM ? 1 : cuMemFree_v2(p); }
R cuMemGetInfo_v2(size_t *f, size_t *t) { return *f = 1000, *t = 2000, lost; }
R cuMemHostAlloc(void **p, size_t n, unsigned flags) { return *p = malloc(n), flags; }
R cuMemFreeHost(void *p) { return free(p), 0; }

// ---- the stream

struct work { // a launch, a copy, or a byte that memory is set to
  struct kernel *f;
  unsigned grid[3], block[3], cluster[3], shared, early;
  uint64_t args[32];
  void *to, *from;
  size_t n;
  int v;
};
struct graph {
  struct work held[64];
  int count;
};
static struct graph *recording;

static R run(struct work *w) {
  uint64_t *a = w->args;
  if (w->from) return memcpy(w->to, w->from, w->n), 0;
  if (!w->f) return memset(w->to, w->v, w->n), 0;
  if (w->shared > 48 << 10 && (int)w->shared > w->f->shared) return 1;
  if (!strcmp(w->f->name, "fill")) {  // the backend's: at, stride, rows, columns, value
    float v;
    memcpy(&v, &a[4], 4);
    for (int i = 0; i < (int)a[2]; i++)
      for (int j = 0; j < (int)a[3]; j++) ((float *)a[0])[i * (int)a[1] + j] = v;
    return w->block[0] != 256 || w->block[1] != 1 || w->block[2] != 1 || w->shared;
  }
  if (!strcmp(w->f->name, "count_up")) {  // drivertest's: at, n, first
    for (unsigned i = 0; i < (unsigned)a[1] && i < w->grid[0] * w->block[0]; i++) ((uint32_t *)a[0])[i] = (uint32_t)a[2] + i;
    return 0;
  }
  if (!strcmp(w->f->name, "turn_round")) {  // drivertest's: at; each block turns its words round, by the end of shared memory
    for (unsigned b = 0; b < w->grid[0]; b++)
      for (unsigned i = 0; i < w->block[0] / 2; i++) {
        uint32_t *x = (uint32_t *)a[0] + b * w->block[0], t = x[i];
        x[i] = x[w->block[0] - 1 - i], x[w->block[0] - 1 - i] = t;
      }
    return w->shared < 4 * w->block[0];
  }
  if (!strcmp(w->f->name, "describe")) {  // only here: to, then a tensor map; with how it was launched
    memcpy((void *)a[0], &a[1], 128);
    unsigned how[4] = {w->cluster[0], w->cluster[1], w->cluster[2], w->early};
    memcpy((char *)a[0] + 128, how, 16);
    return 0;
  }
  if (!strcmp(w->f->name, "collect")) {  // the backend's: to, from, words, from, words, the fault word
    memcpy((void *)a[0], (void *)a[5], 8);
    memcpy((char *)a[0] + 8, (void *)a[1], 4 * (int)a[2]);
    if ((int)a[4]) memcpy((char *)a[0] + 8 + 4 * (int)a[2], (void *)a[3], 4 * (int)a[4]);
    return 0;
  }
  if (!strcmp(w->f->name, "distribute")) {  // the backend's: what was sent, its table
    struct piece {
      P to;
      uint32_t from, words;
    } *t = (void *)a[1];
    for (unsigned i = 0; i < w->grid[0]; i++) memcpy((void *)t[i].to, (uint32_t *)a[0] + t[i].from, 4 * t[i].words);
    return 0;
  }
  return lost = strcmp(w->f->name, "wild") ? 719 : 700;
}

static R queue(struct work w, void *s) {
  if (s != STREAM) return 400;
  if (lost) return lost;
  if (!recording) return run(&w);
  return recording->count == 64 ? 2 : (recording->held[recording->count++] = w, 0);
}
R cuMemsetD8Async(P p, unsigned char v, size_t n, void *s) { return queue((struct work){.to = (void *)p, .v = v, .n = n}, s); }
R cuMemcpyHtoDAsync_v2(P d, void *f, size_t n, void *s) { return queue((struct work){.to = (void *)d, .from = f, .n = n}, s); }
R cuMemcpyDtoHAsync_v2(void *d, P f, size_t n, void *s) { return queue((struct work){.to = d, .from = (void *)f, .n = n}, s); }
R cuMemcpyDtoDAsync_v2(P d, P f, size_t n, void *s) { return queue((struct work){.to = (void *)d, .from = (void *)f, .n = n}, s); }

static void arguments(struct work *w, void **p) { // all are of eight bytes here, but for describe's tensor map
  if (!strcmp(w->f->name, "describe")) {
    w->args[0] = *(uint64_t *)p[0], memcpy(&w->args[1], p[1], 128);
    return;
  }
  static const struct {
    const char *name;
    int n;
  } known[] = {{"fill", 7}, {"collect", 7}, {"distribute", 4}, {"count_up", 3}, {"", 1}};
  int n = 0;
  while (*known[n].name && strcmp(w->f->name, known[n].name)) n++;
  n = known[n].n;
  for (int i = 0; i < n; i++) w->args[i] = *(uint64_t *)p[i];
}
R cuLaunchKernel(struct kernel *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                 void *s, void **p, void **extra) {
  if (!gx || !gy || !gz || extra) return 1;
  if (!strcmp(f->name, "add")) return 719;
  struct work w = {.f = f, .grid = {gx, gy, gz}, .block = {bx, by, bz}, .shared = shared};
  arguments(&w, p);
  return queue(w, s);
}
struct attribute {
  int id, pad;
  unsigned value[16];
};
struct config {
  unsigned grid[3], block[3], shared;
  void *stream;
  struct attribute *attrs;
  unsigned n;
};
R cuLaunchKernelEx(struct config *c, struct kernel *f, void **p, void **extra) {
  struct work w = {.f = f, .shared = c->shared};
  memcpy(w.grid, c->grid, 12), memcpy(w.block, c->block, 12);
  for (unsigned i = 0; i < c->n; i++)
    if (c->attrs[i].id == 4) memcpy(w.cluster, c->attrs[i].value, 12);
    else if (c->attrs[i].id == 6) w.early = c->attrs[i].value[0];
    else return 1;
  arguments(&w, p);
  return extra ? 1 : queue(w, c->stream);
}
R cuOccupancyMaxActiveClusters(int *n, struct kernel *f, struct config *c) { // of a device of 13 multiprocessors
  *n = 13;
  for (unsigned i = 0; i < c->n; i++)
    if (c->attrs[i].id == 4) *n /= c->attrs[i].value[0] * c->attrs[i].value[1] * c->attrs[i].value[2];
  return !f;
}
R cuStreamCreate(void **s, unsigned flags) { return *s = STREAM, flags != 1; }
R cuStreamSynchronize(void *s) { return s != STREAM ? 400 : lost; }

static int clock_ms; // of the device: each record is 2 ms later
R cuEventCreate(int **e, unsigned flags) { return *e = calloc(1, sizeof **e), flags; }
R cuEventRecord(int *e, void *s) { return *e = clock_ms += 2, s != STREAM; }
R cuEventSynchronize(int *e) { return lost; }
R cuEventElapsedTime(float *ms, int *a, int *b) { return *ms = *b - *a, *a == 0 || *b == 0 ? 400 : 0; }
R cuEventDestroy_v2(int *e) { return free(e), 0; }

R cuStreamBeginCapture_v2(void *s, int mode) { return recording = calloc(1, sizeof *recording), mode != 1; }
R cuStreamEndCapture(void *s, struct graph **g) {
  *g = recording, recording = 0;
  return *g ? 0 : 901;
}
R cuGraphInstantiateWithFlags(struct graph **e, struct graph *g, P flags) { return *e = malloc(sizeof *g), **e = *g, flags != 0; }
struct why {
  int result;
  void *node, *from;
};
R cuGraphExecUpdate_v2(struct graph *e, struct graph *g, struct why *w) {
  int same = e->count == g->count;
  for (int i = 0; same && i < e->count; i++) same = e->held[i].f == g->held[i].f;
  return same ? (*e = *g, 0) : (w->result = 2, 910);
}
R cuGraphLaunch(struct graph *e, void *s) {
  R r = s != STREAM;
  for (int i = 0; i < e->count && !r; i++) r = queue(e->held[i], s);
  return r;
}
R cuGraphExecDestroy(struct graph *e) { return free(e), 0; }
R cuGraphDestroy(struct graph *g) { return free(g), 0; }

static const struct {
  int code;
  const char *name, *text;
} errors[] = {{2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
              {46, "CUDA_ERROR_DEVICE_UNAVAILABLE", "busy or unavailable"},
              {218, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
              {222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "an unsupported PTX version"},
              {500, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
              {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access"},
              {910, "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE", "the graph cannot be updated so"},
              {0, "CUDA_ERROR_FAKE", "a fake error"}};
static int find(int code) {
  int i = 0;
  while (errors[i].code && errors[i].code != code) i++;
  return i;
}
R cuGetErrorName(int code, const char **s) { return *s = errors[find(code)].name, 0; }
R cuGetErrorString(int code, const char **s) { return *s = errors[find(code)].text, 0; }
