#include "tests/support/op_check.h"

namespace ds::test {
namespace {

const bool added = add_cases({
    {"Add", {random_tensor({3, 5}, 1), random_tensor({3, 5}, 2)}},
    {"Mul", {random_tensor({2, 5}, 1), random_tensor({2, 5}, 2)}},
    {"Relu", {random_away_from_zero({3, 7}, 1)}},
});

}  // namespace
}  // namespace ds::test
