// Cost tables as files: what `ds-bench calibrate` writes and --costs reads. JSON:
//
//   {"schema": "ds-costs/1", "version": "0.1.0", "date": "2026-01-31T12:00:00Z", "cpu": "...", "isa": "vnni", "threads": 2,
//    "rates": {"f32": {"portable": 3.1, "avx2": 31, ...}, "bf16": {...}, "f16": {...}, "i8": {...}}, "bandwidth": 9.7,
//    "hash": "0123456789abcdef"}
//
// with the units of base/cost_table.h. The hash covers all but schema and date.
#pragma once

#include <memory>
#include <string>

#include "libds/base/cost_table.h"

namespace ds {

// Where calibrate writes unless told otherwise: $XDG_CACHE_HOME/ds/costs.json, else ~/.cache/ds/costs.json. Empty where the
// environment names no home. Nothing is read from there unless it is named.
std::string default_cost_file();
// The same, with its folder made where it is missing. Throws kUsage where there is no home, kCantCreate.
std::string make_default_cost_folder();

std::string cost_file_text(const CostTable& table);
// Throws kNoInput; kBadData, in one line that begins with the path, for what is no such table, for one that was changed
// since it was written, and for one of another CPU or another version of ds.
std::shared_ptr<const CostTable> read_cost_file(const std::string& path);

// What the user named: `path`, else the file in DS_COSTS, else (null) nothing: the built-in table.
std::shared_ptr<const CostTable> named_costs(const std::string& path);

}  // namespace ds
