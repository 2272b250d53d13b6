// The kernels of norm_kernels.h, in the namespace NORM_KERNELS: see the build script.

#include "norm_kernels.h"

#include <cstring>

// The kernels are compiled for several instruction sets; the best for the machine is selected at program start.
#if defined(__x86_64__) && defined(__linux__)
#define MULTIVERSIONED __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define MULTIVERSIONED
#endif
#define INLINE inline __attribute__((always_inline))

using c10::BFloat16;

namespace NORM_KERNELS {
namespace {

// ---- Vectors: 64 bytes of the numbers to compute with, f64 for f64 and f32 for other types.

typedef float Floats __attribute__((vector_size(64)));
typedef double Doubles __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));

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

// ---- Kernels.

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

}  // namespace

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

}  // namespace NORM_KERNELS
