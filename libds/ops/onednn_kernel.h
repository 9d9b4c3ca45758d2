// A KernelDef around a oneDNN program (kernels/onednn.h).
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "kernels/onednn.h"
#include "libds/ir/kernel_def.h"

namespace ds::ops {

// Makes the program for a query, or returns null with the reason. Constant weights in the query are packed.
using MakeProgram = std::function<std::unique_ptr<kernels::onednn::Program>(const KernelQuery&, std::string& why)>;

// Accepts f32 without empty operands whenever `make` does. The program's input slots are the node's inputs.
// `addend`: an input that the program expects in its output (Epilogue::add), -1 for none; it is copied
// there unless the two share memory, which the KernelDef allows.
KernelDef onednn_kernel(const char* name, MakeProgram make, int addend = -1);

// Input i of the query for a program that packs it; empty unless it is constant.
kernels::onednn::Content constant_content(const KernelQuery& query, size_t i);

// Lets programs of all plans share what they pack of input i, or of the `part` of it that they are given. Empty without
// a cache. Only for use while the query lives.
kernels::onednn::Content::Share share_content(const KernelQuery& query, size_t i, std::string part);

// oneDNN's block (kernels/onednn.h) of a layout, and back.
int block_of(Layout layout);
Layout layout_of(int block);

}  // namespace ds::ops
