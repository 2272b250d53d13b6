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

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <map>
#include <string>

using at::Tensor;

namespace {

constexpr const char *HOST = "127.0.0.1";

// How long processes wait for one another at the start. Afterwards the first one may be busy with a checkpoint or an
// evaluation for as long as that takes; its own watchdog ends a step that hangs.
constexpr std::chrono::milliseconds START = std::chrono::minutes(5), LATER = std::chrono::hours(24 * 7);

class Gloo final : public Transport {
 public:
  Gloo(const c10::intrusive_ptr<c10d::Store> &store, int rank, int size)
      : rank(rank), up(connect(store, "up", rank, size)), down(connect(store, "down", rank, size)) {}

  void exchange(const std::vector<Exchange> &all, int other) override {
    int64_t total = 0;
    for (const Exchange &one : all) total += one.bytes;
    if (total == 0) return;
    total <= SMALL ? exchange_small(all, total, other) : exchange_large(all, other);
  }

 private:
  // What most exchanges do not exceed: statistics of batch norm.
  static constexpr int64_t SMALL = 1 << 16;
  static constexpr int SMALL_TAG = 0, LARGE_TAG = 1;

  // Where the next small message of another process arrives. Gloo sends nothing before the other side is ready to receive, so
  // this one always is: the process that comes last to an exchange does not wait.
  struct Box {
    Tensor memory = at::empty({SMALL}, at::kByte), mine = at::empty({SMALL}, at::kByte);
    c10::intrusive_ptr<c10d::Work> arrival;
  };

  static c10::intrusive_ptr<c10d::Backend> connect(const c10::intrusive_ptr<c10d::Store> &store, const char *name, int rank,
                                                   int size) {
    const auto options = c10d::ProcessGroupGloo::Options::create(START);
    options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(HOST));
    const auto own = c10::make_intrusive<c10d::PrefixStore>(name, store);
    const auto group = c10::make_intrusive<c10d::ProcessGroupGloo>(own, rank, size, options);
    group->setTimeout(LATER);
    return group;
  }

  const c10::intrusive_ptr<c10d::Backend> &to(int other) { return other > rank ? up : down; }
  const c10::intrusive_ptr<c10d::Backend> &from(int other) { return other > rank ? down : up; }

  static Tensor bytes(void *start, int64_t count) { return at::from_blob(start, {count}, at::kByte); }

  void await(Box &box, int other) {
    std::vector<Tensor> memory{box.memory};
    box.arrival = from(other)->recv(memory, other, SMALL_TAG);
  }

  void exchange_small(const std::vector<Exchange> &all, int64_t total, int other) {
    Box &box = boxes[other];
    if (!box.arrival) await(box, other);
    auto *packed = box.mine.mutable_data_ptr<uint8_t>();
    for (const Exchange &one : all) packed = std::copy_n(static_cast<const uint8_t *>(one.mine), one.bytes, packed);
    std::vector<Tensor> mine{box.mine.narrow(0, 0, total)};
    const auto sent = to(other)->send(mine, other, SMALL_TAG);
    box.arrival->wait(LATER);
    const auto *arrived = box.memory.const_data_ptr<uint8_t>();
    for (const Exchange &one : all) {
      std::copy_n(arrived, one.bytes, static_cast<uint8_t *>(one.theirs));
      arrived += one.bytes;
    }
    await(box, other);
    sent->wait(LATER);
  }

  void exchange_large(const std::vector<Exchange> &all, int other) {
    std::vector<c10::intrusive_ptr<c10d::Work>> works;
    for (const Exchange &one : all) {
      if (one.bytes == 0) continue;
      std::vector<Tensor> mine{bytes(one.mine, one.bytes)}, theirs{bytes(one.theirs, one.bytes)};
      works.push_back(to(other)->send(mine, other, LARGE_TAG));
      works.push_back(from(other)->recv(theirs, other, LARGE_TAG));
    }
    for (const auto &work : works) work->wait(LATER);
  }

  const int rank;
  // Messages to processes of higher and of lower numbers go through groups of their own: Gloo's thread spins while the
  // connection on which a message arrives is locked by a thread that sends.
  const c10::intrusive_ptr<c10d::Backend> up, down;
  std::map<int, Box> boxes;
};

struct Team {
  const int rank, size;
  const std::unique_ptr<Transport> host, gpu;
  // Whether an exchange has failed, because another process ended.
  std::atomic<bool> lost{false};
  // Time spent in exchanges on the host.
  std::chrono::steady_clock::duration spent{0};

  void exchange(bool on_host, const std::vector<Exchange> &all, int other) {
    const auto begun = std::chrono::steady_clock::now();
    try {
      TORCH_CHECK(on_host || gpu, "these processes compute on the CPU");
      (on_host ? host : gpu)->exchange(all, other);
    } catch (const std::exception &) {
      lost = true;
      throw;
    }
    spent += std::chrono::steady_clock::now() - begun;
  }
};

// Never destroyed: at the end of a process, others may still be connected.
Team *team = nullptr;
c10::intrusive_ptr<c10d::TCPStore> *server = nullptr;

// What `sum_later_in_team` was given.
std::vector<Tensor> partial_sums;

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

void sum_later_in_team(const Tensor &partial) {
  if (team_size() > 1) partial_sums.push_back(partial);
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
extern "C" double caco_team_seconds() { return team ? std::chrono::duration<double>(team->spent).count() : 0; }
extern "C" bool caco_team_lost() { return team && team->lost; }

extern "C" char *caco_team_sum(Tensor *const *tensors, size_t count) {
  return guarded([&] { sum_in_team(list(tensors, count)); });
}

extern "C" char *caco_team_sum_partial() {
  return guarded([&] {
    if (partial_sums.empty()) return;
    at::NoGradGuard guard;
    const std::vector<Tensor> partial = std::move(partial_sums);
    partial_sums.clear();
    // One exchange for each type, whatever the number of tensors.
    std::map<at::ScalarType, std::vector<Tensor>> by_type;
    for (const Tensor &tensor : partial) by_type[tensor.scalar_type()].push_back(tensor);
    for (const auto &[type, some] : by_type) {
      std::vector<Tensor> flat;
      std::vector<int64_t> sizes;
      for (const Tensor &tensor : some) {
        flat.push_back(tensor.reshape(-1));
        sizes.push_back(tensor.numel());
      }
      const Tensor all = at::cat(flat);
      sum_in_team({all});
      const std::vector<Tensor> sums = all.split_with_sizes(sizes);
      for (size_t i = 0; i < some.size(); ++i) some[i].copy_(sums[i].view(some[i].sizes()));
    }
  });
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
