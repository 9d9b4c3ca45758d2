// Arrays in the IDX format of the MNIST files, plain or gzip-compressed: two zero bytes, element
// type, rank, big-endian u32 sizes, big-endian elements. Types: u8, i8, i16, i32, f32, f64.
#pragma once

#include <string>

#include "libds/data/inflate.h"
#include "libds/mem/tensor.h"

namespace ds {

bool looks_like_gzip(Bytes bytes);
bool looks_like_idx(Bytes bytes);  // uncompressed

// Plain or gzip, told apart by content. The size must be exactly what the header says.
Tensor parse_idx(Bytes bytes);
// "-": standard input. Errors carry the path.
Tensor read_idx(const std::string& path);

}  // namespace ds
