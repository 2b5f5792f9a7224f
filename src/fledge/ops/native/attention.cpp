// Attention of packed documents and its gradient, one document and key head at a time, without memory that grows with
// the square of a document: a few queries meet all of their keys, and their scores stay in the cache.
//
// Shapes: T packed positions, K key heads, G query heads for each of them, D features of a head; of a document, S keys;
// W queries at a time. Steps are counted in values. Nothing here asks for memory: the caller brings `scratch`.
#include "vectors.h"

enum { W = 48 };

struct Attention {
  const void *q, *k, *v, *dout;      // q, dout [T,K,G,D]; k, v [T,K,D]
  void *out, *dq, *dk, *dv;          // of the same shapes
  float *sums;                       // [K*G,T] logarithm of each query's total
  float *parts;                      // [slots,K,2,D'] gradients of keys that several documents see
  char *scratch;                     // [threads,scratch_size]
  const float *alibi;                // [K*G,reach] by position of the key, or null
  const float *relative, *backwards; // [K*G,2*reach-1] by distance of the key, and from the last to the first
  const int32_t *documents;          // [n,5] first row, queries, position of the first, first and last of `ranges`
  const int32_t *ranges;             // [..,3] first row, keys, and its first slot or -1 where no one else sees it
  const int32_t *shared;             // [m,4] first row, keys, first and last of `viewers`
  const int32_t *viewers;            // first slots
  Size num_documents, num_shared, scratch_size, positions, reach, most_keys;
  Size q_steps[3], k_steps[2], v_steps[2], out_steps[3], dout_steps[3], dq_steps[3], dk_steps[2], dv_steps[2];
  Size kv_heads, groups, width, window, threads; // window: 0 for none
  int32_t is_causal, adds, is_half;
  float scale, softcap; // softcap: 0 for none
};

struct Document {
  Size start, queries, offset, first, last, keys;
};

static Document document_at(const Attention &call, Size number) {
  const int32_t *row = call.documents + number * 5;
  Document found = {row[0], row[1], row[2], row[3], row[4], 0};
  for (Size n = found.first; n < found.last; n++) found.keys += call.ranges[n * 3 + 1];
  return found;
}

// The queries [first,first+count) of a document and the keys [low,high) that any of them sees; low is a multiple of 16.
struct Tile {
  Size first, count, low, high;
};

static Tile tile_at(const Attention &call, const Document &document, Size first) {
  Tile tile = {first, least(W, document.queries - first), 0, document.keys};
  if (call.is_causal) {
    tile.high = document.offset + first + tile.count;
    if (call.window) tile.low = most(0, document.offset + first - call.window + 1) / 16 * 16;
  }
  return tile;
}

// Takes scratch memory a piece after the other, each at a multiple of 64 bytes.
struct Scratch {
  char *at;
  template <class T>
  T *take(Size count) {
    char *found = at;
    at += up(count * (Size)sizeof(T), 64);
    return (T *)found;
  }
};

// What is added to the score of a query at `query` and the keys from `key` on, or of a key and the queries from
// `query` on. ALiBi is taken relative to the query's own, which softmax does not see.
static inline Vec bias_of_keys(const Attention &call, Size head, Size query, Size key) {
  if (call.relative) return load<Vec>(call.relative + head * (2 * call.reach - 1) + key - query + call.reach - 1);
  if (call.alibi) return load<Vec>(call.alibi + head * call.reach + key) - call.alibi[head * call.reach + query];
  return Vec{};
}
static inline Vec bias_of_queries(const Attention &call, Size head, Size query, Size key) {
  if (call.backwards) return load<Vec>(call.backwards + head * (2 * call.reach - 1) + query - key + call.reach - 1);
  if (call.alibi) return call.alibi[head * call.reach + key] - load<Vec>(call.alibi + head * call.reach + query);
  return Vec{};
}

template <class P, class In>
struct Kernel {
  typedef typename P::Unit Unit;
  typedef typename P::Value Value;
  const Attention &call;
  Size units, values, padded; // of a row of D features: units, values they hold, and columns of a product

  explicit Kernel(const Attention &call)
      : call(call), units((call.width + P::PER - 1) / P::PER), values(units * P::PER), padded(up(call.width, LANES)) {}

  // Rows of D features as the left factor of a product, [count,units].
  void left(const In *from, Size step, Size count, Unit *into) const {
    for (Size row = 0; row < count; row++, from += step) {
      Value *to = (Value *)(into + row * units);
      if constexpr (sizeof(In) == sizeof(Value)) {
        memcpy(to, from, call.width * sizeof(In));
      } else {
        Size d = 0;
        for (; d + LANES <= call.width; d += LANES) store(to + d, widen(from + d));
        for (; d < call.width; d++) to[d] = widen_one(from[d]);
      }
      for (Size d = call.width; d < values; d++) to[d] = 0;
    }
  }

  // x [rows,columns] of values as the right factor of a product, [rows/PER,columns'], columns' at least LANES more.
  static void right(const Value *x, Size x_step, Size rows, Size columns, Unit *into, Size step) {
    for (Size row = 0; row < rows; row += P::PER) {
      const Value *upper = x + row * x_step, *lower = upper + x_step;
      Unit *to = into + row / P::PER * step;
      bool is_last = row + 1 == rows;
      Size c = 0;
      if constexpr (P::PER == 2) {
        for (; c + LANES <= columns; c += LANES) {
          Words high = is_last ? Words{} : __builtin_convertvector(load<Halves>(lower + c), Words);
          store(to + c, high << 16 | __builtin_convertvector(load<Halves>(upper + c), Words));
        }
        for (; c < columns; c++) to[c] = (is_last ? 0 : (uint32_t)lower[c] << 16) | upper[c];
      } else {
        memcpy(to, upper, columns * sizeof(Unit));
        c = columns;
      }
      for (; c < step; c++) to[c] = 0;
    }
  }

  void gather(const void *from, const Size *steps, Size head, const Document &document, Unit *into) const {
    for (Size n = document.first; n < document.last; n++) {
      const int32_t *range = call.ranges + n * 3;
      left((const In *)from + range[0] * steps[0] + head * steps[1], steps[0], range[1], into);
      into += range[1] * units;
    }
  }

  // Scores [count,S'] -> probabilities that are not yet divided by their total; 1 / total and its logarithm.
  void soften(const Tile &tile, const Document &document, Size head, float *scores, Size step, Value *into,
              float *shares, float *logarithms) const {
    Size columns = up(tile.high - tile.low, LANES);
    for (Size row = 0; row < tile.count; row++) {
      Size query = document.offset + tile.first + row;
      Size high = (call.is_causal ? query + 1 : tile.high) - tile.low, low = 0;
      if (call.is_causal && call.window) low = most(0, query - call.window + 1 - tile.low);
      float *line = scores + row * step;
      Vec top = all(-INFINITY), total = {};
      for (Size c = low / LANES * LANES; c < high; c += LANES) {
        Vec x = load<Vec>(line + c) * call.scale;
        if (call.softcap) x = hyperbolic_tangent(x / call.softcap) * call.softcap;
        if (call.alibi || call.relative) x += bias_of_keys(call, head, query, tile.low + c);
        Ints at = count() + (int32_t)c;
        x = (at >= (int32_t)low) & (at < (int32_t)high) ? x : all(-INFINITY);
        store(line + c, x);
        top = larger(top, x);
      }
      float peak = top[0];
      for (int n = 1; n < LANES; n++) peak = top[n] > peak ? top[n] : peak;
      Value *to = into + row * columns;
      Size c = 0;
      for (; c < low / LANES * LANES; c += LANES) narrow(Vec{}, to + c);
      for (; c < high; c += LANES) {
        Vec x = load<Vec>(line + c);
        Vec p = x == -INFINITY ? Vec{} : exponential(x - peak);
        total += p;
        narrow(p, to + c);
      }
      for (; c < columns; c += LANES) narrow(Vec{}, to + c);
      float sum = 0;
      for (int n = 0; n < LANES; n++) sum += total[n];
      shares[row] = 1.0f / sum;
      logarithms[row] = peak + logf(sum);
    }
  }

  struct Forward {
    Unit *keys, *turned, *values, *queries;
    float *scores, *mixed, *shares;
    Value *weights;
  };

  // Memory of one thread for documents of so many keys; with null to count it.
  Forward forward_memory(Scratch &scratch, Size keys) const {
    Size wide = up(keys + 16, 16);
    Forward found;
    found.keys = scratch.take<Unit>(wide * units);
    found.turned = scratch.take<Unit>(units * wide);
    found.values = scratch.take<Unit>(wide / P::PER * padded);
    found.queries = scratch.take<Unit>(W * units);
    found.scores = scratch.take<float>(W * wide);
    found.mixed = scratch.take<float>(W * padded);
    found.shares = scratch.take<float>(W);
    found.weights = scratch.take<Value>(W * wide);
    return found;
  }

  void forward(const Document &document, Size head, Scratch scratch) const {
    Forward m = forward_memory(scratch, document.keys);
    Size wide = up(document.keys, 16);
    gather(call.v, call.v_steps, head, document, m.keys);
    memset(m.keys + document.keys * units, 0, (wide - document.keys) * units * sizeof(Unit));
    right((Value *)m.keys, values, wide, values, m.values, padded);
    gather(call.k, call.k_steps, head, document, m.keys);
    transpose(m.keys, units, wide, units, m.turned, wide);
    for (Size g = 0; g < call.groups; g++) {
      Size number = head * call.groups + g;
      const In *q = (const In *)call.q + document.start * call.q_steps[0] + head * call.q_steps[1] + g * call.q_steps[2];
      In *out = (In *)call.out + document.start * call.out_steps[0] + head * call.out_steps[1] + g * call.out_steps[2];
      float *sums = call.sums + number * call.positions + document.start;
      for (Size first = 0; first < document.queries; first += W) {
        Tile tile = tile_at(call, document, first);
        Size columns = up(tile.high - tile.low, LANES), deep = up(tile.high - tile.low, P::PER) / P::PER;
        left(q + first * call.q_steps[0], call.q_steps[0], tile.count, m.queries);
        product<P>(tile.count, columns, units, m.queries, units, m.turned + tile.low, wide, m.scores, columns);
        soften(tile, document, number, m.scores, columns, m.weights, m.shares, sums + first);
        product<P>(tile.count, padded, deep, (Unit *)m.weights, columns / P::PER,
                   m.values + tile.low / P::PER * padded, padded, m.mixed, padded);
        for (Size row = 0; row < tile.count; row++) {
          In *to = out + (first + row) * call.out_steps[0];
          const float *from = m.mixed + row * padded;
          Size d = 0;
          for (; d + LANES <= call.width; d += LANES) narrow(load<Vec>(from + d) * m.shares[row], to + d);
          for (; d < call.width; d++) narrow_one(from[d] * m.shares[row], to + d);
        }
      }
    }
  }

  // Scores and dO V^T, both [S',W'] with keys down and queries across -> P and s dS.
  void score_gradient(const Tile &tile, const Document &document, Size head, const float *sums, const float *delta,
                      const float *scores, const float *given, Value *weights, Value *gradient, Size wide) const {
    Size keys = tile.high - tile.low, query = document.offset + tile.first;
    for (Size row = 0; row < keys; row++) {
      Size key = tile.low + row, low = 0, high = tile.count;
      if (call.is_causal) {
        low = key - query;
        if (call.window) high = least(high, low + call.window);
      }
      for (Size c = 0; c < wide; c += LANES) {
        Vec x = load<Vec>(scores + row * wide + c) * call.scale, bend = all(call.scale);
        if (call.softcap) {
          Vec bent = hyperbolic_tangent(x / call.softcap);
          x = bent * call.softcap;
          bend *= 1.0f - bent * bent;
        }
        if (call.alibi || call.relative) x += bias_of_queries(call, head, query + c, key);
        Ints at = count() + (int32_t)c;
        Vec p = exponential(x - load<Vec>(sums + c));
        p = (at >= (int32_t)low) & (at < (int32_t)high) ? p : Vec{};
        narrow(p, weights + row * wide + c);
        narrow(p * (load<Vec>(given + row * wide + c) - load<Vec>(delta + c)) * bend, gradient + row * wide + c);
      }
    }
    for (Size n = keys * wide; n < up(keys, 2) * wide; n++) gradient[n] = weights[n] = 0;
  }

  struct Backward {
    Unit *keys, *values, *turned, *queries, *given, *queries_turned, *given_turned, *queries_right, *given_right, *right;
    float *scores, *products, *dq, *dk, *dv, *sums, *delta;
    Value *weights, *gradient;
  };

  Backward backward_memory(Scratch &scratch, Size keys) const {
    Size wide = up(keys + 16, 16), w = up(W, LANES);
    Backward found;
    found.keys = scratch.take<Unit>(wide * units);
    found.values = scratch.take<Unit>(wide * units);
    found.turned = scratch.take<Unit>(padded * wide / P::PER);
    found.queries = scratch.take<Unit>(w * units);
    found.given = scratch.take<Unit>(w * units);
    found.queries_turned = scratch.take<Unit>(units * w);
    found.given_turned = scratch.take<Unit>(units * w);
    found.queries_right = scratch.take<Unit>(w / P::PER * padded);
    found.given_right = scratch.take<Unit>(w / P::PER * padded);
    found.right = scratch.take<Unit>(most(wide / P::PER * w, wide / P::PER * padded));
    found.scores = scratch.take<float>(wide * w);
    found.products = scratch.take<float>(wide * w);
    found.dq = scratch.take<float>(padded * w);
    found.dk = scratch.take<float>(wide * padded);
    found.dv = scratch.take<float>(wide * padded);
    found.sums = scratch.take<float>(w);
    found.delta = scratch.take<float>(w);
    found.weights = scratch.take<Value>(wide * w);
    found.gradient = scratch.take<Value>(wide * w);
    return found;
  }

  // Each query's logarithm of its total, and the product of what came out with its gradient.
  void along(const Tile &tile, const In *out, const In *dout, const float *sums, const Backward &m) const {
    for (Size row = 0; row < up(W, LANES); row++) {
      m.sums[row] = row < tile.count ? sums[row] : INFINITY;
      m.delta[row] = 0;
      if (row >= tile.count) continue;
      const In *a = out + row * call.out_steps[0], *b = dout + row * call.dout_steps[0];
      Vec total = {};
      Size d = 0;
      for (; d + LANES <= call.width; d += LANES) total += widen(a + d) * widen(b + d);
      for (int n = 0; n < LANES; n++) m.delta[row] += total[n];
      for (; d < call.width; d++) m.delta[row] += widen_one(a[d]) * widen_one(b[d]);
    }
  }

  // Rows as a left factor, turned, and as a right factor; zeros after the last.
  void three_ways(const In *from, Size step, Size rows, Unit *as_left, Unit *turned, Unit *as_right) const {
    Size w = up(W, LANES);
    left(from, step, rows, as_left);
    memset(as_left + rows * units, 0, (w - rows) * units * sizeof(Unit));
    transpose(as_left, units, w, units, turned, w);
    right((Value *)as_left, values, w, values, as_right, padded);
  }

  void backward(const Document &document, Size head, Scratch scratch) const {
    Backward m = backward_memory(scratch, document.keys);
    Size wide = up(document.keys, 16), w = up(W, LANES);
    gather(call.v, call.v_steps, head, document, m.values);
    gather(call.k, call.k_steps, head, document, m.keys);
    memset(m.keys + document.keys * units, 0, (wide - document.keys) * units * sizeof(Unit));
    right((Value *)m.keys, values, wide, values, m.right, padded);
    transpose(m.right, padded, wide / P::PER, call.width, m.turned, wide / P::PER);
    memset(m.dk, 0, wide * padded * sizeof(float));
    memset(m.dv, 0, wide * padded * sizeof(float));
    for (Size g = 0; g < call.groups; g++) {
      const In *q = (const In *)call.q + document.start * call.q_steps[0] + head * call.q_steps[1] + g * call.q_steps[2];
      const In *out =
          (const In *)call.out + document.start * call.out_steps[0] + head * call.out_steps[1] + g * call.out_steps[2];
      const In *dout = (const In *)call.dout + document.start * call.dout_steps[0] + head * call.dout_steps[1] +
                       g * call.dout_steps[2];
      In *dq = (In *)call.dq + document.start * call.dq_steps[0] + head * call.dq_steps[1] + g * call.dq_steps[2];
      Size number = head * call.groups + g;
      const float *sums = call.sums + number * call.positions + document.start;
      for (Size first = 0; first < document.queries; first += W) {
        Tile tile = tile_at(call, document, first);
        Size keys = tile.high - tile.low, deep = up(keys, P::PER) / P::PER;
        along(tile, out + first * call.out_steps[0], dout + first * call.dout_steps[0], sums + first, m);
        three_ways(q + first * call.q_steps[0], call.q_steps[0], tile.count, m.queries, m.queries_turned,
                   m.queries_right);
        three_ways(dout + first * call.dout_steps[0], call.dout_steps[0], tile.count, m.given, m.given_turned,
                   m.given_right);
        product<P>(keys, w, units, m.keys + tile.low * units, units, m.queries_turned, w, m.scores, w);
        product<P>(keys, w, units, m.values + tile.low * units, units, m.given_turned, w, m.products, w);
        score_gradient(tile, document, number, m.sums, m.delta, m.scores, m.products, m.weights, m.gradient, w);
        product<P>(keys, padded, w / P::PER, (Unit *)m.weights, w / P::PER, m.given_right, padded,
                   m.dv + tile.low * padded, padded, true);
        product<P>(keys, padded, w / P::PER, (Unit *)m.gradient, w / P::PER, m.queries_right, padded,
                   m.dk + tile.low * padded, padded, true);
        right(m.gradient, w, up(keys, P::PER), w, m.right, w);
        product<P>(call.width, w, deep, m.turned + tile.low / P::PER, wide / P::PER, m.right, w, m.dq, w);
        for (Size row = 0; row < tile.count; row++) {
          In *to = dq + (first + row) * call.dq_steps[0];
          for (Size d = 0; d < call.width; d++) narrow_one(m.dq[d * w + row], to + d);
        }
      }
    }
    hand_over(document, head, m);
  }

  // The gradients of a document's keys: written where no one else sees them, else left to be summed up.
  void hand_over(const Document &document, Size head, const Backward &m) const {
    const float *dk = m.dk, *dv = m.dv;
    for (Size n = document.first; n < document.last; n++) {
      const int32_t *range = call.ranges + n * 3;
      for (Size row = 0; row < range[1]; row++, dk += padded, dv += padded) {
        if (range[2] < 0) {
          write(dk, call.dk, call.dk_steps, range[0] + row, head);
          write(dv, call.dv, call.dv_steps, range[0] + row, head);
        } else {
          float *part = call.parts + ((range[2] + row) * call.kv_heads + head) * 2 * padded;
          memcpy(part, dk, padded * sizeof(float));
          memcpy(part + padded, dv, padded * sizeof(float));
        }
      }
    }
  }

  void write(const float *from, void *into, const Size *steps, Size row, Size head) const {
    In *to = (In *)into + row * steps[0] + head * steps[1];
    for (Size d = 0; d < call.width; d++) narrow_one(call.adds ? widen_one(to[d]) + from[d] : from[d], to + d);
  }

  // The sums of what the documents that see a range left, in their order.
  void join(Size number, Size head, Scratch scratch) const {
    const int32_t *range = call.shared + number * 4;
    float *sum = scratch.take<float>(2 * padded);
    for (Size row = 0; row < range[1]; row++) {
      memset(sum, 0, 2 * padded * sizeof(float));
      for (Size n = range[2]; n < range[3]; n++) {
        const float *part = call.parts + ((call.viewers[n] + row) * call.kv_heads + head) * 2 * padded;
        for (Size d = 0; d < 2 * padded; d++) sum[d] += part[d];
      }
      write(sum, call.dk, call.dk_steps, range[0] + row, head);
      write(sum + padded, call.dv, call.dv_steps, range[0] + row, head);
    }
  }

  Size memory(bool is_forward) const {
    Scratch counted = {nullptr};
    if (is_forward)
      forward_memory(counted, call.most_keys);
    else
      backward_memory(counted, call.most_keys);
    return counted.at - (char *)nullptr;
  }
};

extern "C" int omp_get_thread_num();

template <class K>
static void run_forward(const Attention &call) {
  K kernel(call);
#pragma omp parallel for schedule(dynamic) num_threads(call.threads)
  for (Size unit = 0; unit < call.num_documents * call.kv_heads; unit++)
    kernel.forward(document_at(call, unit / call.kv_heads), unit % call.kv_heads,
                   Scratch{call.scratch + omp_get_thread_num() * call.scratch_size});
}

template <class K>
static void run_backward(const Attention &call) {
  K kernel(call);
#pragma omp parallel num_threads(call.threads)
  {
    Scratch scratch = {call.scratch + omp_get_thread_num() * call.scratch_size};
#pragma omp for schedule(dynamic)
    for (Size unit = 0; unit < call.num_documents * call.kv_heads; unit++)
      kernel.backward(document_at(call, unit / call.kv_heads), unit % call.kv_heads, scratch);
#pragma omp for schedule(dynamic)
    for (Size unit = 0; unit < call.num_shared * call.kv_heads; unit++)
      kernel.join(unit / call.kv_heads, unit % call.kv_heads, scratch);
  }
}

#if defined(__AVX512BF16__)
typedef Kernel<Pairs, uint16_t> Half;
#else
typedef Kernel<Wide, uint16_t> Half;
#endif
typedef Kernel<Wide, float> Single;

extern "C" {
Size attention_size() { return sizeof(Attention); }
// Bytes of scratch memory for each thread.
Size attention_memory(const Attention *call, int32_t is_forward) {
  return call->is_half ? Half(*call).memory(is_forward) : Single(*call).memory(is_forward);
}
void attention_forward(const Attention *call) {
  call->is_half ? run_forward<Half>(*call) : run_forward<Single>(*call);
}
void attention_backward(const Attention *call) {
  call->is_half ? run_backward<Half>(*call) : run_backward<Single>(*call);
}
}
