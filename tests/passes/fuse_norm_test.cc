#include "libds/passes/fuse_norm.h"

#include <gtest/gtest.h>

#include <functional>

#include "libds/run/executor.h"
#include "tests/support/op_check.h"

namespace ds {
namespace {

constexpr int64_t kWidth = 24;

Tensor f32(Shape shape, uint64_t seed, double low = -1, double high = 1) { return test::random_tensor(std::move(shape), seed, low, high).cast(DType::kF32); }

// Rows of x, [2, 5, 24], and what is made of them.
struct Rows {
  std::shared_ptr<Graph> graph = std::make_shared<Graph>();
  Rewriter rw{*graph};
  ValueId x = rw.add_input("x", DType::kF32, {2, 5, kWidth});
  ValueId scale = rw.add_constant("scale", f32({kWidth}, 5, 0.5, 1.5)), bias = rw.add_constant("bias", f32({kWidth}, 6));

  ValueId number(float v) { return rw.add_constant("c", Tensor::scalar<float>(v)); }
  ValueId op(std::string_view name, ValueId a, ValueId b) { return rw.emit(name, {a, b}); }
  ValueId op(std::string_view name, ValueId a) { return rw.emit(name, {a}); }
  ValueId mean(ValueId a, std::vector<int64_t> axes = {-1}, int64_t keep = 1) {
    return rw.emit("ReduceMean", {a, rw.add_constant("axes", Tensor::vector<int64_t>(std::span<const int64_t>(axes)))}, {{"keepdims", keep}});
  }
  ValueId centered(std::vector<int64_t> axes = {-1}) { return op("Sub", x, mean(x, axes)); }
  // mean(d^2) + epsilon; the square by Pow or Mul, the sum in either order
  ValueId variance(ValueId d, int form = 0, std::vector<int64_t> axes = {-1}) {
    const ValueId v = mean(form % 2 == 0 ? op("Pow", d, number(2)) : op("Mul", d, d), axes);
    return form < 2 ? op("Add", v, number(1e-3f)) : op("Add", number(1e-3f), v);
  }
};

using Write = std::function<ValueId(Rows&)>;

Tensor run(const Rows& r) {
  const Tensor x = f32({2, 5, kWidth}, 1, -2, 4);
  return make_eager_executor(r.graph, {})->run(std::span(&x, 1)).at(0);
}

bool fuse(Rows& r) {
  PassContext context;
  return fuse_norm(r.rw, context);
}

Node becomes(const Write& write, std::string_view op, size_t inputs, const std::string& what, size_t nodes = 2) {
  Rows r;
  r.rw.add_output(r.rw.emit("Identity", {write(r)}, {}, "y"));
  const Tensor before = run(r);
  EXPECT_TRUE(fuse(r)) << what;
  verify_graph(*r.graph);
  EXPECT_EQ(r.graph->node_count(), nodes) << what << "\n" << print_graph(*r.graph);
  EXPECT_LE(test::relative_error(run(r), before), 2e-6) << what;
  const Node n = r.graph->node(r.graph->first());
  EXPECT_TRUE(n.is(op)) << what << ": " << n.op;
  EXPECT_EQ(n.inputs.size(), inputs) << what;
  EXPECT_FLOAT_EQ(n.attr_float("epsilon", 0), 1e-3f);
  return n;
}

void stays(const Write& write, const std::string& what) {
  Rows r;
  r.rw.add_output(r.rw.emit("Identity", {write(r)}, {}, "y"));
  EXPECT_FALSE(fuse(r)) << what << "\n" << print_graph(*r.graph);
}

TEST(FuseNorm, LayerNormalizationByDivision) {
  for (int form = 0; form < 4; ++form)
    becomes([form](Rows& r) {
      const ValueId d = r.centered(), y = r.op("Div", d, r.op("Sqrt", r.variance(d, form)));
      return form % 2 == 0 ? r.op("Add", r.op("Mul", y, r.scale), r.bias) : r.op("Add", r.bias, r.op("Mul", r.scale, y));
    }, "LayerNormalization", 3, fmt::format("form {}", form));
}

TEST(FuseNorm, LayerNormalizationByTheInverseRoot) {
  const auto inverse = [](Rows& r, ValueId d, int form) {
    const ValueId v = r.variance(d, 1);
    if (form == 0) return r.op("Reciprocal", r.op("Sqrt", v));
    return form == 1 ? r.op("Div", r.number(1), r.op("Sqrt", v)) : r.op("Pow", v, r.number(-0.5f));
  };
  for (int form = 0; form < 3; ++form) {
    becomes([&](Rows& r) {
      const ValueId d = r.centered();
      return r.op("Add", r.op("Mul", r.op("Mul", d, inverse(r, d, form)), r.scale), r.bias);
    }, "LayerNormalization", 3, fmt::format("d r, form {}", form));
    becomes([&](Rows& r) {
      const ValueId d = r.centered();
      return r.op("Add", r.op("Mul", r.op("Mul", inverse(r, d, form), r.scale), d), r.bias);
    }, "LayerNormalization", 3, fmt::format("d (r scale), form {}", form));
    becomes([&](Rows& r) {
      const ValueId m = r.mean(r.x), d = r.op("Sub", r.x, m), s = r.op("Mul", inverse(r, d, form), r.scale);
      return r.op("Add", r.op("Mul", r.x, s), r.op("Sub", r.bias, r.op("Mul", m, s)));
    }, "LayerNormalization", 3, fmt::format("x (r scale) + ..., form {}", form));
  }
}

TEST(FuseNorm, RmsNormalization) {
  for (int form = 0; form < 4; ++form)
    becomes([form](Rows& r) {
      const ValueId root = r.op("Sqrt", r.variance(r.x, form));
      const ValueId y = form % 2 == 0 ? r.op("Mul", r.x, r.op("Reciprocal", root)) : r.op("Div", r.x, root);
      return r.op("Mul", r.scale, y);
    }, "RMSNormalization", 2, fmt::format("form {}", form));
}

TEST(FuseNorm, WithoutScaleOrBias) {
  const auto core = [](Rows& r, bool centered) {
    const ValueId d = centered ? r.centered() : r.x;
    return r.op("Div", d, r.op("Sqrt", r.variance(d)));
  };
  becomes([&](Rows& r) { return core(r, true); }, "LayerNormalization", 2, "neither");
  becomes([&](Rows& r) { return r.op("Mul", core(r, true), r.scale); }, "LayerNormalization", 2, "scale");
  becomes([&](Rows& r) { return r.op("Add", core(r, true), r.bias); }, "LayerNormalization", 3, "bias");
  becomes([&](Rows& r) { return core(r, false); }, "RMSNormalization", 2, "root mean square");
  // What is no scale of the row's size stays behind the new node.
  becomes([&](Rows& r) { return r.op("Mul", core(r, true), r.number(3)); }, "LayerNormalization", 2, "a number", 3);
}

TEST(FuseNorm, SeveralTrailingAxes) {
  const Node n = becomes([](Rows& r) {
    const ValueId d = r.centered({1, 2}), y = r.op("Div", d, r.op("Sqrt", r.variance(d, 0, {-1, -2})));
    return r.op("Mul", y, r.rw.add_constant("scale", f32({1, 5, kWidth}, 9)));
  }, "LayerNormalization", 2, "two axes");
  EXPECT_EQ(n.attr_int("axis", 0), -2);
}

TEST(FuseNorm, OtherFormulasStay) {
  stays([](Rows& r) {
    const ValueId d = r.centered({1});
    return r.op("Div", d, r.op("Sqrt", r.variance(d, 0, {1})));
  }, "not the trailing axis");
  stays([](Rows& r) { return r.op("Div", r.x, r.op("Sqrt", r.mean(r.op("Mul", r.x, r.x)))); }, "no epsilon");
  stays([](Rows& r) { return r.op("Div", r.op("Abs", r.x), r.op("Sqrt", r.variance(r.x))); }, "another dividend");
  stays([](Rows& r) {
    const ValueId v = r.variance(r.x);
    r.rw.add_output(v);
    return r.op("Div", r.x, r.op("Sqrt", v));
  }, "a variance that callers see");
}

}  // namespace
}  // namespace ds
