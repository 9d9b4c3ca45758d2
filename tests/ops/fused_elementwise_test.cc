// FusedElementwise: every kernel against the portable one in f64 (all_ops_test.cc), and what a program may say.
#include "libds/ops/elementwise_program.h"

#include <cmath>
#include <limits>

#include "libds/ir/rewriter.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

using Lines = std::vector<std::string>;

Attributes program(Lines lines) { return {{"program", std::move(lines)}}; }

OpCase chain(const char* name, std::vector<Tensor> inputs, Lines lines) {
  return {"FusedElementwise", std::move(inputs), program(std::move(lines)), 1, {-1}, 1e-5, name};
}

Tensor flags(Shape shape) {
  Tensor t = Tensor::empty(DType::kBool, std::move(shape));
  for (int64_t i = 0; i < t.numel(); ++i) t.mutable_data<bool>()[i] = i % 3 != 1;
  return t;
}

const bool added = add_cases({
    chain("swish", {random_tensor({3, 5, 7}, 1, -4, 4)}, {"Sigmoid x0", "Mul x0 t0"}),
    chain("affine", {random_tensor({1031}, 1, -4, 4)}, {"Mul x0 0.3", "Add t0 -1.25", "Clip t1 -0.5 2", "Tanh t2"}),
    chain("row", {random_tensor({19, 37}, 1), random_tensor({37}, 2)}, {"Mul x0 x1", "Exp t0", "Sub t1 x1"}),
    chain("column", {random_tensor({2, 5, 49}, 1), random_tensor({5, 1}, 2)}, {"Mul x0 x1", "Exp t0", "Sub t1 x1"}),
    chain("long_rows", {random_tensor({3, 2051}, 1), random_tensor({3, 1}, 2), random_tensor({2051}, 3)}, {"Mul x0 x1", "Gelu t0", "Sub t1 x2"}),
    chain("outer", {random_tensor({7}, 1), random_tensor({5, 1}, 2)}, {"Add x0 x1", "Erf t0"}),
    chain("scalars", {random_tensor({}, 1), random_tensor({1, 1}, 2)}, {"Add x0 x1", "Erf t0", "Max t1 0.5"}),
    chain("empty", {random_tensor({0, 5}, 1), random_tensor({5}, 2)}, {"Add x0 x1", "Erf t0"}),
    chain("where", {random_tensor({4, 33}, 1), flags({4, 33}), flags({4, 1})},
          {"Less x0 0.25", "And t0 x1", "Not x2", "Or t1 t2", "Where t3 x0 -1", "Exp t4"}),
    chain("choice", {random_tensor({4, 33}, 1), flags({})}, {"Neg x0", "Where x1 t0 2"}),
    chain("one_side", {flags({3, 50}), random_tensor({50}, 2)}, {"Where x0 x1 0", "Softplus t0"}),
    chain("powers", {random_tensor({77}, 1, 0.5, 2), random_tensor({77}, 2, -2, 2)}, {"Pow x0 2", "Pow t0 x1", "Log t1", "Pow x0 1", "Div t2 t3"}),
    chain("repeated", {random_tensor({3, 40}, 1), random_tensor({1}, 2)}, {"Exp x1", "Floor t0", "Clip t0 1 1.5", "Sub t2 t1", "Mul x0 t3"}),
    chain("unread", {random_tensor({6, 9}, 1), flags({9}), random_tensor({6, 1}, 2)}, {"Exp x0"}),
    chain("eight_operands",
          {random_tensor({5, 6, 23}, 1), random_tensor({6, 23}, 2), random_tensor({23}, 3), random_tensor({5, 1, 1}, 4), random_tensor({6, 1}, 5),
           random_tensor({5, 6, 1}, 6), random_tensor({5, 1, 23}, 7), random_tensor({}, 8)},
          {"Add x0 x1", "Mul t0 x2", "Sub t1 x3", "Add t2 x4", "Mul t3 x5", "Max t4 x6", "Add t5 x7", "Sigmoid t6"}),
});

TEST(FusedElementwise, RefusesWhatIsNoProgram) {
  const auto refuses = [](Lines lines, const char* what, std::vector<DType> types = {DType::kF32}) {
    Graph g;
    Rewriter rw(g);
    std::vector<ValueId> inputs;
    for (DType t : types) inputs.push_back(rw.add_input(fmt::format("x{}", inputs.size()), t, {4}));
    EXPECT_THROW(rw.emit("FusedElementwise", inputs, program(std::move(lines))), Error) << what;
  };
  refuses({}, "no line");
  refuses({""}, "an empty line");
  refuses({"Softmax x0"}, "no function");
  refuses({"Exp x1"}, "no such operand");
  refuses({"Exp t0"}, "its own result");
  refuses({"Exp"}, "no operand");
  refuses({"Exp x0 x0"}, "one too many");
  refuses({"LeakyRelu x0"}, "no parameter");
  refuses({"Add x0 two"}, "no number");
  refuses({"Clip x0 0 x0"}, "a bound that is no number");
  refuses({"Less x0 0"}, "conditions as result");
  refuses({"Not x0", "Where t0 1 2"}, "a number as condition");
  refuses({"Less x0 0", "Exp t0"}, "a condition as number");
  refuses({"Exp x0"}, "a condition as number", {DType::kBool});
  refuses({"Add x0 x1"}, "two types", {DType::kF32, DType::kF64});
  refuses({"Exp x0"}, "integers", {DType::kI64});
  refuses(Lines(33, "Exp x0"), "too long");
  refuses({"Exp x0"}, "too many operands", std::vector<DType>(9, DType::kF32));
}

TEST(FusedElementwise, NumbersKeepTheirBits) {
  for (float x : {0.1f, 1.0f / 3, 1e-45f, 3.4028235e38f, -0.0f, -std::numeric_limits<float>::infinity()}) {
    const kernels::Chain c = ops::parse_program({fmt::format("Add x0 {}", ops::program_number(static_cast<double>(x)))}, 1);
    EXPECT_EQ(static_cast<float>(c.numbers.at(0)), x);
    EXPECT_EQ(std::signbit(c.numbers.at(0)), std::signbit(x));
  }
}

}  // namespace
}  // namespace ds::test
