// RegexFullMatch. Patterns come from files, so the engine must be safe for any of them: RE2 takes time linear in the
// text and refuses what would need more (back references, look-around).
#include <re2/re2.h>

#include "libds/ops/common.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

std::shared_ptr<const re2::RE2> pattern_of(const Node& n) {
  if (!n.has_attr("pattern")) bad_data("has no attribute pattern");
  const std::string text = n.attr_string("pattern", "");
  re2::RE2::Options options;
  options.set_log_errors(false);
  auto pattern = std::make_shared<const re2::RE2>(text, options);
  if (!pattern->ok()) bad_data("pattern '{}' is not one of RE2: {}", text, pattern->error());
  return pattern;
}

}  // namespace

void register_regex_ops(OpRegistry& registry) {
  OpDef def;
  def.name = "RegexFullMatch";
  def.min_inputs = def.max_inputs = 1;
  def.stops_gradient = true;
  def.infer = [](InferContext& c) {
    c.require_dtype(0, {DType::kString});
    pattern_of(c.node());
    c.set_output(0, DType::kBool, c.has_dims(0) ? std::optional(c.dims(0)) : std::nullopt);
  };
  KernelDef k;
  k.name = "portable/RegexFullMatch";
  k.takes_objects = true;
  k.create = [](const KernelQuery& q) {
    return make_kernel([pattern = pattern_of(q.node)](const KernelContext& c) {
      bool* out = c.output(0).mutable_data<bool>();
      for (const std::string& text : c.input(0).strings()) *out++ = re2::RE2::FullMatch(text, *pattern);
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

}  // namespace ds
