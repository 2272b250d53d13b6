// An allocator for CPU tensors that keeps freed memory in the process.
//
// Training steps allocate and free the same large tensors repeatedly. malloc returns each to the system, which then
// clears it page by page for the next: a tenth of a step. Here a freed block is kept for the next request of its size,
// and blocks use huge pages where the system has them.

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/alignment.h>
#include <c10/core/impl/alloc_cpu.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>

#include "bridge.h"

namespace {

constexpr size_t HUGE = 2 << 20;        // a huge page of x86-64, and of most others
constexpr size_t LARGE = 256 << 10;     // smaller requests go to malloc
constexpr size_t GRAIN = 64 << 10;      // sizes are rounded up to this

class Blocks {
 public:
  void *take(size_t size) {
    std::lock_guard<std::mutex> lock(mutex_);
    void *block = waiting(size);
    if (!block) block = fresh(size);
    used_ += sizes_[block];
    peak_ = std::max(peak_, used_);
    return block;
  }

  // Returns false if the block was not allocated here.
  bool give(void *block) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = sizes_.find(block);
    if (found == sizes_.end()) return false;
    const size_t size = found->second;
    used_ -= size;
    // Kept blocks never exceed the peak of memory in use.
    if (waits_ + size > peak_) {
      sizes_.erase(found);
      free(block);
      return true;
    }
    free_.emplace(size, block);
    waits_ += size;
    return true;
  }

 private:
  // The smallest kept block that fits and wastes at most an eighth.
  void *waiting(size_t size) {
    const auto found = free_.lower_bound(size);
    if (found == free_.end() || found->first > size + size / 8) return nullptr;
    void *block = found->second;
    waits_ -= found->first;
    free_.erase(found);
    return block;
  }

  void *fresh(size_t size) {
    void *block = nullptr;
    if (posix_memalign(&block, size < HUGE ? size_t{4096} : HUGE, size) != 0) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    if (size >= HUGE) madvise(block, size, MADV_HUGEPAGE);
#endif
    sizes_[block] = size;
    return block;
  }

  std::mutex mutex_;
  std::multimap<size_t, void *> free_;
  std::map<void *, size_t> sizes_;  // of all blocks, in use or kept
  size_t used_ = 0, waits_ = 0, peak_ = 0;
};

// Never destroyed: tensors with static lifetime may outlive everything.
Blocks &blocks() {
  static Blocks *all = new Blocks;
  return *all;
}

void release(void *block) {
  if (block && !blocks().give(block)) c10::free_cpu(block);
}

struct KeepingAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    void *block = size < LARGE ? c10::alloc_cpu(size) : blocks().take((size + GRAIN - 1) / GRAIN * GRAIN);
    return {block, block, &release, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void *to, const void *from, size_t size) const override { default_copy_data(to, from, size); }
};

KeepingAllocator keeping;

}  // namespace

extern "C" char *caco_keep_memory() {
  return guarded([] { c10::SetCPUAllocator(&keeping, 1); });
}
