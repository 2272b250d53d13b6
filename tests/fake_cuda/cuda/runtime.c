// The runtime, libcudart.so.13. See fake.h.
#define _GNU_SOURCE
#include "fake.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define API cudaError_t CUDARTAPI

static __thread int current;

static void *driver(void) {
  static void *library;
  if (!library) library = dlopen("libcuda.so.1", RTLD_NOW);
  return library;
}

// Waits for as many processes as FAKE_CUDA_MEET says, each of which leaves a file named after its devices.
static void meet(void) {
  char folder[4096], path[8192];
  int wanted = 0;
  const char *meet = getenv("FAKE_CUDA_MEET"), *visible = getenv("CUDA_VISIBLE_DEVICES");
  if (!meet || sscanf(meet, "%4095[^:]:%d", folder, &wanted) != 2) return;
  snprintf(path, sizeof path, "%s/%s", folder, visible ? visible : "all");
  close(open(path, O_CREAT | O_WRONLY, 0666));
  for (int tries = 0; tries < 6000; ++tries) {
    int come = 0;
    DIR *entries = opendir(folder);
    for (struct dirent *entry; entries && (entry = readdir(entries));) come += entry->d_name[0] != '.';
    if (entries) closedir(entries);
    if (come >= wanted) return;
    usleep(10000);
  }
  fprintf(stderr, "fake CUDA: fewer than %d processes came to %s\n", wanted, folder);
  abort();
}

// Devices.
API cudaGetDeviceCount(int *count) {
  static int met;
  *count = driver() ? fake_devices() : 0;
  if (!driver()) return cudaErrorInsufficientDriver;
  if (!*count) return cudaErrorNoDevice;
  if (!__sync_fetch_and_add(&met, 1)) meet();
  return cudaSuccess;
}
API cudaGetDevice(int *device) { *device = current; return cudaSuccess; }
API cudaSetDevice(int device) {
  if (device >= fake_devices()) return cudaErrorInvalidDevice;
  current = device;
  return cudaSuccess;
}
API cudaDriverGetVersion(int *version) { *version = driver() ? 13000 : 0; return cudaSuccess; }
API cudaRuntimeGetVersion(int *version) { *version = 13000; return cudaSuccess; }
API cudaDeviceSynchronize(void) {
  fake_wait("cudaDeviceSynchronize");
  fake_report("synchronised");
  return cudaSuccess;
}
API cudaDeviceCanAccessPeer(int *can, int device, int peer) { *can = 0; return cudaSuccess; }
API cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return cudaSuccess; }
API cudaDeviceGetPCIBusId(char *id, int size, int device) {
  snprintf(id, size, "0000:00:%02d.0", device);
  return cudaSuccess;
}
API cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) {
  memset(p, 0, sizeof *p);
  strcpy(p->name, "Fake H200");
  p->uuid.bytes[0] = device + 1;
  p->totalGlobalMem = fake_total();
  p->sharedMemPerBlock = 49152;
  p->regsPerBlock = 65536;
  p->warpSize = 32;
  p->maxThreadsPerBlock = p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 2147483647;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->major = 9;
  p->multiProcessorCount = 132;
  p->maxThreadsPerMultiProcessor = 2048;
  p->sharedMemPerMultiprocessor = 233472;
  p->sharedMemPerBlockOptin = 232448;
  p->regsPerMultiprocessor = 65536;
  p->l2CacheSize = 60 << 20;
  p->memoryBusWidth = 6144;
  p->maxBlocksPerMultiProcessor = 32;
  p->unifiedAddressing = p->concurrentKernels = 1;
  p->textureAlignment = 512;
  return cudaSuccess;
}
API cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = 132; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 49152; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 232448; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = 233472; break;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrMaxGridDimX: *value = 2147483647; break;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ: *value = 65535; break;
    case cudaDevAttrL2CacheSize: *value = 60 << 20; break;
    default: *value = 1;
  }
  return cudaSuccess;
}

// What the driver lacks is answered with success.
static int nothing(void) { return 0; }
API cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, unsigned long long flags,
                                     enum cudaDriverEntryPointQueryResult *result) {
  *function = driver() ? dlsym(driver(), name) : NULL;
  if (!*function) *function = (void *)nothing;
  if (result) *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

// Errors. A failed allocation stays the last error until it is asked for, as in the real one.
static __thread cudaError_t last;
static cudaError_t failed(cudaError_t error) { return last = error; }
API cudaGetLastError(void) {
  const cudaError_t error = last;
  last = cudaSuccess;
  return error;
}
API cudaPeekAtLastError(void) { return last; }
const char *CUDARTAPI cudaGetErrorName(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : "cudaErrorOfTheFake";
}
const char *CUDARTAPI cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    default: return "an error of the fake";
  }
}

// Memory. It is touched only by copies, so a device may be larger than the machine.
API cudaMemGetInfo(size_t *left, size_t *total) {
  *total = fake_total();
  *left = *total - fake_counts.used;
  return cudaSuccess;
}
API cudaMalloc(void **start, size_t bytes) {
  *start = NULL;
  if (!fake_take(bytes)) return failed(cudaErrorMemoryAllocation);
  *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  fake_range(*start, bytes, 0);
  return cudaSuccess;
}
API cudaFree(void *start) {
  const size_t bytes = fake_forget(start);
  if (!bytes) return cudaSuccess;
  munmap(start, bytes);
  fake_give(bytes);
  return cudaSuccess;
}
API cudaHostAlloc(void **start, size_t bytes, unsigned flags) {
  if (posix_memalign(start, 4096, bytes)) return failed(cudaErrorMemoryAllocation);
  fake_range(*start, bytes, 1);
  fake_lock();
  fake_counts.pinned += bytes;
  fake_unlock();
  return cudaSuccess;
}
API cudaFreeHost(void *start) { return cudaSuccess; }
API cudaHostRegister(void *start, size_t bytes, unsigned flags) { return cudaSuccess; }
API cudaHostUnregister(void *start) { return cudaSuccess; }
API cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *address) {
  const int place = fake_place(address);
  if (!place) fake_count(&fake_counts.pageable);
  memset(attributes, 0, sizeof *attributes);
  attributes->type = place == 1 ? cudaMemoryTypeDevice : place == 2 ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
  attributes->device = current;
  attributes->devicePointer = attributes->hostPointer = (void *)address;
  return cudaSuccess;
}

static void fill(unsigned char *to, size_t bytes, float value) {
  for (size_t i = 0; i < bytes; ++i) to[i] = ((const unsigned char *)&value)[i % sizeof value];
}

// The stream of the last kernel.
static void *volatile computing;

static void copy(void *to, const void *from, size_t bytes, void *stream) {
  const int to_device = fake_place(to) == 1, from_device = fake_place(from) == 1;
  fake_lock();
  if (to_device && from_device) {
    ++fake_counts.inside;
  } else if (to_device) {
    ++fake_counts.to_device;
    fake_counts.bytes_to_device += bytes;
    fake_counts.aside += stream != computing;
    fake_counts.early += stream != computing && fake_counts.launches > fake_counts.waited;
  } else if (from_device) {
    ++fake_counts.to_host;
    fake_counts.bytes_to_host += bytes;
  }
  fake_unlock();
  if (to_device && from_device) return;
  const char *read = getenv("FAKE_CUDA_READ");
  if (from_device && read)
    bytes == 1 ? (void)(*(char *)to = 1) : fill(to, bytes, atof(read));
  else
    memcpy(to, from, bytes);
}

// A copy from or to memory that is not pinned makes the host wait, also where it is asynchronous by name.
API cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
  fake_wait("cudaMemcpy");
  copy(to, from, bytes, NULL);
  return cudaSuccess;
}
API cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
  if (!fake_place(to) || !fake_place(from)) fake_wait("cudaMemcpyAsync of memory that is not pinned");
  copy(to, from, bytes, stream);
  return cudaSuccess;
}
API cudaMemcpyPeerAsync(void *to, int a, const void *from, int b, size_t bytes, cudaStream_t stream) { return cudaSuccess; }
API cudaMemcpyToSymbol(const void *to, const void *from, size_t bytes, size_t offset, enum cudaMemcpyKind kind) {
  return cudaSuccess;
}
API cudaGetSymbolAddress(void **address, const void *symbol) { *address = malloc(4096); return cudaSuccess; }
API cudaMemset(void *to, int value, size_t bytes) { fake_count(&fake_counts.memsets); return cudaSuccess; }
API cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
  fake_count(&fake_counts.memsets);
  return cudaSuccess;
}

// Streams and events: everything is done at once.
// An event is the stream that it was recorded on.
static cudaError_t made(cudaEvent_t *event) {
  *event = calloc(1, sizeof(void *));
  return cudaSuccess;
}
static cudaError_t record(cudaEvent_t event, void *stream) {
  *(void **)event = stream;
  return cudaSuccess;
}
API cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
  *stream = malloc(8);
  return cudaSuccess;
}
API cudaStreamDestroy(cudaStream_t stream) { return cudaSuccess; }
API cudaStreamQuery(cudaStream_t stream) { return cudaSuccess; }
API cudaStreamSynchronize(cudaStream_t stream) { fake_wait("cudaStreamSynchronize"); return cudaSuccess; }
API cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  if (*(void **)event != stream) fake_count(&fake_counts.joins);
  return cudaSuccess;
}
API cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
API cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *status, unsigned long long *id,
                             cudaGraph_t *graph, const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges,
                             size_t *count) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
API cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode) { return cudaSuccess; }
API cudaEventCreate(cudaEvent_t *event) { return made(event); }
API cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) { return made(event); }
API cudaEventDestroy(cudaEvent_t event) { free(event); return cudaSuccess; }
API cudaEventQuery(cudaEvent_t event) { return getenv("FAKE_CUDA_BUSY") ? cudaErrorNotReady : cudaSuccess; }
API cudaEventRecord(cudaEvent_t event, cudaStream_t stream) { return record(event, stream); }
API cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) { return record(event, stream); }
API cudaEventSynchronize(cudaEvent_t event) { fake_wait("cudaEventSynchronize"); return cudaSuccess; }
API cudaEventElapsedTime(float *time, cudaEvent_t from, cudaEvent_t to) { *time = 1; return cudaSuccess; }

// Kernels. The compiler's code registers them when a library is loaded, and launches them.
API cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *function) {
  memset(attributes, 0, sizeof *attributes);
  attributes->binaryVersion = attributes->ptxVersion = 90;
  attributes->maxThreadsPerBlock = 1024;
  attributes->numRegs = 32;
  return cudaSuccess;
}
API cudaFuncSetAttribute(const void *function, enum cudaFuncAttribute attribute, int value) { return cudaSuccess; }
API cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *function, int threads, size_t shared,
                                                           unsigned flags) {
  *blocks = 2;
  return cudaSuccess;
}
static __thread struct {
  dim3 grid, block;
  size_t shared;
  void *stream;
} calls[16];
static __thread int depth;
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) {
  calls[depth].grid = grid;
  calls[depth].block = block;
  calls[depth].shared = shared;
  calls[depth++].stream = stream;
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
  *grid = calls[--depth].grid;
  *block = calls[depth].block;
  *shared = calls[depth].shared;
  *(void **)stream = calls[depth].stream;
  return cudaSuccess;
}
void **__cudaRegisterFatBinary(void *binary) {
  static void *handle[4];
  return handle;
}
void __cudaRegisterFatBinaryEnd(void **handle) {}
void __cudaUnregisterFatBinary(void **handle) {}
void __cudaRegisterVar(void **handle, char *host, char *device, const char *name, int external, size_t size, int constant,
                       int global) {}
void __cudaRegisterFunction(void **handle, const char *host, char *device, const char *name, int limit, void *a, void *b,
                            void *c, void *d, int *size) {}
cudaError_t __cudaGetKernel(void **kernel, const void *function) { *kernel = (void *)function; return cudaSuccess; }
static cudaError_t launched(void *stream) {
  computing = stream;
  fake_count(&fake_counts.launches);
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared, void *stream) {
  return launched(stream);
}
API cudaLaunchKernel(const void *function, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream) {
  return launched(stream);
}
API cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *function, void **arguments) {
  return launched(config->stream);
}
