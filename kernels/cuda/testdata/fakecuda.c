// A libcuda that has one device whose memory is the host's. It runs one kernel, fill, and records launches:
// enough to see that every call passes what it should.
#include <stdlib.h>
#include <string.h>
typedef int R;
typedef unsigned long long P;

static int env(const char *name, int otherwise) { return getenv(name) ? atoi(getenv(name)) : otherwise; }

R cuInit(unsigned flags) { return env("FAKE_INIT", 0); }
R cuDriverGetVersion(int *v) { return *v = env("FAKE_DRIVER", 12040), 0; }
R cuDeviceGetCount(int *n) { return *n = 1, 0; }
R cuDeviceGet(int *d, int i) { return *d = 40 + i, 0; }
R cuDeviceGetName(char *s, int n, int d) { return strncpy(s, d == 40 ? "Fake" : "another", n), 0; }
R cuDeviceGetAttribute(int *v, int a, int d) {
  *v = a == 75 ? env("FAKE_MAJOR", 9) : a == 76 ? 0 : a == 97 ? 232448 : -1;
  return d != 40;
}
R cuDevicePrimaryCtxRetain(void **c, int d) { return *c = (void *)7, d != 40; }
R cuDevicePrimaryCtxRelease_v2(int d) { return d != 40; }
R cuCtxSetCurrent(void *c) { return c != (void *)7; }
R cuModuleLoadDataEx(void **m, const char *text, unsigned n, int *options, void **values) {
  if (env("FAKE_REJECT", 0)) {
    if (n == 2 && options[0] == 5 && options[1] == 6) strncpy(values[0], "line 9: no such thing", (size_t)values[1]);
    return 218;
  }
  return *m = (void *)9, strstr(text, ".entry") == 0;
}
R cuModuleGetFunction(void **f, void *m, const char *name) { return *f = strdup(name), m != (void *)9; }
R cuFuncSetAttribute(void *f, int a, int v) { return a != 8 || v <= 48 << 10; }
R cuStreamCreate(void **s, unsigned flags) { return *s = (void *)11, flags != 1; }
R cuStreamSynchronize(void *s) { return s != (void *)11; }
R cuMemAlloc_v2(P *p, size_t n) { return n > 1 << 30 ? 2 : (*p = (P)malloc(n), 0); }
R cuMemFree_v2(P p) { return free((void *)p), 0; }
R cuMemGetInfo_v2(size_t *f, size_t *t) { return *f = 1000, *t = 2000, 0; }
R cuMemHostAlloc(void **p, size_t n, unsigned flags) { return *p = malloc(n), flags; }
R cuMemsetD8Async(P p, unsigned char v, size_t n, void *s) { return memset((void *)p, v, n), s != (void *)11; }
R cuMemcpyHtoDAsync_v2(P d, const void *s, size_t n, void *st) { return memcpy((void *)d, s, n), st != (void *)11; }
R cuMemcpyDtoHAsync_v2(void *d, P s, size_t n, void *st) { return memcpy(d, (void *)s, n), st != (void *)11; }

struct launch {
  void *x;
  int stride, rows, cols;
  float v;
};
static struct launch held[16];
static int recording, count;

static void fill(struct launch l) {
  for (int i = 0; i < l.rows; i++)
    for (int j = 0; j < l.cols; j++) ((float *)l.x)[i * l.stride + j] = l.v;
}
R cuLaunchKernel(char *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *s,
                 void **p, void **extra) {
  if (!gx || !gy || !gz || bx != 256 || by != 1 || bz != 1 || shared || s != (void *)11 || extra) return 1;
  if (strcmp(f, "fill")) return 719;
  struct launch l = {*(void **)p[0], *(int *)p[1], *(int *)p[2], *(int *)p[3], *(float *)p[4]};
  if (recording) return held[count++] = l, 0;
  return fill(l), 0;
}
R cuStreamBeginCapture_v2(void *s, int mode) { return recording = 1, count = 0, mode != 1; }
R cuStreamEndCapture(void *s, void **g) { return recording = 0, *g = (void *)13, 0; }
R cuGraphInstantiateWithFlags(void **e, void *g, P flags) { return *e = (void *)17, g != (void *)13 || flags; }
R cuGraphLaunch(void *e, void *s) {
  for (int i = 0; i < count; i++) fill(held[i]);
  return e != (void *)17 || s != (void *)11;
}
R cuGraphExecDestroy(void *e) { return e != (void *)17; }
R cuGraphDestroy(void *g) { return g != (void *)13; }
R cuGetErrorName(int code, const char **s) { return *s = code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_FAKE", 0; }
R cuGetErrorString(int code, const char **s) { return *s = code == 2 ? "out of memory" : "a fake error", 0; }
