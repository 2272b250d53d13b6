// Convolutions, products with a matrix and max-pools of all views of a batch, each in shards.
//
// A weight's gradient is summed here, over the views of each shard and then over shards in a fixed tree, whose upper levels
// are between processes. Autograd would add up those of one view after the other, which joins shards before views.

#include "bridge.h"

#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/mkldnn_convolution.h>

#include <tuple>

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// Whether oneDNN computes this, and not MKL, which libtorch prefers for matrices: it has other kernels for other vendors'
// CPUs, and those that it has for all are slow.
bool by_onednn(const Tensor &x) { return portable() && x.is_cpu() && x.scalar_type() == at::kFloat; }

constexpr std::array<int64_t, 2> ZERO{0, 0}, ONE{1, 1}, TWO{2, 2};

// The product of two matrices. For oneDNN it is a 1×1 convolution of an image with as many pixels as `a` has rows.
Tensor product(const Tensor &a, const Tensor &b) {
  if (!by_onednn(a)) return at::mm(a, b);
  const Tensor pixels = a.contiguous().view({1, a.size(0), 1, a.size(1)}).permute({0, 3, 1, 2});
  const Tensor filters = b.t().contiguous().view({b.size(1), b.size(0), 1, 1});
  return at::mkldnn_convolution(pixels, filters, {}, ZERO, ONE, ONE, 1).permute({0, 2, 3, 1}).view({a.size(0), b.size(1)});
}

// A layer with one weight.
class Layer {
 public:
  virtual ~Layer() = default;
  virtual Tensor forward(const Tensor &x, const Tensor &weight) const = 0;
  // The gradients of x, if it needs one, and of the weight.
  virtual std::pair<Tensor, Tensor> backward(const Tensor &dy, const Tensor &x, const Tensor &weight) const = 0;
};

class Convolution final : public Layer {
 public:
  Convolution(int64_t stride, int64_t padding) : stride{stride, stride}, padding{padding, padding} {}

  Tensor forward(const Tensor &x, const Tensor &weight) const override {
    return at::convolution(x, weight, {}, stride, padding, dilation(x, weight), false, ZERO, 1);
  }

  std::pair<Tensor, Tensor> backward(const Tensor &dy, const Tensor &x, const Tensor &weight) const override {
    const std::array<bool, 3> wanted{x.requires_grad(), true, false};
    const auto all = at::convolution_backward(dy, x, weight, {}, stride, padding, dilation(x, weight), false, ZERO, 1, wanted);
    return {std::get<0>(all), std::get<1>(all)};
  }

 private:
  // libtorch gives 1×1 convolutions of few images to MKL if there is one thread, unless they are strided or dilated
  // (ConvParams::use_mkldnn); for one pixel the latter changes nothing. Where that rule changes, portable results do.
  static at::IntArrayRef dilation(const Tensor &x, const Tensor &weight) {
    return by_onednn(x) && weight.size(2) == 1 && weight.size(3) == 1 ? TWO : ONE;
  }

  const std::array<int64_t, 2> stride, padding;
};

// x · weightᵀ
class Linear final : public Layer {
  Tensor forward(const Tensor &x, const Tensor &weight) const override { return product(x, weight.t()); }

  std::pair<Tensor, Tensor> backward(const Tensor &dy, const Tensor &x, const Tensor &weight) const override {
    return {x.requires_grad() ? product(dy, weight) : Tensor(), product(dy.t(), x)};
  }
};

std::vector<Tensor> forward(at::TensorList xs, const Tensor &weight, const Layer &layer) {
  std::vector<Tensor> ys(xs.size());
  each(xs.size(), [&](int64_t i) { ys[i] = layer.forward(xs[i], weight); });
  return ys;
}

// Gradients of every x, then of the weight. Where `whole`, each process has the xs of all processes.
variable_list backward(const variable_list &dys, at::TensorList xs, const Tensor &weight, const Layer &layer,
                       int64_t shards, bool whole) {
  variable_list result(xs.size() + 1);
  std::vector<Tensor> sums(shards);
  each(shards, [&](int64_t shard) {
    for (int64_t i = xs.size() - shards + shard; i >= 0; i -= shards) {
      if (!dys[i].defined()) continue;
      auto [dx, dw] = layer.backward(dys[i], xs[i], weight);
      result[i] = dx;
      sums[shard] = sums[shard].defined() ? sums[shard].add_(dw) : dw;
    }
  });
  in_a_tree(shards, [&](int64_t a, int64_t b) {
    if (sums[b].defined()) sums[a] = sums[a].defined() ? sums[a].add_(sums[b]) : sums[b];
  });
  if (sums[0].defined() && !whole) {
    // A weight of low precision was converted from a parameter, and so is its gradient before the backward pass ends.
    at::isReducedFloatingType(weight.scalar_type()) ? sum_in_team({sums[0]}) : sum_later_in_team(sums[0]);
  }
  result.back() = sums[0];
  return result;
}

struct LayerFunction : torch::autograd::Function<LayerFunction> {
  static variable_list forward(AutogradContext *context, at::TensorList xs, const Tensor &weight,
                               const std::shared_ptr<const Layer> &layer, int64_t shards, bool whole) {
    variable_list saved{weight};
    saved.insert(saved.end(), xs.begin(), xs.end());
    context->save_for_backward(saved);
    context->saved_data["shards"] = shards;
    context->saved_data["whole"] = whole;
    context->saved_data["layer"] = c10::IValue::make_capsule(c10::make_intrusive<Held>(layer));
    return ::forward(xs, weight, *layer);
  }

  static variable_list backward(AutogradContext *context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const auto held = c10::static_intrusive_pointer_cast<Held>(context->saved_data["layer"].toCapsule());
    const at::TensorList all = saved;
    const int64_t shards = context->saved_data["shards"].toInt();
    const bool whole = context->saved_data["whole"].toBool();
    variable_list result = ::backward(grads, all.slice(1), saved[0], *held->layer, shards, whole);
    result.resize(result.size() + 3);  // layer, shards and whole have none
    return result;
  }

 private:
  struct Held : torch::CustomClassHolder {
    explicit Held(std::shared_ptr<const Layer> layer) : layer(std::move(layer)) {}
    const std::shared_ptr<const Layer> layer;
  };
};

std::vector<Tensor> apply(const std::vector<Tensor> &xs, const Tensor &weight, std::shared_ptr<const Layer> layer,
                          size_t shards, bool whole = false) {
  TORCH_CHECK(!xs.empty() && xs.size() % shards == 0, xs.size(), " tensors in ", shards, " shards");
  if (!at::GradMode::is_enabled()) return forward(xs, weight, *layer);
  return LayerFunction::apply(at::TensorList(xs), weight, layer, static_cast<int64_t>(shards), whole);
}

// A max-pool of windows of 3 × 3 at stride 2, padded by 1.
struct PoolFunction : torch::autograd::Function<PoolFunction> {
  static constexpr std::array<int64_t, 2> WINDOW{3, 3}, STRIDE{2, 2}, PADDING{1, 1}, DILATION{1, 1};

  static variable_list forward(AutogradContext *context, at::TensorList xs) {
    variable_list ys(xs.size()), saved(2 * xs.size());
    each(xs.size(), [&](int64_t i) {
      saved[2 * i] = xs[i];
      std::tie(ys[i], saved[2 * i + 1]) = at::max_pool2d_with_indices(xs[i], WINDOW, STRIDE, PADDING, DILATION);
    });
    context->save_for_backward(saved);
    return ys;
  }

  static variable_list backward(AutogradContext *context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    variable_list result(grads.size());
    each(grads.size(), [&](int64_t i) {
      if (!grads[i].defined()) return;
      result[i] = at::max_pool2d_with_indices_backward(grads[i], saved[2 * i], WINDOW, STRIDE, PADDING, DILATION, false,
                                                       saved[2 * i + 1]);
    });
    return result;
  }
};

}  // namespace

extern "C" char *caco_convolve(Tensor *const *xs, size_t count, size_t shards, const Tensor *weight, int64_t stride,
                               int64_t padding, Tensor **results) {
  return guarded([&] {
    give(apply(list(xs, count), *weight, std::make_shared<Convolution>(stride, padding), shards), results);
  });
}

extern "C" char *caco_linear(Tensor *const *xs, size_t count, size_t shards, const Tensor *weight, Tensor **results) {
  return guarded([&] { give(apply(list(xs, count), *weight, std::make_shared<Linear>(), shards), results); });
}

extern "C" char *caco_whole_linear(const Tensor *x, const Tensor *weight, Tensor **result) {
  return guarded([&] { give(apply({*x}, *weight, std::make_shared<Linear>(), 1, true), result); });
}

extern "C" char *caco_pool(Tensor *const *xs, size_t count, Tensor **results) {
  return guarded([&] { give(PoolFunction::apply(at::TensorList(list(xs, count))), results); });
}

extern "C" char *caco_product(const Tensor *a, const Tensor *b, Tensor **result) {
  return guarded([&] {
    at::NoGradGuard guard;
    *result = new Tensor(product(*a, *b));
  });
}
