// cuDNN, libcudnn.so.9. See fake.h. Convolutions come through the backend's descriptors, batch norms in f32 through the
// older interface.
#include "fake.h"

#include <stdint.h>
#include <stdlib.h>

// Of cudnn_graph.h.
enum { ENGINE_CONFIG_KNOBS = 302, ENGINE_KNOBS = 1302, ENGINE_NOTES = 1303, ENGINE_BEHAVIOUR = 1305, INT64 = 3 };

size_t cudnnGetVersion(void) { return 91900; }
size_t cudnnGetCudartVersion(void) { return 13000; }
const char *cudnnGetErrorString(int status) { return "a status of the fake"; }
void cudnnGetLastErrorString(char *text, size_t size) { if (size) *text = 0; }
int cudnnCreate(void **handle) { *handle = calloc(1, 4096); return 0; }
int cudnnSetStream(void *handle, void *stream) { return 0; }
int cudnnGetStream(void *handle, void **stream) { *stream = 0; return 0; }

int cudnnBackendCreateDescriptor(int type, void **descriptor) { *descriptor = calloc(1, 64); return 0; }
int cudnnBackendDestroyDescriptor(void *descriptor) { free(descriptor); return 0; }
int cudnnBackendFinalize(void *descriptor) { return 0; }
int cudnnBackendSetAttribute(void *descriptor, int name, int type, int64_t count, const void *values) { return 0; }

// One of everything, all numbers 0; no notes and no knobs.
int cudnnBackendGetAttribute(void *descriptor, int name, int type, int64_t wanted, int64_t *found, void *values) {
  const int none =
      name == ENGINE_CONFIG_KNOBS || name == ENGINE_KNOBS || name == ENGINE_NOTES || name == ENGINE_BEHAVIOUR;
  if (found) *found = !none;
  if (!none && values && wanted && type == INT64) *(int64_t *)values = 0;
  return 0;
}

static int counted(void) {
  fake_count(&fake_counts.dnn);
  return 0;
}
int cudnnBackendExecute(void) { return counted(); }
int cudnnBatchNormalizationForwardTrainingEx(void) { return counted(); }
int cudnnBatchNormalizationBackwardEx(void) { return counted(); }
int cudnnBatchNormalizationForwardInference(void) { return counted(); }
int cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(void *handle, int mode, int ops, void *x, void *z, void *y,
                                                             void *scale, void *activation, size_t *bytes) {
  *bytes = 0;
  return 0;
}
int cudnnGetBatchNormalizationTrainingExReserveSpaceSize(void *handle, int mode, int ops, void *activation, void *x,
                                                         size_t *bytes) {
  *bytes = 16;
  return 0;
}
int cudnnGetBatchNormalizationBackwardExWorkspaceSize(void *handle, int mode, int ops, void *x, void *y, void *dy, void *dz,
                                                      void *dx, void *scale, void *activation, size_t *bytes) {
  *bytes = 0;
  return 0;
}
int cudnnCreateTensorDescriptor(void **descriptor) { *descriptor = calloc(1, 64); return 0; }
int cudnnDestroyTensorDescriptor(void *descriptor) { free(descriptor); return 0; }
int cudnnSetTensorNdDescriptor(void) { return 0; }
