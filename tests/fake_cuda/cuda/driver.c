// The driver, libcuda.so.1. See fake.h.
#define _GNU_SOURCE
#include "fake.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { SUCCESS = 0, INVALID = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100 };
enum { MULTIPROCESSORS = 16, MAJOR = 75, MINOR = 76 };

int cuInit(unsigned flags) { return fake_devices() ? SUCCESS : NO_DEVICE; }
int cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
int cuDeviceGetCount(int *count) { *count = fake_devices(); return SUCCESS; }
int cuDeviceGet(int *device, int number) { *device = number; return number < fake_devices() ? SUCCESS : INVALID; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Fake H200", size); return SUCCESS; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = fake_total(); return SUCCESS; }
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { *flags = 0; *active = 1; return SUCCESS; }
int cuCtxGetCurrent(void **context) { *context = (void *)16; return SUCCESS; }
int cuGetErrorString(int error, const char **text) {
  *text = error == OUT_OF_MEMORY ? "out of memory" : "an error of the fake";
  return SUCCESS;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
  switch (attribute) {
    case MULTIPROCESSORS: *value = 132; break;
    case MAJOR: *value = 9; break;
    case MINOR: *value = 0; break;
    default: *value = 0;
  }
  return SUCCESS;
}

// Expandable segments: addresses are reserved, memory is created apart from them and mapped. A handle is a pointer to the
// size.
int cuMemGetAllocationGranularity(size_t *bytes, const void *properties, int option) { *bytes = 2 << 20; return SUCCESS; }
int cuMemAddressReserve(void **start, size_t bytes, size_t alignment, uint64_t near, unsigned long long flags) {
  *start = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (*start == MAP_FAILED) return OUT_OF_MEMORY;
  fake_range(*start, bytes, 0);
  return SUCCESS;
}
int cuMemAddressFree(void *start, size_t bytes) {
  fake_forget(start);
  munmap(start, bytes);
  return SUCCESS;
}
int cuMemCreate(unsigned long long *handle, size_t bytes, const void *properties, unsigned long long flags) {
  if (!fake_take(bytes)) return OUT_OF_MEMORY;
  size_t *size = malloc(sizeof *size);
  *size = bytes;
  *handle = (uintptr_t)size;
  return SUCCESS;
}
int cuMemRelease(unsigned long long handle) {
  fake_give(*(size_t *)(uintptr_t)handle);
  free((void *)(uintptr_t)handle);
  return SUCCESS;
}
int cuMemMap(void *start, size_t bytes, size_t offset, unsigned long long handle, unsigned long long flags) {
  return mprotect(start, bytes, PROT_READ | PROT_WRITE) ? INVALID : SUCCESS;
}
int cuMemSetAccess(void *start, size_t bytes, const void *access, size_t count) { return SUCCESS; }
int cuMemUnmap(void *start, size_t bytes) {
  madvise(start, bytes, MADV_DONTNEED);
  return mprotect(start, bytes, PROT_NONE) ? INVALID : SUCCESS;
}
