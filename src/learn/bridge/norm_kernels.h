// Kernels of batch norm on consecutive rows of channels, for CPU tensors whose channels fill vectors of 64 bytes.
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>
#include <type_traits>

// What the numbers of a tensor are computed with: f64 for f64, f32 for other types.
template <typename T>
using Acc = std::conditional_t<std::is_same_v<T, double>, double, float>;

struct Rows {
  int64_t count, channels;
};

// The operation after the norm.
enum class Then { Nothing, Relu, AddRelu };

// Per-channel values of the forward pass that the backward pass needs.
template <typename T>
struct Saved {
  const Acc<T> *mean, *scale, *shift;
};

// moments: per channel, the sums of x − x₀ and of its square, where x₀ is the first row.
// products: per channel, the sums of g and of g · (x − mean), where g is the gradient masked by the ReLU; with an
//   addition g is also written to `kept`.
// forward: y = x · scale + shift, and the operation after it. `y` may be `x`.
// backward: dx = g · scale + x · slope + offset. With an addition, `dy` is the kept g.
#define DECLARE(T)                                                                                                    \
  void moments(const T *x, Rows rows, Acc<T> *sum, Acc<T> *square);                                                   \
  void products(Then then, const T *x, const T *dy, const T *y, T *kept, Rows rows, Saved<T> saved, Acc<T> *sum,      \
                Acc<T> *product);                                                                                     \
  void forward(Then then, const T *x, const T *add, T *y, Rows rows, const Acc<T> *scale, const Acc<T> *shift);       \
  void backward(Then then, const T *x, const T *dy, T *dx, Rows rows, Saved<T> saved, const Acc<T> *slope,            \
                const Acc<T> *offset);

// Compiled twice. `fast` fuses multiplications and additions where the machine can; `exact` rounds each, so that every
// machine and every compiler gives the same bits.
#define FLAVOUR(NAME)    \
  namespace NAME {       \
  DECLARE(float)         \
  DECLARE(double)        \
  DECLARE(c10::BFloat16) \
  }
FLAVOUR(fast)
FLAVOUR(exact)
#undef DECLARE
#undef FLAVOUR
