// Functions of libtorch that training needs and the `tch` crate does not bind. They are documented in mod.rs.
//
// Tensors arrive as `torch::Tensor *`, as in torch-sys.

#include "bridge.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <vector>

using at::Tensor;

namespace {

// Whether the tensors are dense and have the same memory layout.
bool alike(const Tensor &a, const Tensor &b) {
  return a.is_non_overlapping_and_dense() && a.strides() == b.strides() && a.scalar_type() == b.scalar_type();
}

// The tensors of a list, cut into pieces of a fixed size, so that threads share the work evenly and sums do not depend
// on the number of threads.
struct Piece {
  size_t tensor;
  int64_t begin, end;
};

std::vector<Piece> pieces(const std::vector<Tensor> &tensors) {
  constexpr int64_t SIZE = 1 << 15;
  std::vector<Piece> result;
  for (size_t t = 0; t < tensors.size(); ++t)
    for (int64_t i = 0; i < tensors[t].numel(); i += SIZE)
      result.push_back({t, i, std::min(i + SIZE, tensors[t].numel())});
  return result;
}

template <typename F>
void for_each_piece(const std::vector<Piece> &all, F &&body) {
  at::parallel_for(0, all.size(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i, all[i]);
  });
}

struct Lars {
  double rate, momentum, decay, trust;
};

struct Sums {
  double parameter = 0, gradient = 0, decayed = 0;
};

// Sums four terms side by side, so that the order does not depend on how a compiler makes vectors of a loop.
typedef double Four __attribute__((vector_size(32)));

inline double total(Four sum) { return (sum[0] + sum[2]) + (sum[1] + sum[3]); }

template <typename T>
Sums squares(const T *p, const T *g, int64_t begin, int64_t end, T decay) {
  Four parameter{}, gradient{}, decayed{};
  int64_t i = begin;
  for (; i + 4 <= end; i += 4) {
    Four x, y, z;
    for (int lane = 0; lane < 4; ++lane) {
      x[lane] = p[i + lane];
      y[lane] = g[i + lane];
      z[lane] = static_cast<T>(g[i + lane] + decay * p[i + lane]);
    }
    parameter += x * x;
    gradient += y * y;
    decayed += z * z;
  }
  Sums sums{total(parameter), total(gradient), total(decayed)};
  for (; i < end; ++i) {
    const double x = p[i], y = g[i], z = static_cast<T>(g[i] + decay * p[i]);
    sums.parameter += x * x;
    sums.gradient += y * y;
    sums.decayed += z * z;
  }
  return sums;
}

template <typename T>
void descend(T *p, const T *g, T *m, int64_t begin, int64_t end, T decay, T scale, T momentum, T rate) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    m[i] = momentum * m[i] + scale * (g[i] + decay * p[i]);
    p[i] -= rate * m[i];
  }
}

// LARS in two passes over the memory instead of seven. Returns the norm of the gradient.
template <typename T>
double lars_fused(std::vector<Tensor> &params, std::vector<Tensor> &grads, std::vector<Tensor> &momenta, Lars s) {
  const size_t count = params.size();
  std::vector<T *> p(count), m(count);
  std::vector<const T *> g(count);
  for (size_t i = 0; i < count; ++i) {
    p[i] = params[i].data_ptr<T>();
    g[i] = grads[i].const_data_ptr<T>();
    m[i] = momenta[i].data_ptr<T>();
  }
  auto decay = [&](size_t i) { return params[i].dim() > 1 ? s.decay : 0.0; };
  const auto all = pieces(params);
  std::vector<Sums> partial(all.size());
  for_each_piece(all, [&](int64_t i, const Piece &c) {
    partial[i] = squares<T>(p[c.tensor], g[c.tensor], c.begin, c.end, decay(c.tensor));
  });
  std::vector<Sums> sums(count);
  double total = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    Sums &sum = sums[all[i].tensor];
    sum.parameter += partial[i].parameter;
    sum.decayed += partial[i].decayed;
    total += partial[i].gradient;
  }
  for_each_piece(all, [&](int64_t, const Piece &c) {
    const size_t i = c.tensor;
    const double pn = std::sqrt(sums[i].parameter), gn = std::sqrt(sums[i].decayed);
    const double scale = params[i].dim() > 1 && pn > 0 && gn > 0 ? s.trust * pn / gn : 1.0;
    descend<T>(p[i], g[i], m[i], c.begin, c.end, decay(i), scale, s.momentum, s.rate);
  });
  return std::sqrt(total);
}

// LARS with libtorch's multi-tensor operations: a few launches on a GPU, whatever the number of tensors.
Tensor lars_foreach(std::vector<Tensor> &params, std::vector<Tensor> &grads, std::vector<Tensor> &momenta, Lars s) {
  const Tensor norm = at::stack(at::_foreach_norm(grads)).norm();
  std::vector<Tensor> matrices, matrix_grads;
  for (size_t i = 0; i < params.size(); ++i) {
    if (params[i].dim() <= 1) continue;
    matrices.push_back(params[i]);
    matrix_grads.push_back(grads[i]);
  }
  if (!matrices.empty()) {
    at::_foreach_add_(matrix_grads, matrices, s.decay);
    const Tensor pn = at::stack(at::_foreach_norm(matrices)), gn = at::stack(at::_foreach_norm(matrix_grads));
    const Tensor scale = at::where((pn > 0).logical_and(gn > 0), s.trust * pn / gn, at::ones_like(pn));
    at::_foreach_mul_(matrix_grads, scale.unbind());
  }
  at::_foreach_mul_(momenta, s.momentum);
  at::_foreach_add_(momenta, grads);
  at::_foreach_add_(params, momenta, -s.rate);
  return norm;
}

}  // namespace

extern "C" {

const char *caco_version() { return TORCH_VERSION; }

char *caco_deterministic(bool yes) {
  return guarded([&] {
    auto &context = at::globalContext();
    context.setDeterministicAlgorithms(yes, false);
    // Enabled by default with the above; it would write every new tensor twice.
    context.setDeterministicFillUninitializedMemory(false);
    context.setDeterministicCuDNN(yes);
    context.setBenchmarkCuDNN(false);
    // F32 must not be computed in TF32.
    context.setAllowTF32CuDNN(false);
    context.setAllowTF32CuBLAS(false);
  });
}

char *caco_lars(Tensor *const *params, Tensor *const *grads, Tensor *const *momenta, size_t count, double rate,
                double momentum, double decay, double trust, Tensor **norm) {
  return guarded([&] {
    torch::NoGradGuard guard;
    auto p = list(params, count), g = list(grads, count), m = list(momenta, count);
    const Lars settings{rate, momentum, decay, trust};
    bool fused = !p.empty() && p[0].is_cpu();
    for (size_t i = 0; i < count && fused; ++i) {
      TORCH_CHECK(alike(p[i], m[i]), "a LARS momentum has another memory layout than its parameter");
      if (!alike(p[i], g[i])) g[i] = at::empty_like(p[i]).copy_(g[i]);
    }
    if (fused && p[0].scalar_type() == at::kFloat) {
      *norm = new Tensor(at::scalar_tensor(lars_fused<float>(p, g, m, settings), at::kFloat));
    } else if (fused && p[0].scalar_type() == at::kDouble) {
      *norm = new Tensor(at::scalar_tensor(lars_fused<double>(p, g, m, settings), at::kDouble));
    } else {
      *norm = new Tensor(lars_foreach(p, g, m, settings));
    }
  });
}

char *caco_average(Tensor *const *averages, Tensor *const *values, size_t count, double weight) {
  return guarded([&] {
    torch::NoGradGuard guard;
    at::_foreach_lerp_(list(averages, count), list(values, count), weight);
  });
}

}  // extern "C"
