// Processes that compute together: by c10d's Gloo on the CPU, whose headers need those of gloo, see gloo/; by NCCL on GPUs.
//
// Sums are not taken by its all-reduce, whose order depends on the number of processes, but by messages between two
// processes at a time: in round k, process p exchanges with p XOR 2ᵏ. With powers of two these are the upper levels of
// the tree over all shards, nearest neighbours first, whatever the number of processes.

#include "bridge.h"
#include "transport.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <string>

using at::Tensor;

namespace {

constexpr const char *HOST = "127.0.0.1";

// How long processes wait for one another at the start. Afterwards the first one may be busy with a checkpoint or an
// evaluation for as long as that takes; its own watchdog ends a step that hangs.
constexpr std::chrono::milliseconds START = std::chrono::minutes(5), LATER = std::chrono::hours(24 * 7);

class Gloo final : public Transport {
 public:
  Gloo(c10::intrusive_ptr<c10d::Store> store, int rank, int size) : store(std::move(store)) {
    const auto options = c10d::ProcessGroupGloo::Options::create(START);
    options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(HOST));
    group = c10::make_intrusive<c10d::ProcessGroupGloo>(this->store, rank, size, options);
    group->setTimeout(LATER);
  }

  void exchange(const std::vector<Exchange> &all, int other) override {
    std::vector<c10::intrusive_ptr<c10d::Work>> works;
    for (const Exchange &one : all) {
      if (one.bytes == 0) continue;
      const int tag = next++ & 0x3fffffff;
      std::vector<Tensor> mine{bytes(one.mine, one.bytes)}, theirs{bytes(one.theirs, one.bytes)};
      works.push_back(group->send(mine, other, tag));
      works.push_back(group->recv(theirs, other, tag));
    }
    for (const auto &work : works) work->wait(LATER);
  }

 private:
  static Tensor bytes(void *start, int64_t count) { return at::from_blob(start, {count}, at::kByte); }

  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<c10d::Backend> group;
  uint32_t next = 0;
};

struct Team {
  const int rank, size;
  const std::unique_ptr<Transport> host, gpu;
  // Whether an exchange has failed, because another process ended.
  std::atomic<bool> lost{false};

  void exchange(bool on_host, const std::vector<Exchange> &all, int other) {
    try {
      TORCH_CHECK(on_host || gpu, "these processes compute on the CPU");
      (on_host ? host : gpu)->exchange(all, other);
    } catch (const std::exception &) {
      lost = true;
      throw;
    }
  }
};

// Never destroyed: at the end of a process, others may still be connected.
Team *team = nullptr;
c10::intrusive_ptr<c10d::TCPStore> *server = nullptr;

// Calls `body` for every round, with the process to exchange with and the distance to it.
template <typename F>
void in_rounds(const F &body) {
  for (int step = 1; step < team->size; step *= 2) body(team->rank ^ step, step);
}

// The tensor in memory that has no gaps.
Tensor dense(const Tensor &tensor) {
  return tensor.is_non_overlapping_and_dense() ? tensor : tensor.clone(at::MemoryFormat::Preserve);
}

// Whether tensors are in the memory of the host, as all of them must be if one is.
bool on_host(at::TensorList tensors) {
  const bool first = tensors.empty() || tensors[0].is_cpu();
  for (const Tensor &tensor : tensors) TORCH_CHECK(tensor.is_cpu() == first, "tensors on the host and on a GPU");
  return first;
}

Exchange between(const Tensor &mine, const Tensor &theirs) {
  return {mine.data_ptr(), theirs.data_ptr(), static_cast<int64_t>(mine.nbytes())};
}

c10d::TCPStoreOptions options_of(uint16_t port, int size) {
  c10d::TCPStoreOptions options;
  options.port = port;
  options.numWorkers = size;
  options.waitWorkers = false;
  options.timeout = START;
  return options;
}

// A socket that only this machine reaches. TCPStore itself would listen to all networks.
int local_socket() {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  inet_pton(AF_INET, HOST, &address.sin_addr);
  const bool open = listener >= 0 && bind(listener, reinterpret_cast<sockaddr *>(&address), sizeof address) == 0 &&
                    listen(listener, SOMAXCONN) == 0;
  TORCH_CHECK(open, "cannot listen on ", HOST, ": ", strerror(errno));
  return listener;
}

uint16_t port_of(int listener) {
  sockaddr_in address{};
  socklen_t length = sizeof address;
  TORCH_CHECK(getsockname(listener, reinterpret_cast<sockaddr *>(&address), &length) == 0, strerror(errno));
  return ntohs(address.sin_port);
}

}  // namespace

int64_t team_size() { return team ? team->size : 1; }
int64_t team_rank() { return team ? team->rank : 0; }

void join_in_team(std::vector<double> &values, const Join &join) {
  if (team_size() == 1) return;
  std::vector<double> theirs(values.size());
  in_rounds([&](int other, int) {
    team->exchange(true, {{values.data(), theirs.data(), static_cast<int64_t>(values.size() * sizeof(double))}}, other);
    if (other > team->rank) return join(values, theirs);
    join(theirs, values);
    values = theirs;
  });
}

void sum_in_team(const std::vector<Tensor> &tensors) {
  if (team_size() == 1) return;
  at::NoGradGuard guard;
  std::vector<Tensor> sums, theirs;
  for (const Tensor &tensor : tensors) {
    sums.push_back(dense(tensor));
    theirs.push_back(at::empty_like(sums.back()));
  }
  in_rounds([&](int other, int) {
    std::vector<Exchange> exchanges;
    for (size_t i = 0; i < sums.size(); ++i) exchanges.push_back(between(sums[i], theirs[i]));
    team->exchange(on_host(tensors), exchanges, other);
    // a + b and b + a have the same bits.
    for (size_t i = 0; i < sums.size(); ++i) sums[i].add_(theirs[i]);
  });
  for (size_t i = 0; i < sums.size(); ++i)
    if (!sums[i].is_same(tensors[i])) tensors[i].copy_(sums[i]);
}

std::vector<Tensor> gather_in_team(at::TensorList own) {
  if (team_size() == 1) return own.vec();
  at::NoGradGuard guard;
  const size_t count = own.size();
  std::vector<Tensor> all(count * team->size);
  for (size_t i = 0; i < count; ++i) {
    const Tensor mine = dense(own[i]);
    for (int process = 0; process < team->size; ++process)
      all[process * count + i] = process == team->rank ? mine : at::empty_like(mine);
  }
  in_rounds([&](int other, int step) {
    // Each has what `step` neighbours had.
    const size_t mine = (team->rank & ~(step - 1)) * count, theirs = (other & ~(step - 1)) * count;
    std::vector<Exchange> exchanges;
    for (size_t i = 0; i < step * count; ++i) exchanges.push_back(between(all[mine + i], all[theirs + i]));
    team->exchange(on_host(own), exchanges, other);
  });
  return all;
}

// Opens the place where processes meet, on a port of this machine.
extern "C" char *caco_team_open(size_t size, uint16_t *port) {
  return guarded([&] {
    const int listener = local_socket();
    *port = port_of(listener);
    auto options = options_of(*port, size);
    options.isServer = true;
    options.masterListenFd = listener;
    server = new auto(c10::make_intrusive<c10d::TCPStore>(HOST, options));
  });
}

// Waits for all processes that know `nonce`, and makes them a team, if all are of the same build. `gpu` is the number of this
// one's, -1 on the CPU.
extern "C" char *caco_team_join(uint16_t port, const char *nonce, const char *build, size_t rank, size_t size, int gpu) {
  return guarded([&] {
    const auto all = rank == 0 ? *server : c10::make_intrusive<c10d::TCPStore>(HOST, options_of(port, size));
    const auto store = c10::make_intrusive<c10d::PrefixStore>(nonce, all);
    store->set("build/" + std::to_string(rank), std::string(build));
    for (size_t other = 0; other < size; ++other)
      TORCH_CHECK(store->get_to_str("build/" + std::to_string(other)) == build, "process ", other,
                  " is another build of this program than process ", rank);
    auto host = std::make_unique<Gloo>(store, rank, size);
    std::unique_ptr<Transport> device;
    if (gpu >= 0) {
      if (rank == 0) store->set("nccl", nccl_id());
      device = over_nccl(store->get_to_str("nccl"), rank, size, gpu);
    }
    team = new Team{static_cast<int>(rank), static_cast<int>(size), std::move(host), std::move(device)};
  });
}

extern "C" size_t caco_team_size() { return team_size(); }
extern "C" size_t caco_team_rank() { return team_rank(); }
extern "C" bool caco_team_lost() { return team && team->lost; }

extern "C" char *caco_team_sum(Tensor *const *tensors, size_t count) {
  return guarded([&] { sum_in_team(list(tensors, count)); });
}

// Each tensor with those of the other processes after or before it, along the first dimension.
extern "C" char *caco_team_gather(Tensor *const *tensors, size_t count, Tensor **results) {
  return guarded([&] {
    at::NoGradGuard guard;
    const std::vector<Tensor> all = gather_in_team(list(tensors, count));
    for (size_t i = 0; i < count; ++i) {
      std::vector<Tensor> of_all;
      for (size_t at = i; at < all.size(); at += count) of_all.push_back(all[at]);
      results[i] = new Tensor(at::cat(of_all));
    }
  });
}

// The largest of the processes' values.
extern "C" char *caco_team_most(double *value) {
  return guarded([&] {
    std::vector<double> one{*value};
    join_in_team(one, [](std::vector<double> &a, const std::vector<double> &b) { a[0] = std::max(a[0], b[0]); });
    *value = one[0];
  });
}
