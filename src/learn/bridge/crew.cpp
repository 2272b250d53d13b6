// Work on the shards of a batch, side by side: the C++ part of crew.rs.

#include "bridge.h"

#include <ATen/Parallel.h>

#include <exception>
#include <mutex>

namespace {

using Task = void (*)(void *body, size_t number);
using Run = void (*)(size_t count, void *body, Task task);

// Runs tasks on the threads of the crew; null if there is none.
Run run = nullptr;

}  // namespace

bool portable() { return run; }

void each(int64_t count, const std::function<void(int64_t)> &body) {
  if (!run || count < 2) {
    at::NoGradGuard guard;
    for (int64_t i = 0; i < count; ++i) body(i);
    return;
  }
  std::mutex mutex;
  std::exception_ptr first;
  std::function<void(size_t)> task = [&](size_t i) {
    try {
      at::NoGradGuard guard;
      body(i);
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex);
      if (!first) first = std::current_exception();
    }
  };
  run(count, &task, [](void *task, size_t i) { (*static_cast<std::function<void(size_t)> *>(task))(i); });
  if (first) std::rethrow_exception(first);
}

extern "C" void caco_crew(Run crew) { run = crew; }

// Sets the number of threads per operation for the calling thread, which OpenMP keeps for each thread.
extern "C" void caco_crew_thread() { at::init_num_threads(); }
