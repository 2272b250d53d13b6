// Batch norm of a batch in shards on a GPU, over those of all processes, by the kernels of torch.nn.SyncBatchNorm (PyTorch's
// batch_norm_stats, batch_norm_gather_stats_with_counts, batch_norm_elemt, batch_norm_backward_reduce and
// batch_norm_backward_elemt). Each kernel sees one shard, and what joins shards does not depend on who computed them.

#include "bridge.h"

#include <ATen/ops/batch_norm_backward_elemt.h>
#include <ATen/ops/batch_norm_backward_reduce.h>
#include <ATen/ops/batch_norm_elemt.h>
#include <ATen/ops/batch_norm_gather_stats_with_counts.h>
#include <ATen/ops/batch_norm_stats.h>

#include <tuple>

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// Values per channel.
int64_t rows_of(const Tensor &x) { return x.numel() / x.size(1); }

// Mean and 1/σ of every shard of every process, [views, shards, 2, C].
Tensor of_all_shards(at::TensorList xs, int64_t shards) {
  std::vector<Tensor> own;
  for (const Tensor &x : xs) {
    const auto [mean, inverse] = at::batch_norm_stats(x, EPSILON);
    own.push_back(at::stack({mean, inverse}));
  }
  const Tensor stacked = at::stack(own);
  std::vector<int64_t> shape{static_cast<int64_t>(xs.size()) / shards, shards};
  const auto rest = stacked.sizes().slice(1);
  shape.insert(shape.end(), rest.begin(), rest.end());
  return at::cat(gather_in_team({stacked.view(shape)}), 1);
}

struct ShardsFunction : torch::autograd::Function<ShardsFunction> {
  static variable_list forward(AutogradContext *context, at::TensorList xs, const Tensor &weight, const Tensor &bias,
                               const Tensor &running_mean, const Tensor &running_variance, int64_t shards) {
    const Tensor all = of_all_shards(xs, shards);
    variable_list ys, saved{weight};
    for (int64_t view = 0; view < all.size(0); ++view) {
      const at::TensorList own = xs.slice(view * shards, shards);
      const Tensor of = all[view], counts = at::full({of.size(0)}, rows_of(own[0]), of.options());
      const auto [mean, inverse] = at::batch_norm_gather_stats_with_counts(
          own[0], of.select(1, 0), of.select(1, 1), running_mean, running_variance, MOMENTUM, EPSILON, counts);
      for (const Tensor &x : own) ys.push_back(at::batch_norm_elemt(x, weight, bias, mean, inverse, EPSILON));
      saved.insert(saved.end(), {mean, inverse});
    }
    saved.insert(saved.end(), xs.begin(), xs.end());
    context->save_for_backward(saved);
    context->saved_data["shards"] = shards;
    return ys;
  }

  static variable_list backward(AutogradContext *context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const int64_t shards = context->saved_data["shards"].toInt(), count = grads.size(), views = count / shards;
    const Tensor &weight = saved[0];
    const at::TensorList all = saved, xs = all.slice(1 + 2 * views);
    // Σg and Σg·(x − mean), [2, C], of each shard and then of each view.
    std::vector<Tensor> sums(count), of_views;
    for (int64_t i = 0; i < count; ++i) {
      const Tensor &mean = saved[1 + 2 * (i / shards)], &inverse = saved[2 + 2 * (i / shards)];
      grads[i] = grads[i].defined() ? grads[i].contiguous(xs[i].suggest_memory_format()) : at::zeros_like(xs[i]);
      const auto reduced = at::batch_norm_backward_reduce(grads[i], xs[i], mean, inverse, weight, true, false, false);
      sums[i] = at::stack({std::get<0>(reduced), std::get<1>(reduced)});
    }
    for (int64_t view = 0; view < views; ++view) {
      in_a_tree(shards, [&](int64_t a, int64_t b) { sums[view * shards + a].add_(sums[view * shards + b]); });
      of_views.push_back(sums[view * shards]);
    }
    sum_in_team(of_views);
    variable_list result;
    std::vector<Tensor> weights, biases;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t view = i / shards;
      const Tensor &mean = saved[1 + 2 * view], &inverse = saved[2 + 2 * view], &sum = of_views[view];
      const Tensor counts = at::full({shards * team_size()}, rows_of(xs[i]), sum.options().dtype(at::kInt));
      result.push_back(at::batch_norm_backward_elemt(grads[i], xs[i], mean, inverse, weight, sum[0], sum[1], counts));
      if (i % shards != 0) continue;
      weights.push_back(sum[1] * inverse);
      biases.push_back(sum[0]);
    }
    result.insert(result.end(), {last_to_first(weights), last_to_first(biases), Tensor(), Tensor(), Tensor()});
    return result;
  }
};

}  // namespace

std::vector<Tensor> norm_of_shards(at::TensorList xs, const Tensor &weight, const Tensor &bias, const Tensor &running_mean,
                                   const Tensor &running_variance, int64_t shards) {
  return ShardsFunction::apply(xs, weight, bias, running_mean, running_variance, shards);
}
