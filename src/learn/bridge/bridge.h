// Shared by the files of the bridge.
#pragma once

#include <torch/torch.h>

#include <cstring>
#include <functional>
#include <vector>

// A C++ exception must not reach Rust: it becomes a string that the caller frees, or null on success.
template <typename F>
char *guarded(F &&body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error &error) {
    return strdup(error.what_without_backtrace());
  } catch (const std::exception &error) {
    return strdup(error.what());
  }
}

inline std::vector<at::Tensor> list(at::Tensor *const *tensors, size_t count) {
  std::vector<at::Tensor> result;
  result.reserve(count);
  for (size_t i = 0; i < count; ++i) result.push_back(*tensors[i]);
  return result;
}

// Hands tensors to the caller, who frees them.
inline void give(const std::vector<at::Tensor> &tensors, at::Tensor **results) {
  for (const at::Tensor &tensor : tensors) *results++ = new at::Tensor(tensor);
}

// Whether results must not depend on the machine: see portable.rs.
bool portable();

// Calls `body` with 0 to count − 1, without autograd: on the threads of the crew if results must be portable, otherwise
// one after the other.
void each(int64_t count, const std::function<void(int64_t)> &body);

// Joins `count` values pairwise into the first, nearest neighbours first: `join(a, b)` takes value b into value a.
template <typename F>
void in_a_tree(int64_t count, const F &join) {
  for (int64_t step = 1; step < count; step *= 2)
    for (int64_t i = 0; i + step < count; i += 2 * step) join(i, i + step);
}

// ---- The team (team.cpp): processes that train together, each with neighbouring shards of every batch. Without one, a
// process is a team of itself. All of them must call these functions in the same order.

// The number of processes, and that of this one, from 0.
int64_t team_size();
int64_t team_rank();

// Joins the values of all processes pairwise, nearest neighbours first, so that every process has what is joined:
// `join(a, b)` takes b, which belongs to the shards that follow, into a.
using Join = std::function<void(std::vector<double> &a, const std::vector<double> &b)>;
void join_in_team(std::vector<double> &values, const Join &join);

// Adds up the tensors of all processes in the same order: each becomes the sum.
void sum_in_team(const std::vector<at::Tensor> &tensors);

// The same, when the backward pass is done: the gradients of all weights are exchanged together (caco_team_sum_partial). Until
// then autograd may only hand them on.
void sum_later_in_team(const at::Tensor &partial);

// The tensors of all processes, which have the same shapes and layouts: those of the first, then those of the next.
std::vector<at::Tensor> gather_in_team(at::TensorList own);

// ---- Batch norm (norm.cpp, norm_shards.cpp).

constexpr double EPSILON = 1e-5, MOMENTUM = 0.1;  // PyTorch's defaults

// Batch norm in training on a GPU, of views in as many shards in this process, over those of all processes.
std::vector<at::Tensor> norm_of_shards(at::TensorList xs, const at::Tensor &weight, const at::Tensor &bias,
                                       const at::Tensor &running_mean, const at::Tensor &running_variance, int64_t shards);

// ---- Recomputed parts (recompute.cpp).

// What `compute` gives. When a part of a network is recomputed, it is what it gave in the first pass.
std::vector<double> once_in_a_part(const std::function<std::vector<double>()> &compute);

// The sum of tensors from the last to the first, as autograd adds up the gradients of a weight used several times.
inline at::Tensor last_to_first(const std::vector<at::Tensor> &terms) {
  at::Tensor sum = terms.back();
  for (size_t i = terms.size() - 1; i-- > 0;) sum = sum + terms[i];
  return sum;
}
