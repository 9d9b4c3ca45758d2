// PackedCache: weights in kernels' own layouts, once per content and form however many plans use them.
//
// A plan is made for every set of input shapes; what its kernels pack seldom depends on shapes. A Session has one
// cache for all its plans. Content is known by where it lies: the buffer and the address in it, so a constant that
// graphs share is packed once, and equal numbers in two places twice. `form` names all else that the packing depends
// on: the kernel, types, instruction set, geometry.
//
// The cache owns nothing: a packing lives as long as a kernel holds it. While it lives it keeps the buffer alive, so
// that the address cannot come to mean other content.
//
// Threads: those of the Session, one at a time.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>

#include "libds/ir/kernel_def.h"

namespace ds {

class PackedCache {
 public:
  using Make = std::function<std::shared_ptr<const void>()>;
  // The packing of `weights` in `form` that somebody holds; else what make() gives, and then `made` is true.
  std::shared_ptr<const void> get(const Tensor& weights, std::string_view form, const Make& make, bool& made);
  // Packings alive.
  size_t size() const;

 private:
  using Key = std::tuple<const void*, const void*, std::string>;  // buffer, address in it, form
  void drop_expired();

  std::map<Key, std::weak_ptr<const void>> packed_;
  size_t drop_at_ = 64;  // entries; those that expired are dropped then
};

// What a kernel holds: a packing, and whether it is the one that made it (Kernel::packed_bytes counts it then).
template <typename T>
struct Packing {
  std::shared_ptr<const T> weights;
  bool made = true;

  const T& operator*() const { return *weights; }
  const T* operator->() const { return weights.get(); }
};

// make()'s T for input `i` of the query, shared where the query has a cache and the input is constant. Different
// types of T need different forms.
template <typename Make, typename T = std::invoke_result_t<Make>>
Packing<T> pack_once(const KernelQuery& query, size_t i, std::string_view form, Make make) {
  if (query.packed == nullptr || query.for_sizes || query.constant(i) == nullptr) return {std::make_shared<const T>(make()), true};
  bool made = false;
  auto packing = query.packed->get(*query.constant(i), form, [&] { return std::make_shared<const T>(make()); }, made);
  return {std::static_pointer_cast<const T>(std::move(packing)), made};
}

}  // namespace ds
