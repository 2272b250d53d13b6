// A CUDA that computes nothing: memory is the host's, kernels are counted and not run, copies are made. With it the host's
// side of a CUDA program runs on a machine without a GPU: loading, dispatch, allocation, waiting, errors. Numbers that
// come back mean nothing, with one exception: small float32 matrix products are computed.
//
// FAKE_CUDA_DEVICES  number of devices, 1 by default; CUDA_VISIBLE_DEVICES chooses among them
// FAKE_CUDA_MIB      memory of each device, 139 GiB by default
// FAKE_CUDA_LOG      a file to which counts are appended, one line of JSON whenever the program waits for the whole device,
//                    and one at its end
// FAKE_CUDA_READ     a number, which every float32 copied to the host is instead of the memory's content; a single byte, a
//                    truth value, is then true
// FAKE_CUDA_BUSY     an event has never happened when the program asks for it; other streams and a wait of the host come
//                    after it as always
// FAKE_CUDA_TRACE    write to stderr where the program waits or copies to the host
// FAKE_CUDA_MEET     DIR:N: wait until N processes with a device each have come to this point
#pragma once

#include <stddef.h>

struct fake_counts {
  long launches, dnn, gemms, memsets;  // work for the device
  long to_device, to_host, inside;     // copies
  long waits;                          // times that the host waited for the device
  long aside;                          // copies to the device on another stream than that of the last kernel
  long early;                          // those among them beside kernels that the host has not waited for
  long joins;                          // waits of a stream for an event of another
  long waited;                         // kernels launched before the host last waited
  long messages;                       // of NCCL, sent or received
  long pageable;                       // memory of the host that was asked about and is not pinned
  size_t bytes_to_device, bytes_to_host, used, peak, pinned;
};

// Calls of the runtime, the driver and the libraries come from several threads.
void fake_lock(void);
void fake_unlock(void);
extern struct fake_counts fake_counts;

// Adds one to a count.
void fake_count(long *count);
// Notes that the host waits for the device in the function of this name.
void fake_wait(const char *function);
// Appends the counts to the log.
void fake_report(const char *when);

// Takes device memory; 0 if there is none left.
int fake_take(size_t bytes);
void fake_give(size_t bytes);
size_t fake_total(void);
// Notes a range of device memory, or of pinned memory of the host.
void fake_range(void *start, size_t bytes, int pinned);
// Forgets a range; returns its size, or 0.
size_t fake_forget(void *start);
// Whether an address is inside a range of device memory (1), of pinned memory (2), or neither (0).
int fake_place(const void *address);

// The devices that CUDA_VISIBLE_DEVICES leaves.
int fake_devices(void);
