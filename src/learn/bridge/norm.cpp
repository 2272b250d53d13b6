// Batch norm fused with the operations that follow it: addition of a shortcut, and a ReLU.
//
// libtorch reads a tensor twice for its statistics, once more to normalise it, again to add the shortcut and again for
// the ReLU, and as often in the backward pass: on a CPU a fifth of a training step. Here statistics take one read and
// everything else another; likewise in the backward pass. Sums are taken over pieces of a fixed size, which are added
// up in order, so they do not depend on the number of threads.
//
// A norm sees all views of a batch, each in shards. Every view has statistics of its own, over all its shards: those
// of the shards are joined in a fixed tree, whose upper levels are between processes.

#include <ATen/Parallel.h>

#include <cmath>
#include <vector>

#include "bridge.h"
#include "norm_kernels.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// The kernels that this stage uses.
#define CHOOSE(NAME)              \
  template <typename... Arguments> \
  void NAME(Arguments... a) {      \
    portable() ? exact::NAME(a...) : fast::NAME(a...); \
  }
CHOOSE(moments)
CHOOSE(products)
CHOOSE(forward)
CHOOSE(backward)
#undef CHOOSE

// Rows per piece: 32 K numbers, few enough for the cache of a core, many enough to be worth a call.
int64_t piece(Rows rows) { return std::max<int64_t>(4, (1 << 15) / rows.channels); }

template <typename F>
void for_each_piece(Rows rows, const F &body) {
  const int64_t size = piece(rows), count = (rows.count + size - 1) / size;
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i, i * size, std::min(size, rows.count - i * size));
  });
}

Rows rows_of(const Tensor &x) { return {x.numel() / x.size(1), x.size(1)}; }

at::MemoryFormat format(const Tensor &x) {
  return x.dim() == 4 ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
}

// Two sums per channel of every piece.
template <typename T, typename F>
void sum_pieces(Rows rows, const F &body, std::vector<Acc<T>> &first, std::vector<Acc<T>> &second) {
  const int64_t size = piece(rows), count = (rows.count + size - 1) / size;
  first.resize(count * rows.channels);
  second.resize(count * rows.channels);
  for_each_piece(rows, [&](int64_t i, int64_t begin, int64_t length) {
    body(begin, Rows{length, rows.channels}, &first[i * rows.channels], &second[i * rows.channels]);
  });
}

// Mean per channel of `count` rows, and the sum of the squared distances from it.
struct Moments {
  double count = 0;
  std::vector<double> mean, squares;

  // Takes in the rows that follow (Chan, Golub and LeVeque 1983).
  void join(const Moments &next) {
    const double share = next.count / (count + next.count);
    for (size_t c = 0; c < mean.size(); ++c) {
      const double apart = next.mean[c] - mean[c];
      mean[c] += apart * share;
      squares[c] += next.squares[c] + apart * apart * count * share;
    }
    count += next.count;
  }

  // As consecutive numbers, which processes exchange.
  void write(std::vector<double> &to) const {
    to.push_back(count);
    to.insert(to.end(), mean.begin(), mean.end());
    to.insert(to.end(), squares.begin(), squares.end());
  }
  static size_t length(size_t channels) { return 1 + 2 * channels; }
  static Moments read(const double *from, size_t channels) {
    const double *mean = from + 1, *squares = mean + channels, *end = squares + channels;
    return {*from, {mean, squares}, {squares, end}};
  }
};

// Mean and variance per channel; the variance is the biased one.
struct Statistics {
  std::vector<double> mean, variance;

  explicit Statistics(Moments m) : mean(std::move(m.mean)), variance(std::move(m.squares)) {
    for (double &v : variance) v = std::max(0.0, v / m.count);
  }
  Statistics(std::vector<double> mean, std::vector<double> variance)
      : mean(std::move(mean)), variance(std::move(variance)) {}
};

template <typename T>
Moments moments_of(const T *x, Rows rows) {
  std::vector<Acc<T>> sum, square;
  const auto body = [&](int64_t begin, Rows part, Acc<T> *a, Acc<T> *b) {
    moments(x + begin * rows.channels, part, a, b);
  };
  sum_pieces<T>(rows, body, sum, square);
  Moments total{0, std::vector<double>(rows.channels), std::vector<double>(rows.channels)};
  const int64_t size = piece(rows);
  for (int64_t begin = 0, i = 0; begin < rows.count; begin += size, ++i) {
    const double before = begin, length = std::min(size, rows.count - begin);
    for (int64_t c = 0; c < rows.channels; ++c) {
      const double s = sum[i * rows.channels + c], q = square[i * rows.channels + c];
      const double mean = static_cast<double>(x[begin * rows.channels + c]) + s / length;
      const double apart = mean - total.mean[c];
      total.mean[c] += apart * length / (before + length);
      total.squares[c] += q - s * s / length + apart * apart * before * length / (before + length);
    }
  }
  total.count = rows.count;
  return total;
}

// The scale and shift that normalise with these statistics.
template <typename A>
void affine(const Statistics &s, const Tensor &weight, const Tensor &bias, A *scale, A *shift) {
  const A *w = weight.const_data_ptr<A>(), *b = bias.const_data_ptr<A>();
  for (size_t c = 0; c < s.mean.size(); ++c) {
    const double factor = w[c] / std::sqrt(s.variance[c] + EPSILON);
    scale[c] = factor;
    shift[c] = b[c] - s.mean[c] * factor;
  }
}

template <typename A>
void move_running(const Statistics &s, double rows, Tensor &mean, Tensor &variance) {
  A *m = mean.data_ptr<A>(), *v = variance.data_ptr<A>();
  const double unbiased = rows / (rows - 1);
  for (size_t c = 0; c < s.mean.size(); ++c) {
    m[c] = (1 - MOMENTUM) * m[c] + MOMENTUM * s.mean[c];
    v[c] = (1 - MOMENTUM) * v[c] + MOMENTUM * s.variance[c] * unbiased;
  }
}

template <typename A>
Statistics running(const Tensor &mean, const Tensor &variance) {
  const A *m = mean.const_data_ptr<A>(), *v = variance.const_data_ptr<A>();
  return {std::vector<double>(m, m + mean.numel()), std::vector<double>(v, v + variance.numel())};
}

struct Norm {
  Tensor weight, bias, mean, variance;
  bool train;
  Then then;
  // Shards per view.
  int64_t shards;
};

// Calls `body` with a value of x's type.
template <typename F>
void with_type(const Tensor &x, const F &body) {
  switch (x.scalar_type()) {
    case at::kFloat: return body(float{});
    case at::kDouble: return body(double{});
    default: return body(at::BFloat16{});
  }
}

// The moments of every view, over the shards of all processes; written one after the other.
template <typename T>
std::vector<double> joined_moments(at::TensorList xs, int64_t shards) {
  const size_t channels = xs[0].size(1), length = Moments::length(channels);
  std::vector<Moments> all(xs.size());
  each(xs.size(), [&](int64_t i) { all[i] = moments_of(xs[i].const_data_ptr<T>(), rows_of(xs[i])); });
  std::vector<double> joined;
  for (size_t first = 0; first < all.size(); first += shards) {
    in_a_tree(shards, [&](int64_t a, int64_t b) { all[first + a].join(all[first + b]); });
    all[first].write(joined);
  }
  join_in_team(joined, [&](std::vector<double> &a, const std::vector<double> &b) {
    std::vector<double> both;
    for (size_t at = 0; at < a.size(); at += length) {
      Moments moments = Moments::read(&a[at], channels);
      moments.join(Moments::read(&b[at], channels));
      moments.write(both);
    }
    a = both;
  });
  return joined;
}

// The statistics of every view. In training they move the running ones.
template <typename T>
std::vector<Statistics> statistics(at::TensorList xs, Norm &norm) {
  const size_t views = xs.size() / norm.shards, channels = xs[0].size(1);
  if (!norm.train) return std::vector<Statistics>(views, running<Acc<T>>(norm.mean, norm.variance));
  const std::vector<double> joined = once_in_a_part([&] { return joined_moments<T>(xs, norm.shards); });
  std::vector<Statistics> result;
  for (size_t view = 0; view < views; ++view) {
    Moments moments = Moments::read(&joined[view * Moments::length(channels)], channels);
    const double rows = moments.count;
    result.emplace_back(std::move(moments));
    move_running<Acc<T>>(result.back(), rows, norm.mean, norm.variance);
  }
  return result;
}

// Normalises every x into its y, which may be x. Returns mean, scale and shift per view and channel, [views, 3, C].
Tensor run(at::TensorList xs, at::TensorList adds, std::vector<Tensor> &ys, Norm &norm) {
  const int64_t views = xs.size() / norm.shards, n = xs[0].size(1);
  Tensor saved = at::empty({views, 3, n}, norm.weight.options().requires_grad(false));
  with_type(xs[0], [&](auto type) {
    using T = decltype(type);
    const std::vector<Statistics> all = statistics<T>(xs, norm);
    for (int64_t view = 0; view < views; ++view) {
      const Statistics &s = all[view];
      Acc<T> *mean = saved[view].mutable_data_ptr<Acc<T>>();
      std::copy(s.mean.begin(), s.mean.end(), mean);
      affine(s, norm.weight, norm.bias, mean + n, mean + 2 * n);
    }
    const Acc<T> *affines = saved.const_data_ptr<Acc<T>>();
    each(xs.size(), [&](int64_t number) {
      const T *from = xs[number].const_data_ptr<T>();
      const T *plus = adds.empty() ? nullptr : adds[number].const_data_ptr<T>();
      T *to = ys[number].mutable_data_ptr<T>();
      const Acc<T> *scale = affines + (3 * (number / norm.shards) + 1) * n;
      for_each_piece(rows_of(xs[number]), [&](int64_t, int64_t begin, int64_t count) {
        const int64_t i = begin * n;
        forward(norm.then, from + i, plus ? plus + i : nullptr, to + i, Rows{count, n}, scale, scale + n);
      });
    });
  });
  return saved;
}

struct Gradients {
  std::vector<Tensor> xs, adds;
  Tensor weight, bias;
};

// Per channel, the sums of g and of g · (x − mean).
struct Sums {
  std::vector<double> gradient, product;

  void join(const Sums &next) {
    for (size_t c = 0; c < gradient.size(); ++c) {
      gradient[c] += next.gradient[c];
      product[c] += next.product[c];
    }
  }
};

// Adds up the sums of all processes. `stride` of them belong to a view, and its first ones are over all its shards.
void join_sums(std::vector<Sums> &all, int64_t stride) {
  if (team_size() == 1) return;
  std::vector<double> numbers;
  for (size_t i = 0; i < all.size(); i += stride)
    for (const auto *some : {&all[i].gradient, &all[i].product}) numbers.insert(numbers.end(), some->begin(), some->end());
  join_in_team(numbers, [](std::vector<double> &a, const std::vector<double> &b) {
    for (size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  });
  auto next = numbers.begin();
  for (size_t i = 0; i < all.size(); i += stride) {
    for (auto *some : {&all[i].gradient, &all[i].product}) {
      std::copy(next, next + some->size(), some->begin());
      next += some->size();
    }
  }
}

// One x of a backward pass, with the gradient of its y. `kept` receives the masked gradient if there is an addition.
template <typename T>
struct Part {
  Rows rows;
  const T *x, *dy, *y;
  T *kept, *dx;
  Saved<T> saved;

  Sums sums(Then then) const {
    std::vector<Acc<T>> first, second;
    const auto body = [&](int64_t begin, Rows piece, Acc<T> *a, Acc<T> *b) {
      const int64_t i = begin * rows.channels;
      products(then, x + i, dy + i, y ? y + i : nullptr, kept ? kept + i : nullptr, piece, saved, a, b);
    };
    sum_pieces<T>(rows, body, first, second);
    Sums total{std::vector<double>(rows.channels), std::vector<double>(rows.channels)};
    for (size_t i = 0; i < first.size(); ++i) {
      total.gradient[i % rows.channels] += first[i];
      total.product[i % rows.channels] += second[i];
    }
    return total;
  }

  void finish(Then then, const Acc<T> *slope, const Acc<T> *offset) const {
    const T *in = kept ? kept : dy;
    for_each_piece(rows, [&](int64_t, int64_t begin, int64_t count) {
      const int64_t i = begin * rows.channels;
      backward(then, x + i, in + i, dx + i, Rows{count, rows.channels}, saved, slope, offset);
    });
  }
};

// What a view's gradients of weight and bias are, and how its dx follows: slope and offset per channel.
template <typename A>
struct Solution {
  std::vector<A> slope, offset;

  Solution(const Sums &sums, double rows, const A *w, const A *mean, const A *scale, A *dw, A *db)
      : slope(sums.gradient.size()), offset(sums.gradient.size()) {
    for (size_t c = 0; c < slope.size(); ++c) {
      const double sum = sums.gradient[c], dot = sums.product[c];
      // 1/σ = scale / weight, but a weight may be 0: then the gradient is 0 anyway.
      const double inverse = w[c] != 0 ? scale[c] / static_cast<double>(w[c]) : 0;
      const double k = -scale[c] * inverse * inverse * dot / rows;
      dw[c] = inverse * dot;
      db[c] = sum;
      slope[c] = k;
      offset[c] = -k * mean[c] - scale[c] * sum / rows;
    }
  }
};

// The backward pass through a norm in training. `ys` are given if there is an addition.
Gradients run_back(at::TensorList xs, const std::vector<Tensor> &dys, at::TensorList ys, const Tensor &weight,
                   const Tensor &saved, Then then, int64_t shards) {
  const int64_t views = xs.size() / shards, n = xs[0].size(1);
  Gradients g;
  for (const Tensor &x : xs) {
    g.xs.push_back(at::empty_like(x));
    if (then == Then::AddRelu) g.adds.push_back(at::empty_like(x));
  }
  const Tensor dw = at::empty({views, n}, weight.options().requires_grad(false)), db = at::empty_like(dw);
  with_type(xs[0], [&](auto type) {
    using T = decltype(type);
    using A = Acc<T>;
    std::vector<Part<T>> parts;
    for (size_t i = 0; i < xs.size(); ++i) {
      const A *mean = saved[i / shards].const_data_ptr<A>();
      parts.push_back({rows_of(xs[i]), xs[i].const_data_ptr<T>(), dys[i].const_data_ptr<T>(),
                       ys.empty() ? nullptr : ys[i].const_data_ptr<T>(),
                       g.adds.empty() ? nullptr : g.adds[i].mutable_data_ptr<T>(), g.xs[i].mutable_data_ptr<T>(),
                       {mean, mean + n, mean + 2 * n}});
    }
    std::vector<Sums> sums(parts.size());
    each(parts.size(), [&](int64_t i) { sums[i] = parts[i].sums(then); });
    for (int64_t first = 0; first < static_cast<int64_t>(sums.size()); first += shards)
      in_a_tree(shards, [&](int64_t a, int64_t b) { sums[first + a].join(sums[first + b]); });
    join_sums(sums, shards);
    std::vector<Solution<A>> solutions;
    for (int64_t view = 0; view < views; ++view) {
      double rows = 0;
      for (int64_t s = 0; s < shards; ++s) rows += parts[view * shards + s].rows.count;
      const Saved<T> of = parts[view * shards].saved;
      solutions.emplace_back(sums[view * shards], rows * team_size(), weight.const_data_ptr<A>(), of.mean, of.scale,
                             dw[view].mutable_data_ptr<A>(), db[view].mutable_data_ptr<A>());
    }
    each(parts.size(), [&](int64_t i) {
      const Solution<A> &solution = solutions[i / shards];
      parts[i].finish(then, solution.slope.data(), solution.offset.data());
    });
  });
  g.weight = last_to_first(dw.unbind());
  g.bias = last_to_first(db.unbind());
  return g;
}

struct NormFunction : torch::autograd::Function<NormFunction> {
  static variable_list forward(AutogradContext *context, at::TensorList xs, at::TensorList adds, const Tensor &weight,
                               const Tensor &bias, Norm *norm) {
    std::vector<Tensor> ys;
    for (const Tensor &x : xs) ys.push_back(at::empty_like(x));
    variable_list saved{weight, run(xs, adds, ys, *norm)};
    saved.insert(saved.end(), xs.begin(), xs.end());
    if (norm->then == Then::AddRelu) saved.insert(saved.end(), ys.begin(), ys.end());
    context->save_for_backward(saved);
    context->saved_data["then"] = static_cast<int64_t>(norm->then);
    context->saved_data["shards"] = norm->shards;
    return ys;
  }

  static variable_list backward(AutogradContext *context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const size_t count = grads.size();
    const at::TensorList all = saved, xs = all.slice(2, count), ys = all.slice(2 + count);
    for (size_t i = 0; i < count; ++i)
      grads[i] = grads[i].defined() ? grads[i].contiguous(format(xs[i])) : at::zeros_like(xs[i]);
    const auto then = static_cast<Then>(context->saved_data["then"].toInt());
    Gradients g = run_back(xs, grads, ys, saved[0], saved[1], then, context->saved_data["shards"].toInt());
    variable_list result = std::move(g.xs);
    result.insert(result.end(), g.adds.begin(), g.adds.end());
    result.insert(result.end(), {g.weight, g.bias, Tensor()});
    return result;
  }
};

// Whether the kernels above apply: on the CPU, full vectors of channels, a supported type.
bool taken(const Tensor &x, const Tensor &weight) {
  const auto type = x.scalar_type();
  const bool known = type == at::kFloat || type == at::kDouble || type == at::kBFloat16;
  const auto wanted = type == at::kDouble ? at::kDouble : at::kFloat;
  return x.is_cpu() && known && weight.scalar_type() == wanted && x.size(1) % (type == at::kDouble ? 8 : 16) == 0;
}

// The same in training on a GPU, for a batch in shards.
std::vector<Tensor> composed_of_shards(at::TensorList xs, at::TensorList adds, const Norm &norm) {
  std::vector<Tensor> ys = norm_of_shards(xs, norm.weight, norm.bias, norm.mean, norm.variance, norm.shards);
  for (size_t i = 0; i < ys.size(); ++i) {
    if (!adds.empty()) ys[i] = ys[i] + adds[i];
    if (norm.then != Then::Nothing) ys[i] = ys[i].relu();
  }
  return ys;
}

// The same by libtorch's operations. A view of several shards is put together first.
std::vector<Tensor> composed(at::TensorList xs, at::TensorList adds, const Norm &norm) {
  std::vector<Tensor> result;
  const auto whole = [&](at::TensorList all, size_t first) {
    return norm.shards == 1 ? all[first] : at::cat(all.slice(first, norm.shards));
  };
  for (size_t first = 0; first < xs.size(); first += norm.shards) {
    Tensor y = at::batch_norm(whole(xs, first), norm.weight, norm.bias, norm.mean, norm.variance, norm.train, MOMENTUM,
                              EPSILON, true);
    if (!adds.empty()) y.add_(whole(adds, first));
    if (norm.then != Then::Nothing) y.relu_();
    if (norm.shards == 1) {
      result.push_back(y);
    } else {
      for (const Tensor &shard : y.chunk(norm.shards)) result.push_back(shard);
    }
  }
  return result;
}

// Puts the tensors of all processes in order, view by view.
std::vector<Tensor> by_view(const std::vector<Tensor> &gathered, int64_t shards) {
  const int64_t size = team_size(), own = gathered.size() / size;
  std::vector<Tensor> ordered;
  for (int64_t first = 0; first < own; first += shards)
    for (int64_t process = 0; process < size; ++process)
      for (int64_t shard = 0; shard < shards; ++shard) ordered.push_back(gathered[process * own + first + shard]);
  return ordered;
}

// Of the shards of all processes, those of this one.
variable_list own_of(const variable_list &all, int64_t shards) {
  variable_list own;
  for (size_t first = team_rank() * shards; first < all.size(); first += team_size() * shards)
    own.insert(own.end(), all.begin() + first, all.begin() + first + shards);
  return own;
}

variable_list gathered(const variable_list &own, int64_t shards) { return by_view(gather_in_team(own), shards); }

// The shards of all processes. The gradients of its own come back to each.
struct GatherFunction : torch::autograd::Function<GatherFunction> {
  static variable_list forward(AutogradContext *context, at::TensorList own, int64_t shards) {
    context->saved_data["shards"] = shards;
    return gathered(own.vec(), shards);
  }

  static variable_list backward(AutogradContext *context, variable_list grads) {
    variable_list result = own_of(grads, context->saved_data["shards"].toInt());
    result.emplace_back();  // their number has none
    return result;
  }
};

// The shards of this process. The gradients of all processes go back.
struct OwnFunction : torch::autograd::Function<OwnFunction> {
  static variable_list forward(AutogradContext *context, at::TensorList all, int64_t shards) {
    context->saved_data["shards"] = shards;
    const variable_list own = own_of(all.vec(), shards);
    context->save_for_backward(own);
    return own;
  }

  static variable_list backward(AutogradContext *context, variable_list grads) {
    const variable_list own = context->get_saved_variables();
    for (size_t i = 0; i < grads.size(); ++i)
      if (!grads[i].defined()) grads[i] = at::zeros_like(own[i]);
    variable_list result = gathered(grads, context->saved_data["shards"].toInt());
    result.emplace_back();
    return result;
  }
};

// As [`composed`], for a batch that several processes hold: each computes the whole norm, so that libtorch's operations
// need not be taken apart. What they exchange is as much as all activations, and twice that if they are recomputed.
std::vector<Tensor> composed_in_team(at::TensorList xs, at::TensorList adds, Norm norm) {
  const int64_t shards = norm.shards;
  const variable_list all = GatherFunction::apply(xs, shards);
  const variable_list plus = adds.empty() ? variable_list() : GatherFunction::apply(adds, shards);
  norm.shards *= team_size();
  return OwnFunction::apply(at::TensorList(composed(all, plus, norm)), shards);
}

// Calls the kernels, in memory of the layout that they want.
std::vector<Tensor> fused(at::TensorList xs, at::TensorList adds, Norm &norm, bool learning) {
  std::vector<Tensor> dense, plus;
  for (const Tensor &x : xs) dense.push_back(x.contiguous(format(x)));
  for (size_t i = 0; i < adds.size(); ++i)
    plus.push_back(adds[i].to(xs[i].scalar_type()).contiguous(format(xs[i])));
  if (learning) return NormFunction::apply(at::TensorList(dense), at::TensorList(plus), norm.weight, norm.bias, &norm);
  std::vector<Tensor> ys = dense;  // in place: the x are no longer needed
  run(dense, plus, ys, norm);
  return ys;
}

void check(at::TensorList xs, at::TensorList adds, const Norm &norm) {
  const Tensor &x = xs[0];
  TORCH_CHECK(!norm.train || rows_of(x).count * norm.shards * team_size() > 1,
              "batch norm in training needs more than one value per channel");
  for (const Tensor *t : {&norm.weight, &norm.bias, &norm.mean, &norm.variance})
    TORCH_CHECK(t->numel() == x.size(1) && t->is_contiguous() && t->scalar_type() == norm.weight.scalar_type(),
                "a tensor of the norm has shape ", t->sizes(), ", its input ", x.sizes());
  for (size_t i = 0; i < adds.size(); ++i)
    TORCH_CHECK(adds[i].sizes() == xs[i].sizes(), "the added tensor has another shape than the norm's input");
}

}  // namespace

extern "C" char *caco_norm(Tensor *const *xs_, size_t count, size_t shards, const Tensor *weight, const Tensor *bias,
                           const Tensor *mean, const Tensor *variance, Tensor *const *adds_, bool relu, bool train,
                           Tensor **results) {
  return guarded([&] {
    const std::vector<Tensor> xs = list(xs_, count), adds = list(adds_, adds_ ? count : 0);
    const Then then = adds_ ? Then::AddRelu : relu ? Then::Relu : Then::Nothing;
    Norm norm{*weight, *bias, *mean, *variance, train, then, static_cast<int64_t>(shards)};
    const bool learning = at::GradMode::is_enabled() && (xs[0].requires_grad() || weight->requires_grad());
    const bool kernels = taken(xs[0], *weight) && (train || !learning);
    if (kernels) check(xs, adds, norm);
    if (kernels) return give(fused(xs, adds, norm, learning), results);
    const bool is_joint = train && team_size() > 1;
    if (xs[0].is_cuda() && train && (shards > 1 || is_joint)) return give(composed_of_shards(xs, adds, norm), results);
    give(is_joint ? composed_in_team(xs, adds, norm) : composed(xs, adds, norm), results);
  });
}
