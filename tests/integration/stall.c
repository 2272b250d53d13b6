/* Preloaded into a worker: the first parallel region that starts while the file STALL_FILE is there never ends. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

void GOMP_parallel(void (*body)(void *), void *data, unsigned threads, unsigned flags) {
    static void (*real)(void (*)(void *), void *, unsigned, unsigned);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "GOMP_parallel");
    const char *file = getenv("STALL_FILE");
    if (file && remove(file) == 0)
        for (;;) __asm__ volatile("pause");
    real(body, data, threads, flags);
}
