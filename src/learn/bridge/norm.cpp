// Batch norm fused with the operations that follow it: addition of a shortcut, and a ReLU.
//
// libtorch reads a tensor twice for its statistics, once more to normalise it, again to add the shortcut and again for
// the ReLU, and as often in the backward pass: on a CPU a fifth of a training step. Here statistics take one read and
// everything else another; likewise in the backward pass. Sums are taken over pieces of a fixed size, which are added
// up in order, so they do not depend on the number of threads.

#include <ATen/Parallel.h>

#include <cmath>
#include <vector>

#include "bridge.h"

// The kernels are compiled for several instruction sets; the best for the machine is selected at program start.
#if defined(__x86_64__) && defined(__linux__)
#define MULTIVERSIONED __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define MULTIVERSIONED
#endif
#define INLINE inline __attribute__((always_inline))

using at::BFloat16;
using at::Tensor;

namespace {

// ---- Vectors: 64 bytes of the numbers to compute with, f64 for f64 and f32 for other types.

typedef float Floats __attribute__((vector_size(64)));
typedef double Doubles __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));

template <typename T>
using Acc = std::conditional_t<std::is_same_v<T, double>, double, float>;
template <typename T>
using Vec = std::conditional_t<std::is_same_v<T, double>, Doubles, Floats>;
template <typename T>
constexpr int64_t LANES = 64 / sizeof(Acc<T>);

template <typename T>
INLINE Vec<T> get(const T *from) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    Halves halves;
    memcpy(&halves, from, sizeof halves);
    return reinterpret_cast<Floats>(__builtin_convertvector(halves, Words) << 16);
  } else {
    Vec<T> vec;
    memcpy(&vec, from, sizeof vec);
    return vec;
  }
}

template <typename T>
INLINE void put(T *to, Vec<T> vec) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    const Words bits = reinterpret_cast<Words>(vec);
    const Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
    const Words words = (bits & 0x7fffffff) > 0x7f800000 ? Words{} + 0x7fc0 : rounded;
    const Halves halves = __builtin_convertvector(words, Halves);
    memcpy(to, &halves, sizeof halves);
  } else {
    memcpy(to, &vec, sizeof vec);
  }
}

// ---- Kernels, on consecutive rows of channels.

struct Rows {
  int64_t count, channels;
};

// The operation after the norm.
enum class Then { Nothing, Relu, AddRelu };

// Sums two terms per channel over all rows, V vectors of channels and U rows at a time: enough independent sums to
// hide the latency of an addition. `terms(row, channel)` returns a pair of vectors.
template <typename T, int V, int U, typename Terms>
INLINE void sum_block(Rows rows, int64_t c, const Terms &terms, Acc<T> *first, Acc<T> *second) {
  Vec<T> a[V * U] = {}, b[V * U] = {};
  int64_t r = 0;
  for (; r + U <= rows.count; r += U) {
#pragma GCC unroll 8
    for (int i = 0; i < V * U; ++i) {
      const auto [x, y] = terms(r + i / V, c + i % V * LANES<T>);
      a[i] += x;
      b[i] += y;
    }
  }
  for (; r < rows.count; ++r) {
    for (int v = 0; v < V; ++v) {
      const auto [x, y] = terms(r, c + v * LANES<T>);
      a[v] += x;
      b[v] += y;
    }
  }
  for (int i = V; i < V * U; ++i) {
    a[i % V] += a[i];
    b[i % V] += b[i];
  }
  memcpy(first + c, a, V * 64);
  memcpy(second + c, b, V * 64);
}

template <typename T, typename Terms>
INLINE void sum_by_channel(Rows rows, const Terms &terms, Acc<T> *first, Acc<T> *second) {
  int64_t c = 0;
  for (; c + 4 * LANES<T> <= rows.channels; c += 4 * LANES<T>) sum_block<T, 4, 1>(rows, c, terms, first, second);
  for (; c + 2 * LANES<T> <= rows.channels; c += 2 * LANES<T>) sum_block<T, 2, 2>(rows, c, terms, first, second);
  for (; c < rows.channels; c += LANES<T>) sum_block<T, 1, 4>(rows, c, terms, first, second);
}

template <typename V>
struct Pair {
  V first, second;
};

// Sums of x − x₀ and of its square, where x₀ is the first row: close enough to the mean to avoid cancellation.
template <typename T>
struct Moments {
  const T *x;
  int64_t channels;
  INLINE Pair<Vec<T>> operator()(int64_t row, int64_t c) const {
    const Vec<T> d = get(x + row * channels + c) - get(x + c);
    return {d, d * d};
  }
};

// Per-channel values of the forward pass that the backward pass needs.
template <typename T>
struct Saved {
  const Acc<T> *mean, *scale, *shift;
};

// The gradient masked by the ReLU. With an addition the mask comes from its result, otherwise from x.
template <typename T, Then THEN>
INLINE Vec<T> let_through(const T *x, const T *dy, const T *y, int64_t i, int64_t c, Saved<T> saved) {
  const Vec<T> g = get(dy + i);
  if constexpr (THEN == Then::Relu) return get(x + i) * get(saved.scale + c) + get(saved.shift + c) > 0 ? g : Vec<T>{};
  if constexpr (THEN == Then::AddRelu) return get(y + i) > 0 ? g : Vec<T>{};
  return g;
}

// Sums of g and of g · (x − mean), where g is the masked gradient. With an addition g is kept: it is also the
// gradient of the shortcut.
template <typename T, Then THEN>
struct Products {
  const T *x, *dy, *y;
  T *kept;
  int64_t channels;
  Saved<T> saved;
  INLINE Pair<Vec<T>> operator()(int64_t row, int64_t c) const {
    const int64_t i = row * channels + c;
    const Vec<T> g = let_through<T, THEN>(x, dy, y, i, c, saved);
    if constexpr (THEN == Then::AddRelu) put(kept + i, g);
    return {g, g * (get(x + i) - get(saved.mean + c))};
  }
};

// y = x · scale + shift, and the operation after it. `y` may be `x`.
template <typename T, Then THEN>
INLINE void apply(const T *x, const T *add, T *y, Rows rows, const Acc<T> *scale, const Acc<T> *shift) {
  for (int64_t r = 0; r < rows.count; ++r) {
    for (int64_t c = 0; c < rows.channels; c += LANES<T>) {
      const int64_t i = r * rows.channels + c;
      Vec<T> z = get(x + i) * get(scale + c) + get(shift + c);
      if constexpr (THEN == Then::AddRelu) z += get(add + i);
      if constexpr (THEN != Then::Nothing) z = z < 0 ? Vec<T>{} : z;  // keeps NaN
      put(y + i, z);
    }
  }
}

// dx = g · scale + x · slope + offset. With an addition, `dy` is the kept g.
template <typename T, Then THEN>
INLINE void apply_back(const T *x, const T *dy, T *dx, Rows rows, Saved<T> saved, const Acc<T> *slope,
                       const Acc<T> *offset) {
  constexpr Then MASK = THEN == Then::AddRelu ? Then::Nothing : THEN;
  for (int64_t r = 0; r < rows.count; ++r) {
    for (int64_t c = 0; c < rows.channels; c += LANES<T>) {
      const int64_t i = r * rows.channels + c;
      const Vec<T> g = let_through<T, MASK>(x, dy, nullptr, i, c, saved);
      put(dx + i, g * get(saved.scale + c) + (get(x + i) * get(slope + c) + get(offset + c)));
    }
  }
}

// Attributes for instruction sets do not apply to callers of templates, so each type has its own plain functions.
#define KERNELS(T)                                                                                                    \
  MULTIVERSIONED void moments(const T *x, Rows rows, Acc<T> *sum, Acc<T> *square) {                                   \
    sum_by_channel<T>(rows, Moments<T>{x, rows.channels}, sum, square);                                               \
  }                                                                                                                   \
  MULTIVERSIONED void products(Then then, const T *x, const T *dy, const T *y, T *kept, Rows rows, Saved<T> saved,    \
                               Acc<T> *sum, Acc<T> *product) {                                                        \
    const int64_t n = rows.channels;                                                                                  \
    if (then == Then::Nothing)                                                                                        \
      return sum_by_channel<T>(rows, Products<T, Then::Nothing>{x, dy, y, kept, n, saved}, sum, product);             \
    if (then == Then::Relu)                                                                                           \
      return sum_by_channel<T>(rows, Products<T, Then::Relu>{x, dy, y, kept, n, saved}, sum, product);                \
    sum_by_channel<T>(rows, Products<T, Then::AddRelu>{x, dy, y, kept, n, saved}, sum, product);                      \
  }                                                                                                                   \
  MULTIVERSIONED void forward(Then then, const T *x, const T *add, T *y, Rows rows, const Acc<T> *scale,              \
                              const Acc<T> *shift) {                                                                  \
    if (then == Then::Nothing) return apply<T, Then::Nothing>(x, add, y, rows, scale, shift);                         \
    if (then == Then::Relu) return apply<T, Then::Relu>(x, add, y, rows, scale, shift);                               \
    apply<T, Then::AddRelu>(x, add, y, rows, scale, shift);                                                           \
  }                                                                                                                   \
  MULTIVERSIONED void backward(Then then, const T *x, const T *dy, T *dx, Rows rows, Saved<T> saved,                  \
                               const Acc<T> *slope, const Acc<T> *offset) {                                           \
    if (then == Then::Relu) return apply_back<T, Then::Relu>(x, dy, dx, rows, saved, slope, offset);                  \
    apply_back<T, Then::Nothing>(x, dy, dx, rows, saved, slope, offset);                                              \
  }
KERNELS(float)
KERNELS(double)
KERNELS(BFloat16)

// ---- Over whole tensors.

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

// Two sums per channel, added up from those of all pieces.
template <typename T, typename F>
void sum_pieces(Rows rows, const F &body, std::vector<Acc<T>> &first, std::vector<Acc<T>> &second) {
  const int64_t size = piece(rows), count = (rows.count + size - 1) / size;
  first.resize(count * rows.channels);
  second.resize(count * rows.channels);
  for_each_piece(rows, [&](int64_t i, int64_t begin, int64_t length) {
    body(begin, Rows{length, rows.channels}, &first[i * rows.channels], &second[i * rows.channels]);
  });
}

struct Statistics {
  std::vector<double> mean, variance;  // variance is the biased one
};

// Mean and variance per channel; pieces are combined as in Chan, Golub and LeVeque (1983).
template <typename T>
Statistics statistics(const T *x, Rows rows) {
  std::vector<Acc<T>> sum, square;
  sum_pieces<T>(
      rows,
      [&](int64_t begin, Rows part, Acc<T> *a, Acc<T> *b) { moments(x + begin * rows.channels, part, a, b); }, sum,
      square);
  Statistics total{std::vector<double>(rows.channels), std::vector<double>(rows.channels)};
  const int64_t size = piece(rows);
  for (int64_t begin = 0, i = 0; begin < rows.count; begin += size, ++i) {
    const double before = begin, length = std::min(size, rows.count - begin);
    for (int64_t c = 0; c < rows.channels; ++c) {
      const double s = sum[i * rows.channels + c], q = square[i * rows.channels + c];
      const double mean = static_cast<double>(x[begin * rows.channels + c]) + s / length;
      const double apart = mean - total.mean[c];
      total.mean[c] += apart * length / (before + length);
      total.variance[c] += q - s * s / length + apart * apart * before * length / (before + length);
    }
  }
  for (double &v : total.variance) v = std::max(0.0, v / rows.count);
  return total;
}

constexpr double EPSILON = 1e-5, MOMENTUM = 0.1;  // PyTorch's defaults

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
void move_running(const Statistics &s, int64_t rows, Tensor &mean, Tensor &variance) {
  A *m = mean.data_ptr<A>(), *v = variance.data_ptr<A>();
  const double unbiased = static_cast<double>(rows) / (rows - 1);
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
};

// Calls `body` with a value of x's type.
template <typename F>
void with_type(const Tensor &x, const F &body) {
  switch (x.scalar_type()) {
    case at::kFloat: return body(float{});
    case at::kDouble: return body(double{});
    default: return body(BFloat16{});
  }
}

// Normalises into `y`, which may be `x`. Returns mean, scale and shift per channel, [3, C].
Tensor run(const Tensor &x, const Tensor &add, Tensor &y, Norm &norm, Then then) {
  const Rows rows = rows_of(x);
  Tensor saved = at::empty({3, rows.channels}, norm.weight.options().requires_grad(false));
  with_type(x, [&](auto type) {
    using T = decltype(type);
    const T *from = x.const_data_ptr<T>(), *plus = add.defined() ? add.const_data_ptr<T>() : nullptr;
    T *to = y.mutable_data_ptr<T>();
    const auto s = norm.train ? statistics(from, rows) : running<Acc<T>>(norm.mean, norm.variance);
    if (norm.train) move_running<Acc<T>>(s, rows.count, norm.mean, norm.variance);
    Acc<T> *mean = saved.mutable_data_ptr<Acc<T>>(), *scale = mean + rows.channels, *shift = scale + rows.channels;
    std::copy(s.mean.begin(), s.mean.end(), mean);
    affine(s, norm.weight, norm.bias, scale, shift);
    for_each_piece(rows, [&](int64_t, int64_t begin, int64_t count) {
      const int64_t i = begin * rows.channels;
      forward(then, from + i, plus ? plus + i : nullptr, to + i, {count, rows.channels}, scale, shift);
    });
  });
  return saved;
}

struct Gradients {
  Tensor x, weight, bias, add;
};

// The backward pass through a norm in training.
Gradients run_back(const Tensor &x, const Tensor &dy, const Tensor &y, const Tensor &weight, const Tensor &saved_, Then then) {
  const Rows rows = rows_of(x);
  Gradients g{at::empty_like(x), at::empty_like(weight), at::empty_like(weight), {}};
  if (then == Then::AddRelu) g.add = at::empty_like(x);
  with_type(x, [&](auto type) {
    using T = decltype(type);
    using A = Acc<T>;
    const int64_t n = rows.channels;
    const T *from = x.const_data_ptr<T>(), *grad = dy.const_data_ptr<T>();
    const T *out = y.defined() ? y.const_data_ptr<T>() : nullptr;
    T *kept = g.add.defined() ? g.add.mutable_data_ptr<T>() : nullptr;
    const A *mean = saved_.const_data_ptr<A>();
    const Saved<T> saved{mean, mean + n, mean + 2 * n};
    std::vector<A> sums, dots;
    sum_pieces<T>(
        rows,
        [&](int64_t begin, Rows part, A *a, A *b) {
          const int64_t i = begin * n;
          products(then, from + i, grad + i, out ? out + i : nullptr, kept ? kept + i : nullptr, part, saved, a, b);
        },
        sums, dots);
    A *dw = g.weight.mutable_data_ptr<A>(), *db = g.bias.mutable_data_ptr<A>();
    const A *w = weight.const_data_ptr<A>();
    std::vector<A> slope(n), offset(n);
    for (int64_t c = 0; c < n; ++c) {
      double sum = 0, dot = 0;
      for (size_t i = c; i < sums.size(); i += n) {
        sum += sums[i];
        dot += dots[i];
      }
      // 1/σ = scale / weight, but a weight may be 0: then the gradient is 0 anyway.
      const double inverse = w[c] != 0 ? saved.scale[c] / static_cast<double>(w[c]) : 0;
      const double k = -saved.scale[c] * inverse * inverse * dot / rows.count;
      dw[c] = inverse * dot;
      db[c] = sum;
      slope[c] = k;
      offset[c] = -k * saved.mean[c] - saved.scale[c] * sum / rows.count;
    }
    const T *in = kept ? kept : grad;
    for_each_piece(rows, [&](int64_t, int64_t begin, int64_t count) {
      const int64_t i = begin * n;
      backward(then, from + i, in + i, g.x.mutable_data_ptr<T>() + i, {count, n}, saved, slope.data(), offset.data());
    });
  });
  return g;
}

struct NormFunction : torch::autograd::Function<NormFunction> {
  static Tensor forward(torch::autograd::AutogradContext *context, const Tensor &x, const Tensor &weight,
                        const Tensor &bias, const std::optional<Tensor> &add, Norm *norm, Then then) {
    Tensor y = at::empty_like(x);
    const Tensor saved = run(x, add.value_or(Tensor()), y, *norm, then);
    context->save_for_backward({x, weight, saved, then == Then::AddRelu ? y : Tensor()});
    context->saved_data["then"] = static_cast<int64_t>(then);
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                 torch::autograd::variable_list grads) {
    const auto saved = context->get_saved_variables();
    const Tensor &x = saved[0];
    const auto then = static_cast<Then>(context->saved_data["then"].toInt());
    const Gradients g =
        run_back(x, grads[0].contiguous(format(x)), saved[3], saved[1], saved[2], then);
    return {g.x, g.weight, g.bias, g.add, Tensor(), Tensor()};
  }
};

// Whether the kernels above apply: on the CPU, full vectors of channels, a supported type.
bool taken(const Tensor &x, const Tensor &weight) {
  const auto type = x.scalar_type();
  const bool known = type == at::kFloat || type == at::kDouble || type == at::kBFloat16;
  const auto wanted = type == at::kDouble ? at::kDouble : at::kFloat;
  return x.is_cpu() && known && weight.scalar_type() == wanted && x.size(1) % (type == at::kDouble ? 8 : 16) == 0;
}

Tensor composed(const Tensor &x, const Tensor &add, const Norm &norm, Then then) {
  Tensor y = at::batch_norm(x, norm.weight, norm.bias, norm.mean, norm.variance, norm.train, MOMENTUM, EPSILON, true);
  if (then == Then::AddRelu) y.add_(add);
  return then == Then::Nothing ? y : y.relu_();
}

}  // namespace

extern "C" char *caco_norm(const Tensor *x, const Tensor *weight, const Tensor *bias, const Tensor *mean,
                           const Tensor *variance, const Tensor *add, bool relu, bool train, Tensor **result) {
  return guarded([&] {
    Norm norm{*weight, *bias, *mean, *variance, train};
    const Then then = add ? Then::AddRelu : relu ? Then::Relu : Then::Nothing;
    const bool learning = at::GradMode::is_enabled() && (x->requires_grad() || weight->requires_grad());
    if (!taken(*x, *weight) || (learning && !train)) {
      *result = new Tensor(composed(*x, add ? *add : Tensor(), norm, then));
      return;
    }
    TORCH_CHECK(!train || rows_of(*x).count > 1, "batch norm in training needs more than one value per channel");
    for (const Tensor *t : {weight, bias, mean, variance})
      TORCH_CHECK(t->numel() == x->size(1) && t->is_contiguous() && t->scalar_type() == weight->scalar_type(),
                  "a tensor of the norm has shape ", t->sizes(), ", its input ", x->sizes());
    TORCH_CHECK(!add || add->sizes() == x->sizes(), "the added tensor has another shape than the norm's input");
    const Tensor dense = x->contiguous(format(*x));
    const Tensor plus = add ? add->to(x->scalar_type()).contiguous(format(*x)) : Tensor();
    if (learning) {
      *result = new Tensor(NormFunction::apply(dense, *weight, *bias, add ? std::optional(plus) : std::nullopt, &norm, then));
    } else {
      Tensor y = dense;  // in place: x is no longer needed
      run(dense, plus, y, norm, then);
      *result = new Tensor(y);
    }
  });
}
