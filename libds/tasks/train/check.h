// ds-train --check: can this model be trained, and if not, what stands in the way.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace ds {

struct TrainCheck {
  struct Operator {
    std::string op;                   // "NonZero", "com.example.Fused"
    int64_t nodes = 0;
    std::vector<std::string> needed;  // labels of the nodes a gradient would have to pass: between a parameter and the loss
  };
  std::string model;
  bool trainable = false;
  std::string reason;                 // why not, in one line; empty when it is
  int64_t nodes = 0;
  int64_t parameters = 0;             // tensors that training would change
  int64_t parameter_elements = 0;
  std::vector<std::string> unreached; // of these, those the loss does not depend on: they would stay as they are
  std::vector<Operator> unsupported;  // operators this library does not have; nothing is known about their gradients
  std::vector<Operator> no_gradient;  // operators without a gradient, in the way or not
};

// `freeze`: patterns of parameters that stay as they are. Throws for files that are no model. What the file holds is an answer, not an error.
TrainCheck check_trainable(const std::string& path, std::span<const std::string> freeze = {});

std::string train_check_text(const TrainCheck& check);
// See man/ds-train-check.schema.json.
std::string train_check_json(const TrainCheck& check);

}  // namespace ds
