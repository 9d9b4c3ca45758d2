// The logarithm's polynomial, which all vector widths share: log((1 + s) / (1 - s)) = 2 s (1 + u q(u)), u = s^2 <= 1/9.
// Minimax fit of (atanh(s) / s - 1) / u; error 3e-10, so that float arithmetic decides: 2e-7.
#pragma once

namespace ds::kernels {

constexpr float kLogPolynomial[] = {0.33333337f, 0.19999465f, 0.14307813f, 0.107200034f, 0.12129109f};

}  // namespace ds::kernels
