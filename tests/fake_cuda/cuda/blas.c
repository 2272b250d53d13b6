// cuBLAS, libcublas.so.13. See fake.h. Only the arguments that are used matter: the others are passed in registers or on
// the stack and left there.
#include "fake.h"

#include <stdlib.h>

// Products of at most this many multiplications are computed, so that a device can be asked whether it multiplies.
enum { COMPUTED = 1 << 18 };

int cublasCreate_v2(void **handle) { *handle = calloc(1, 4096); return 0; }
int cublasDestroy_v2(void *handle) { return 0; }
int cublasSetStream_v2(void *handle, void *stream) { return 0; }
int cublasSetWorkspace_v2(void *handle, void *workspace, size_t bytes) { return 0; }
int cublasSetMathMode(void *handle, int mode) { return 0; }
int cublasGetMathMode(void *handle, int *mode) { *mode = 0; return 0; }
int cublasSetPointerMode_v2(void *handle, int mode) { return 0; }
int cublasGetPointerMode_v2(void *handle, int *mode) { *mode = 0; return 0; }

static int counted(void) {
  fake_count(&fake_counts.gemms);
  return 0;
}

// C = alpha·op(A)·op(B) + beta·C, by columns.
int cublasSgemm_v2(void *handle, int ta, int tb, int m, int n, int k, const float *alpha, const float *a, int lda,
                   const float *b, int ldb, const float *beta, float *c, int ldc) {
  if ((long)m * n * k <= COMPUTED)
    for (int j = 0; j < n; ++j)
      for (int i = 0; i < m; ++i) {
        float sum = 0;
        for (int l = 0; l < k; ++l)
          sum += a[ta ? l + (long)i * lda : i + (long)l * lda] * b[tb ? j + (long)l * ldb : l + (long)j * ldb];
        float *to = c + i + (long)j * ldc;
        *to = *alpha * sum + (*beta ? *beta * *to : 0);
      }
  return counted();
}
int cublasDgemm_v2(void) { return counted(); }
int cublasGemmEx(void) { return counted(); }
int cublasSgemmEx(void) { return counted(); }
int cublasSgemv_v2(void) { return counted(); }
int cublasDgemv_v2(void) { return counted(); }
int cublasSgemmStridedBatched(void) { return counted(); }
int cublasDgemmStridedBatched(void) { return counted(); }
int cublasGemmStridedBatchedEx(void) { return counted(); }
int cublasSdot_v2(void) { return counted(); }
int cublasDdot_v2(void) { return counted(); }
int cublasDotEx(void) { return counted(); }
