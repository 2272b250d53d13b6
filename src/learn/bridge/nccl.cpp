// Exchanges between GPUs by NCCL, through its C interface: the library is the one that the CUDA half of libtorch has loaded, so
// that no header of CUDA or NCCL is needed to build.

#include "bridge.h"
#include "transport.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <dlfcn.h>

#include <cstring>

namespace {

// What is fixed of NCCL's interface (nccl.h of version 2).
struct Id {
  char bytes[128];
};
using Communicator = void *;
constexpr int SUCCESS = 0, INT8 = 0;

struct Functions {
  const char *(*getErrorString)(int);
  int (*getUniqueId)(Id *);
  int (*commInitRank)(Communicator *, int size, Id, int rank);
  int (*send)(const void *, size_t count, int type, int peer, Communicator, void *stream);
  int (*recv)(void *, size_t count, int type, int peer, Communicator, void *stream);
  int (*groupStart)();
  int (*groupEnd)();
};

template <typename F>
void look_up(void *library, const char *name, F &function) {
  function = reinterpret_cast<F>(dlsym(library, name));
  TORCH_CHECK(function, "libnccl.so.2 has no function ", name);
}

const Functions &nccl() {
  static const Functions functions = [] {
    void *library = dlopen("libnccl.so.2", RTLD_NOW);
    TORCH_CHECK(library, "several processes on GPUs need NCCL: ", dlerror());
    Functions f{};
    look_up(library, "ncclGetErrorString", f.getErrorString);
    look_up(library, "ncclGetUniqueId", f.getUniqueId);
    look_up(library, "ncclCommInitRank", f.commInitRank);
    look_up(library, "ncclSend", f.send);
    look_up(library, "ncclRecv", f.recv);
    look_up(library, "ncclGroupStart", f.groupStart);
    look_up(library, "ncclGroupEnd", f.groupEnd);
    return f;
  }();
  return functions;
}

void check(int code) { TORCH_CHECK(code == SUCCESS, "NCCL: ", nccl().getErrorString(code)); }

class Nccl final : public Transport {
 public:
  Nccl(const std::string &id, int rank, int size, int gpu) : device(at::kCUDA, static_cast<int8_t>(gpu)) {
    Id of_all;
    TORCH_CHECK(id.size() == sizeof of_all.bytes, "an id of NCCL has ", sizeof of_all.bytes, " bytes");
    std::memcpy(of_all.bytes, id.data(), id.size());
    const c10::DeviceGuard guard(device);
    check(nccl().commInitRank(&communicator, size, of_all, rank));
  }

  void exchange(const std::vector<Exchange> &all, int other) override {
    const c10::DeviceGuard guard(device);
    void *stream = c10::impl::VirtualGuardImpl(at::kCUDA).getStream(device).native_handle();
    check(nccl().groupStart());
    for (const Exchange &one : all) {
      if (one.bytes == 0) continue;
      check(nccl().send(one.mine, one.bytes, INT8, other, communicator, stream));
      check(nccl().recv(one.theirs, one.bytes, INT8, other, communicator, stream));
    }
    check(nccl().groupEnd());
  }

 private:
  const at::Device device;
  Communicator communicator = nullptr;
};

}  // namespace

std::string nccl_id() {
  Id id;
  check(nccl().getUniqueId(&id));
  return {id.bytes, sizeof id.bytes};
}

std::unique_ptr<Transport> over_nccl(const std::string &id, int rank, int size, int gpu) {
  return std::make_unique<Nccl>(id, rank, size, gpu);
}
