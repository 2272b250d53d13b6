// How two processes exchange memory.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

// One end of an exchange: as many bytes in either direction.
struct Exchange {
  void *mine, *theirs;
  int64_t bytes;
};

class Transport {
 public:
  virtual ~Transport() = default;
  // Exchanges with process `other`, which calls this at the same time.
  virtual void exchange(const std::vector<Exchange> &all, int other) = 0;
};

// ---- nccl.cpp

// What the first process hands to the others, so that they meet.
std::string nccl_id();

// Between GPUs, each process on its own one. An exchange is enqueued on the current stream, and nothing waits for it.
std::unique_ptr<Transport> over_nccl(const std::string &id, int rank, int size, int gpu);
