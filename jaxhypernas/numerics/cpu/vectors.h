// Vectors of float or double, and sums of them.
#pragma once

#include <cstdint>
#include <cstring>

namespace jaxhypernas {

using Int = int64_t;

template <class T>
struct Vector;
template <>
struct Vector<float> {
  typedef float type __attribute__((vector_size(32)));
};
template <>
struct Vector<double> {
  typedef double type __attribute__((vector_size(32)));
};
template <class T>
using V = typename Vector<T>::type;
template <class T>
constexpr Int kLanes = 32 / sizeof(T);

template <class T>
inline V<T> load(const T* from) {
  V<T> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class T>
inline void store(T* to, V<T> v) {
  std::memcpy(to, &v, sizeof v);
}

// Channels, rounded up to whole vectors.
template <class T>
Int padded(Int channels) {
  return (channels + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

// Positions whose sums `positions` keeps in registers at once.
#ifdef __AVX512VL__
constexpr int kPositions = 8;
#else
constexpr int kPositions = 4;
#endif

// The sum of `of(0)` to `of(n - 1)`, in four separate sums: additions that do
// not wait for each other.
template <class T, class F>
inline V<T> add_up(Int n, F of) {
  V<T> sum[4] = {};
  Int i = 0;
  for (; i + 4 <= n; i += 4)
    for (int k = 0; k < 4; ++k) sum[k] += of(i + k);
  for (; i < n; ++i) sum[0] += of(i);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

}  // namespace jaxhypernas
