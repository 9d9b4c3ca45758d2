// Checkpoints: everything a training needs to go on as if it had never stopped, bit for bit.
//
// One file a checkpoint, DIR/step-NNNNNNNNNNNN.ckpt, written atomically. It is an .npz archive, so
// numpy can look into it: the state tensors under their names (bf16 as u16 bit patterns), numbers
// that travel along, and "__checkpoint__", a JSON object with step, epoch, seed and fingerprint.
// The archive's checksums are verified on reading.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "libds/data/npz.h"

namespace ds {

struct Checkpoint {
  int64_t step = 0;   // steps done over the whole training
  int64_t epoch = 0;  // epochs done
  uint64_t seed = 0;
  // Stands for everything that must be equal for the run to be the same: model, data, options.
  std::string fingerprint;
  std::map<std::string, double> numbers;  // sums of the running epoch, the best validation so far, ...
  NamedTensors states;
};

// Makes the folder if needed, writes the checkpoint, then removes all but the newest `keep`
// (at least 1) and what killed runs left half-written. Returns the path.
std::string save_checkpoint(const std::string& folder, const Checkpoint& checkpoint, int keep);

// Throws bad data when the file is damaged.
Checkpoint load_checkpoint(const std::string& path);

// The newest checkpoint that can be read; damaged ones are passed over with a warning. Nothing
// when there is none, or no folder. Throws when it was made by another training (fingerprint).
std::optional<Checkpoint> latest_checkpoint(const std::string& folder, const std::string& fingerprint);

}  // namespace ds
