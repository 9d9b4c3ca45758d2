// Sizes of Attention nodes, from shapes and attributes.
#include <algorithm>
#include <cmath>

#include "libds/ops/attention.h"

namespace ds::ops {

int64_t heads_of(const Node& n, const char* attr) {
  const int64_t heads = n.attr_int(attr, 0);
  if (heads < 1) bad_data("{} is {}, which inputs of rank 3 need", attr, heads);
  return heads;
}

int64_t divided(int64_t hidden, int64_t heads, const char* what) {
  if (hidden % heads != 0) bad_data("{} has {} elements a token, which do not divide into {} heads", what, hidden, heads);
  return hidden / heads;
}

AttentionSizes<int64_t> attention_sizes(const Node& n, const Shape& q, const Shape& k, const Shape& v, const Shape& past) {
  AttentionSizes<int64_t> s;
  s.split = q.size() == 3;
  s.B = q[0];
  if (s.split) {
    s.H = heads_of(n, "q_num_heads");
    s.G = heads_of(n, "kv_num_heads");
    s.L = q[1];
    s.S = k[1];
    s.D = divided(q[2], s.H, "the query");
    s.E = divided(v[2], s.G, "the value");
    if (divided(k[2], s.G, "the key") != s.D) bad_data("queries have {} elements a head, keys {}", s.D, k[2] / s.G);
  } else {
    s.H = q[1];
    s.G = k[1];
    s.L = q[2];
    s.S = k[2];
    s.D = q[3];
    s.E = v[3];
    if (k[3] != s.D) bad_data("queries have {} elements a head, keys {}", s.D, k[3]);
    if (v[1] != s.G) bad_data("there are {} heads of keys and {} of values", s.G, v[1]);
  }
  if (s.G < 1 || s.H % s.G != 0) bad_data("{} query heads do not divide into {} heads of keys", s.H, s.G);
  if (k[0] != s.B || v[0] != s.B) bad_data("query, key and value are of {}, {} and {} samples", s.B, k[0], v[0]);
  if (v[s.split ? 1 : 2] != s.S) bad_data("there are {} keys and {} values", s.S, v[s.split ? 1 : 2]);
  s.past = past.empty() ? 0 : past[2];
  s.S = checked_add(s.S, s.past);
  return s;
}

float attention_scale(const Node& n, int64_t head_size) {
  return n.attr_float("scale", static_cast<float>(1.0 / std::sqrt(static_cast<double>(std::max<int64_t>(1, head_size)))));
}

}  // namespace ds::ops
