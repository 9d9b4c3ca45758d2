// One array in numpy's .npy format (versions 1 to 3 of numpy.lib.format), and named arrays.
//
// Read: C and Fortran order (converted to C), either byte order, bool, all integers, f16, f32, f64.
// Pickled objects, strings, complex and structured types are refused. Written: version 1, C order,
// little-endian; bf16, which numpy has no name for, is written as f32 (no bit is lost).
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "libds/data/inflate.h"
#include "libds/mem/tensor.h"

namespace ds {

// In the order of the file.
using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

// Whether `bytes` begin like a .npy file.
bool looks_like_npy(Bytes bytes);

// With an `owner` that keeps `bytes` alive, the elements are borrowed where possible, else copied.
Tensor parse_npy(Bytes bytes, std::shared_ptr<const void> owner = nullptr);
// "-": standard input. Files are mapped. Errors carry the path.
Tensor read_npy(const std::string& path);

std::string npy_bytes(const Tensor& tensor);
void write_npy(const std::string& path, const Tensor& tensor);  // atomic; "-": standard output

// Reverses the bytes of each of `count` elements of `size` bytes.
void swap_bytes(void* data, size_t count, size_t size);

}  // namespace ds
