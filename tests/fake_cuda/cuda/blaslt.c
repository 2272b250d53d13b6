// cuBLASLt, libcublasLt.so.13. See fake.h.
#include "fake.h"

#include <string.h>

// The size of cublasLtMatmulHeuristicResult_t.
enum { HEURISTIC = 96 };

int cublasLtMatmulDescCreate(void **descriptor, int compute, int scale) { *descriptor = descriptor; return 0; }
int cublasLtMatmulDescDestroy(void *descriptor) { return 0; }
int cublasLtMatmulDescSetAttribute(void *descriptor, int attribute, const void *value, size_t size) { return 0; }
int cublasLtMatmulPreferenceCreate(void **preference) { *preference = preference; return 0; }
int cublasLtMatmulPreferenceDestroy(void *preference) { return 0; }
int cublasLtMatmulPreferenceSetAttribute(void *preference, int attribute, const void *value, size_t size) { return 0; }
int cublasLtMatrixLayoutCreate(void **layout, int type, unsigned long rows, unsigned long columns, long ld) {
  *layout = layout;
  return 0;
}
int cublasLtMatrixLayoutDestroy(void *layout) { return 0; }
int cublasLtMatrixLayoutSetAttribute(void *layout, int attribute, const void *value, size_t size) { return 0; }
size_t cublasLtGetVersion(void) { return 130000; }
int cublasLtMatmulAlgoGetHeuristic(void *handle, void *descriptor, void *a, void *b, void *c, void *d, void *preference,
                                   int wanted, void *results, int *found) {
  memset(results, 0, HEURISTIC);
  *found = 1;
  return 0;
}
int cublasLtMatmul(void) {
  fake_count(&fake_counts.gemms);
  return 0;
}
