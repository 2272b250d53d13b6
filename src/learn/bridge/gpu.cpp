// What the CUDA half of libtorch offers through interfaces of the CPU half. Documented in gpu.rs.

#include "bridge.h"

#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <map>
#include <mutex>

using at::Tensor;

namespace {

// The stream of all copies to a GPU. Kernels run on another, the current one, so that both go on at once.
c10::Stream copies_to(at::Device device) {
  static std::mutex mutex;
  static std::map<c10::DeviceIndex, c10::Stream> streams;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto known = streams.find(device.index());
  if (known != streams.end()) return known->second;
  const c10::Stream stream = c10::impl::VirtualGuardImpl(at::kCUDA).getStreamFromGlobalPool(device);
  return streams.emplace(device.index(), stream).first->second;
}

// A tensor on its way to a GPU, and the event of its arrival.
struct Sent {
  Tensor tensor;
  c10::Event arrival{at::kCUDA};
};

}  // namespace

extern "C" {

char *caco_pinned(int64_t bytes, Tensor **result) {
  return guarded([&] { *result = new Tensor(at::empty({bytes}, at::TensorOptions(at::kByte).pinned_memory(true))); });
}

char *caco_send(const Tensor *tensor, int device, Sent **result) {
  return guarded([&] {
    torch::NoGradGuard guard;
    Tensor from = *tensor;
    if (!from.is_pinned()) {
      from = at::empty(tensor->sizes(), tensor->options().pinned_memory(true));
      from.copy_(*tensor);
    }
    const c10::Stream copies = copies_to(at::Device(at::kCUDA, static_cast<at::DeviceIndex>(device)));
    // Allocated for this stream, the copy need not wait for kernels that used the same memory before. libtorch notes that
    // the stream reads the pinned memory, and hands that out again only after the copy.
    const c10::StreamGuard on(copies);
    auto sent = std::make_unique<Sent>();
    sent->tensor = at::empty(from.sizes(), from.options().device(copies.device()).pinned_memory(false));
    sent->tensor.copy_(from, /*non_blocking=*/true);
    sent->arrival.record(copies);
    *result = sent.release();
  });
}

// Takes `sent`.
char *caco_receive(Sent *sent, Tensor **result) {
  return guarded([&] {
    const std::unique_ptr<Sent> taken(sent);
    const c10::Stream current = c10::impl::VirtualGuardImpl(at::kCUDA).getStream(taken->tensor.device());
    taken->arrival.block(current);
    // Without this, its memory could be overwritten by the next copy before the kernels have read it.
    taken->tensor.record_stream(current);
    *result = new Tensor(std::move(taken->tensor));
  });
}

void caco_drop_sent(Sent *sent) { delete sent; }

char *caco_gpu_versions(long *cuda, long *cudnn) {
  return guarded([&] {
    const auto &hooks = at::detail::getCUDAHooks();
    *cuda = hooks.versionCUDART();
    *cudnn = hooks.versionRuntimeCuDNN();
  });
}

char *caco_gpu_memory(int device, int64_t *allocated, int64_t *reserved) {
  return guarded([&] {
    constexpr auto ALL = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const auto stats = c10::getDeviceAllocator(at::kCUDA)->getDeviceStats(static_cast<c10::DeviceIndex>(device));
    *allocated = stats.allocated_bytes[ALL].peak;
    *reserved = stats.reserved_bytes[ALL].peak;
  });
}

}  // extern "C"
