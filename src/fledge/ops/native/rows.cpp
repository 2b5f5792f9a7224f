// What a step does to each row by itself: norms, activations, rotary positions, and the loss of a row of logits. Each is
// read and written once or twice while it lies in the cache, in float32 within, and rounded once. No row depends on
// another, so the number of threads changes no bit.
//
// Shapes: N rows, H features, T positions, V vocabulary. Steps are counted in values.
#include "vectors.h"

// The values from `at` on, zeros after the last of `left`.
template <class In>
static inline Vec some(const In *at, Size left) {
  if (left >= LANES) return widen(at);
  Vec v = {};
  for (Size n = 0; n < left; n++) v[n] = widen_one(at[n]);
  return v;
}
template <class In>
static inline void put(Vec v, In *at, Size left) {
  if (left >= LANES) {
    narrow(v, at);
    return;
  }
  for (Size n = 0; n < left; n++) narrow_one(v[n], at + n);
}
static inline Vec first(Vec v, Size left) {
  return left >= LANES ? v : count() < (int32_t)left ? v : Vec{};
}
static inline float total(Vec v) {
  float sum = 0;
  for (int n = 0; n < LANES; n++) sum += v[n];
  return sum;
}

// Threads that so many values are worth.
static inline int worth(Size values, Size threads) { return (int)most(1, least(threads, values / 8192)); }

// Activations by number, with their slopes: 0 gelu by tanh, 1 gelu by erf (arXiv 1606.08415), 2 silu, 3 relu.
static inline Vec sigmoid(Vec x) { return 1.0f / (1.0f + exponential(x < -80.0f ? all(80.0f) : -x)); }
template <int KIND>
static inline Vec activated(Vec x, Vec *slope) {
  if (KIND == 3) {
    *slope = x > 0.0f ? all(1.0f) : Vec{};
    return x <= 0.0f ? Vec{} : x;
  }
  if (KIND == 2) {
    Vec gate = sigmoid(x), y = x * gate;
    *slope = gate + y * (1.0f - gate);
    return y;
  }
  if (KIND == 1) {
    // Abramowitz and Stegun 7.1.26 for erfc(|z|), z = x / sqrt(2), to 1.5e-7
    Vec z = (x < 0.0f ? -x : x) * 0.70710678f, t = 1.0f / (1.0f + 0.3275911f * z);
    Vec bell = exponential(-0.5f * x * x);
    Vec p = ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t * bell;
    Vec gate = x < 0.0f ? 0.5f * p : 1.0f - 0.5f * p;
    *slope = gate + x * 0.39894228f * bell;
    return x * gate;
  }
  Vec bent = 1.59576912f * (1.0f + 0.044715f * x * x), gate = sigmoid(x * bent), y = x * gate;
  *slope = gate + y * (1.0f - gate) * 1.59576912f * (1.0f + 0.134145f * x * x);
  return y;
}

template <class In, int KIND>
static void activate(const In *x, const In *up, In *out, Size values, Size threads) {
#pragma omp parallel for schedule(static) num_threads(worth(values, threads))
  for (Size at = 0; at < values; at += LANES) {
    Size left = values - at;
    Vec slope, y = activated<KIND>(some(x + at, left), &slope);
    put(up ? y * some(up + at, left) : y, out + at, left);
  }
}

template <class In, int KIND>
static void activate_gradient(const In *dy, const In *x, const In *up, In *dx, In *dup, Size values, Size threads) {
#pragma omp parallel for schedule(static) num_threads(worth(values, threads))
  for (Size at = 0; at < values; at += LANES) {
    Size left = values - at;
    Vec slope, y = activated<KIND>(some(x + at, left), &slope), given = some(dy + at, left);
    if (up) {
      Vec opened = some(up + at, left);
      put(given * y, dup + at, left);
      given *= opened;
    }
    put(given * slope, dx + at, left);
  }
}

// A row less its mean, where it is a layer norm's, and one over its size.
struct Normal {
  float mean, scale;
};
template <class In>
static inline Normal normal_of(const In *x, Size width, bool is_layer, float eps) {
  Vec sum = {}, square = {};
  float mean = 0;
  if (is_layer) {
    for (Size c = 0; c < width; c += LANES) sum += some(x + c, width - c);
    mean = total(sum) / width;
  }
  for (Size c = 0; c < width; c += LANES) {
    Vec apart = first(some(x + c, width - c) - mean, width - c);
    square += apart * apart;
  }
  return {mean, 1.0f / sqrtf(total(square) / width + eps)};
}

template <class In>
static void normalise(const In *x, In *out, const float *weight, const float *bias, Size rows, Size width, Size x_step,
                      Size out_step, float eps, bool is_layer, Size threads) {
#pragma omp parallel for schedule(static) num_threads(worth(rows *width, threads))
  for (Size row = 0; row < rows; row++) {
    const In *from = x + row * x_step;
    Normal normal = normal_of(from, width, is_layer, eps);
    for (Size c = 0; c < width; c += LANES) {
      Size left = width - c;
      Vec y = (some(from + c, left) - normal.mean) * normal.scale * some(weight + c, left);
      put(bias ? y + some(bias + c, left) : y, out + row * out_step + c, left);
    }
  }
}

template <class In>
static void normalise_gradient(In *dx, const In *dy, const In *x, const float *weight, Size rows, Size width,
                               const Size *steps, float eps, bool is_layer, Size threads) {
#pragma omp parallel for schedule(static) num_threads(worth(rows *width, threads))
  for (Size row = 0; row < rows; row++) {
    In *into = dx + row * steps[0];
    const In *given = dy + row * steps[1], *from = x + row * steps[2];
    Normal normal = normal_of(from, width, is_layer, eps);
    Vec sum = {}, along = {};
    for (Size c = 0; c < width; c += LANES) {
      Size left = width - c;
      Vec g = some(given + c, left) * some(weight + c, left);
      sum += g;
      along += g * ((some(from + c, left) - normal.mean) * normal.scale);
    }
    float mean = is_layer ? total(sum) / width : 0, part = total(along) / width;
    for (Size c = 0; c < width; c += LANES) {
      Size left = width - c;
      Vec g = some(given + c, left) * some(weight + c, left) - mean;
      Vec apart = (some(from + c, left) - normal.mean) * normal.scale;
      put(some(into + c, left) + (g - apart * part) * normal.scale, into + c, left);
    }
  }
}

// (x1, x2) -> (x1 c - x2 s, x2 c + x1 s), the halves of what is rotated of a head (arXiv 2104.09864).
template <class In>
static void rotate(In *x, const float *cos, const float *sin, const Size *sizes, const Size *steps, float sign,
                   Size threads) {
  Size positions = sizes[0], kinds = sizes[1], group = sizes[2], half = sizes[3];
#pragma omp parallel for schedule(static) num_threads(worth(positions *kinds *group *half, threads))
  for (Size t = 0; t < positions; t++)
    for (Size k = 0; k < kinds; k++)
      for (Size g = 0; g < group; g++) {
        In *one = x + t * steps[0] + k * steps[1] + g * steps[2], *other = one + half;
        for (Size c = 0; c < half; c += LANES) {
          Size left = half - c;
          Vec co = some(cos + t * steps[3] + c, left), si = some(sin + t * steps[4] + c, left) * sign;
          Vec a = some(one + c, left), b = some(other + c, left);
          put(a * co - b * si, one + c, left);
          put(b * co + a * si, other + c, left);
        }
      }
}

// The loss of each row of logits, which become their own gradient unless `is_last`; cap is 0 for none.
template <class In>
static void softmax(In *logits, const int64_t *labels, double *losses, Size rows, Size width, Size step, float cap,
                    bool is_last, Size threads) {
  auto bend = [cap](Vec z) { return cap ? cap * hyperbolic_tangent(z / cap) : z; };
#pragma omp parallel for schedule(static) num_threads(worth(rows *width, threads))
  for (Size row = 0; row < rows; row++) {
    In *line = logits + row * step;
    float chosen = bend(all(widen_one(line[labels[row]])))[0];
    Vec top = all(-INFINITY);
    for (Size c = 0; c < width; c += LANES) {
      Size left = width - c;
      Vec z = bend(some(line + c, left));
      if (left < LANES) z = count() < (int32_t)left ? z : all(-INFINITY);
      top = larger(top, z);
    }
    float peak = top[0];
    for (int n = 1; n < LANES; n++) peak = top[n] > peak ? top[n] : peak;
    double sum = 0;
    for (Size c = 0; c < width;) {
      Vec part = {};
      for (Size end = least(c + 256 * LANES, width); c < end; c += LANES) {
        Size left = width - c;
        part += first(exponential(bend(some(line + c, left)) - peak), left);
      }
      sum += total(part);
    }
    losses[row] = peak - chosen + log(sum);
    if (is_last) continue;
    float share = (float)(1.0 / sum);
    for (Size c = 0; c < width; c += LANES) {
      Size left = width - c;
      Vec z = bend(some(line + c, left)), p = exponential(z - peak) * share;
      put(cap ? p * (1.0f - z * z / (cap * cap)) : p, line + c, left);
    }
    float p = (exponential(all(chosen - peak)) * share)[0] - 1.0f;
    narrow_one(cap ? p * (1.0f - chosen * chosen / (cap * cap)) : p, line + labels[row]);
  }
}

#define BY_FORMAT(call) \
  if (is_half) {        \
    typedef uint16_t In; \
    call;               \
  } else {              \
    typedef float In;   \
    call;               \
  }
#define BY_KIND(call)     \
  switch (kind) {         \
  case 0: call(0); break; \
  case 1: call(1); break; \
  case 2: call(2); break; \
  default: call(3);       \
  }

extern "C" {
void activation_forward(const void *x, const void *up, void *out, Size values, int32_t kind, int32_t is_half,
                        Size threads) {
#define CALL(KIND) BY_FORMAT((activate<In, KIND>((const In *)x, (const In *)up, (In *)out, values, threads)))
  BY_KIND(CALL)
#undef CALL
}
void activation_backward(const void *dy, const void *x, const void *up, void *dx, void *dup, Size values, int32_t kind,
                         int32_t is_half, Size threads) {
#define CALL(KIND)                                                                                              \
  BY_FORMAT((activate_gradient<In, KIND>((const In *)dy, (const In *)x, (const In *)up, (In *)dx, (In *)dup, values, \
                                         threads)))
  BY_KIND(CALL)
#undef CALL
}
void norm_forward(const void *x, void *out, const float *weight, const float *bias, Size rows, Size width, Size x_step,
                  Size out_step, float eps, int32_t is_layer, int32_t is_half, Size threads) {
  BY_FORMAT(normalise((const In *)x, (In *)out, weight, bias, rows, width, x_step, out_step, eps, is_layer, threads))
}
void norm_backward(void *dx, const void *dy, const void *x, const float *weight, Size rows, Size width,
                   const Size *steps, float eps, int32_t is_layer, int32_t is_half, Size threads) {
  BY_FORMAT(normalise_gradient((In *)dx, (const In *)dy, (const In *)x, weight, rows, width, steps, eps, is_layer,
                               threads))
}
void rotary(void *x, const float *cos, const float *sin, const Size *sizes, const Size *steps, float sign,
            int32_t is_half, Size threads) {
  BY_FORMAT(rotate((In *)x, cos, sin, sizes, steps, sign, threads))
}
void cross_entropy(void *logits, const int64_t *labels, double *losses, Size rows, Size width, Size step, float cap,
                   int32_t is_last, int32_t is_half, Size threads) {
  BY_FORMAT(softmax((In *)logits, labels, losses, rows, width, step, cap, is_last, threads))
}
}
