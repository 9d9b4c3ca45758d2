// Conversion to and from element types that are only stored: 8- and 4-bit floats by way of float, packed
// integers of 4 and 2 bits by way of int32_t. On raw pointers, serial.
//
// Packed elements fill bytes from the low bits up; `begin`, the first element's place, is a multiple of
// what one byte holds, and so is n but at the end of a tensor.
#pragma once

#include <cstdint>

#include "libds/base/float8.h"

namespace ds::kernels {

// F: the 8-bit types of libds/base/float8.h.
template <typename F>
void widen(int64_t n, const F* x, float* out);
// Rounds to nearest even. `saturate`: numbers beyond the largest become it, instead of infinity or NaN.
template <typename F>
void narrow(int64_t n, const float* x, bool saturate, F* out);

// How a number between two powers of two becomes one: away from zero, towards it, or to the nearer one, upwards in
// the middle.
enum class PowerRounding { kUp, kDown, kNearest };
// Zero and what lies below the smallest power become it (saturate) or NaN, infinity and what lies above the
// largest likewise. Negative numbers have no power: NaN.
void narrow_to_power(int64_t n, const float* x, bool saturate, PowerRounding rounding, f8e8m0* out);

// bits: 4 or 2; is_signed: two's complement.
void unpack(int bits, bool is_signed, int64_t begin, int64_t n, const uint8_t* x, int32_t* out);
// Higher bits are dropped.
void pack(int bits, int64_t begin, int64_t n, const int32_t* x, uint8_t* out);
// f4e2m1, two to a byte; always saturates.
void unpack_f4(int64_t begin, int64_t n, const uint8_t* x, float* out);
void pack_f4(int64_t begin, int64_t n, const float* x, uint8_t* out);

}  // namespace ds::kernels
