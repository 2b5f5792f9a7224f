// Vectors of float32 as wide as the CPU's, and the two ways in which a product's factors are held.
//
// A unit is what one lane of a factor is: a float32 (Wide), or two neighbouring bfloat16 (Pairs), where the CPU
// multiplies such pairs. Products are a [rows,depth] times b [depth,columns] with depth counted in units, so that a
// pair of a row of `a` meets the pair that lies in one unit of `b`.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif

typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
typedef int64_t Size;

static inline Size up(Size size, Size to) { return (size + to - 1) / to * to; }
static inline Size least(Size a, Size b) { return a < b ? a : b; }
static inline Size most(Size a, Size b) { return a > b ? a : b; }

template <class V, class T>
static inline V load(const T *at) {
  V v;
  memcpy(&v, at, sizeof v);
  return v;
}
template <class V, class T>
static inline void store(T *at, V v) {
  memcpy(at, &v, sizeof v);
}
static inline Vec all(float x) { return x - Vec{}; }
static inline Vec larger(Vec a, Vec b) { return a > b ? a : b; } // b where one is no number
static inline Ints count() {
  Ints c;
  for (int n = 0; n < LANES; n++) c[n] = n;
  return c;
}

// bfloat16 is the upper half of a float32; rounded to the nearest, ties to even.
static inline Vec widen(const uint16_t *at) {
  return (Vec)(__builtin_convertvector(load<Halves>(at), Words) << 16);
}
static inline Vec widen(const float *at) { return load<Vec>(at); }
static inline void narrow(Vec v, uint16_t *at) {
#if defined(__AVX512BF16__)
  store(at, (Halves)_mm512_cvtneps_pbh((__m512)v));
#else
  Words bits = (Words)v;
  store(at, __builtin_convertvector((bits + 0x7fff + (bits >> 16 & 1)) >> 16, Halves));
#endif
}
static inline void narrow(Vec v, float *at) { store(at, v); }
static inline float widen_one(uint16_t x) {
  uint32_t bits = (uint32_t)x << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
static inline float widen_one(float x) { return x; }
static inline void narrow_one(float x, uint16_t *at) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  *at = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
static inline void narrow_one(float x, float *at) { *at = x; }

// e^x for x <= 88, to two units in the last place; at -87 and below what is left is 1.6e-38, and what is no number stays
// none. The polynomial is a Taylor series about zero, for |r| <= log(2)/2.
static inline Vec exponential(Vec x) {
  x = larger(all(-87.0f), x);
  const Vec magic = all(12582912.0f);
  Vec n = (x * 1.44269504f + magic) - magic;
  Vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
  Vec p = all(1.0f / 5040);
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  Ints power = __builtin_convertvector(n, Ints);
  return (Vec)((Ints)p + (power << 23));
}
static inline Vec hyperbolic_tangent(Vec x) {
  Vec bounded = x > 20.0f ? all(20.0f) : x < -20.0f ? all(-20.0f) : x;
  return 1.0f - 2.0f / (exponential(2.0f * bounded) + 1.0f);
}

struct Wide {
  typedef float Unit;
  typedef float Value;
  enum { PER = 1 };
  static inline Vec add(Vec sum, float a, Vec b) { return sum + a * b; }
};
#if defined(__AVX512BF16__)
struct Pairs {
  typedef uint32_t Unit;
  typedef uint16_t Value;
  enum { PER = 2 };
  static inline Vec add(Vec sum, uint32_t a, Vec b) {
    return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32((int)a), (__m512bh)b);
  }
};
#endif

// M rows by N vectors of a product, held in registers.
template <class P, int M, int N>
static inline void block(Size depth, const typename P::Unit *a, Size a_step, const typename P::Unit *b, Size b_step,
                         float *c, Size c_step, bool adds) {
  Vec sums[M][N];
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) sums[m][n] = adds ? load<Vec>(c + m * c_step + n * LANES) : Vec{};
  for (Size k = 0; k < depth; k++) {
    Vec right[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) right[n] = load<Vec>(b + k * b_step + n * LANES);
#pragma GCC unroll 16
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
      for (int n = 0; n < N; n++) sums[m][n] = P::add(sums[m][n], a[m * a_step + k], right[n]);
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) store(c + m * c_step + n * LANES, sums[m][n]);
}

template <class P, int M, int N>
static void last_rows(Size rows, Size depth, const typename P::Unit *a, Size a_step, const typename P::Unit *b,
                      Size b_step, float *c, Size c_step, bool adds) {
  if constexpr (M > 0) {
    if (rows == M)
      block<P, M, N>(depth, a, a_step, b, b_step, c, c_step, adds);
    else
      last_rows<P, M - 1, N>(rows, depth, a, a_step, b, b_step, c, c_step, adds);
  }
}

template <class P, int M, int N>
static void strip(Size rows, Size depth, const typename P::Unit *a, Size a_step, const typename P::Unit *b, Size b_step,
                  float *c, Size c_step, bool adds) {
  Size row = 0;
  for (; row + M <= rows; row += M)
    block<P, M, N>(depth, a + row * a_step, a_step, b, b_step, c + row * c_step, c_step, adds);
  last_rows<P, M - 1, N>(rows - row, depth, a + row * a_step, a_step, b, b_step, c + row * c_step, c_step, adds);
}

// c = a b, or c += a b; `columns` is a multiple of LANES. How many rows and vectors at once is what registers hold.
template <class P>
static void product(Size rows, Size columns, Size depth, const typename P::Unit *a, Size a_step,
                    const typename P::Unit *b, Size b_step, float *c, Size c_step, bool adds = false) {
  Size vectors = columns / LANES, at = 0;
#if defined(__AVX512F__)
  for (; vectors - at >= 4; at += 4)
    strip<P, 6, 4>(rows, depth, a, a_step, b + at * LANES, b_step, c + at * LANES, c_step, adds);
  b += at * LANES, c += at * LANES;
  if (vectors - at == 3) strip<P, 8, 3>(rows, depth, a, a_step, b, b_step, c, c_step, adds);
  if (vectors - at == 2) strip<P, 12, 2>(rows, depth, a, a_step, b, b_step, c, c_step, adds);
  if (vectors - at == 1) strip<P, 12, 1>(rows, depth, a, a_step, b, b_step, c, c_step, adds);
#else
  for (; vectors - at >= 2; at += 2)
    strip<P, 6, 2>(rows, depth, a, a_step, b + at * LANES, b_step, c + at * LANES, c_step, adds);
  b += at * LANES, c += at * LANES;
  if (vectors - at == 1) strip<P, 8, 1>(rows, depth, a, a_step, b, b_step, c, c_step, adds);
#endif
}

// x [rows,columns] -> its transpose, a unit at a time, in squares that a cache holds.
template <class U>
static void transpose(const U *x, Size x_step, Size rows, Size columns, U *into, Size step) {
  for (Size low = 0; low < rows; low += 16)
    for (Size column = 0; column < columns; column++)
      for (Size row = low; row < least(low + 16, rows); row++) into[column * step + row] = x[row * x_step + column];
}
