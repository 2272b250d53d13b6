// What the CUDA half of libtorch offers through interfaces of the CPU half. Documented in gpu.rs.

#include "bridge.h"

#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CachingDeviceAllocator.h>

using at::Tensor;

extern "C" {

char *caco_upload(const Tensor *tensor, int device, Tensor **result) {
  return guarded([&] {
    torch::NoGradGuard guard;
    Tensor pinned = at::empty(tensor->sizes(), tensor->options().pinned_memory(true));
    pinned.copy_(*tensor);
    *result = new Tensor(pinned.to(at::Device(at::kCUDA, static_cast<at::DeviceIndex>(device)), /*non_blocking=*/true));
  });
}

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
