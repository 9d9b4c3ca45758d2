// Named arrays in numpy's .npz format: a zip archive of .npy members.
//
// Read: stored and deflated members (numpy's savez and savez_compressed). Written: stored, in the
// given order, with fixed dates, so that equal arrays give equal bytes.
#pragma once

#include <string>

#include "libds/data/npy.h"

namespace ds {

// Whether `bytes` begin like a zip archive.
bool looks_like_zip(Bytes bytes);

// Names lose their ".npy". With an `owner` that keeps `bytes` alive, stored members are borrowed.
NamedTensors parse_npz(Bytes bytes, std::shared_ptr<const void> owner = nullptr);
// "-": standard input. Errors carry the path and the member.
NamedTensors read_npz(const std::string& path);

std::string npz_bytes(const NamedTensors& arrays);
void write_npz(const std::string& path, const NamedTensors& arrays);  // atomic; "-": standard output

}  // namespace ds
