// The result as JSON: man/ds-bench.schema.json.
#include <nlohmann/json.hpp>

#include "libds/mem/tier.h"
#include "libds/tasks/bench/bench.h"
#include "libds/tasks/bench/row_text.h"

namespace ds::bench {
namespace {

using Json = nlohmann::ordered_json;

Json optional_json(const auto& value) { return value ? Json(*value) : Json(nullptr); }
Json positive_json(double value) { return value > 0 ? Json(value) : Json(nullptr); }

Json vary_json(const VaryReport& v) {
  Json j;
  j["dimensions"] = Json::array();
  for (size_t i = 0; i < v.dims.size(); ++i) j["dimensions"].push_back({{"name", v.dims[i]}, {"sizes", v.sizes[i]}});
  j["first_seconds"] = v.first_seconds;
  j["repeat_seconds"] = v.repeat_seconds;
  j["return_seconds"] = v.return_seconds;
  return j;
}

Json profile_json(const Profile& p) {
  Json j;
  j["runs"] = p.runs;
  j["seconds"] = p.seconds;
  j["operators"] = Json::array();
  for (const ProfileOp& op : p.ops)
    j["operators"].push_back({{"operator", op.op}, {"kernels", op.kernels}, {"nodes", op.nodes}, {"seconds", op.seconds}, {"flops", op.flops},
                              {"bytes", op.bytes}, {"roofline", op.roofline()}});
  j["steps"] = Json::array();
  for (const ProfileStep& s : p.steps)
    j["steps"].push_back({{"node", s.node}, {"operator", s.op}, {"kernel", s.kernel}, {"dtype", dtype_name(s.dtype)}, {"seconds", s.seconds},
                          {"flops", s.flops}, {"bytes", s.bytes}, {"roofline", s.roofline()}});
  return j;
}

Json row_json(const RowReport& r) {
  Json j;
  j["model"] = r.settings.model;
  j["precision"] = r.settings.precision;
  j["threads"] = r.settings.threads;
  j["batch"] = r.batch;
  j["inputs"] = Json::array();
  for (const auto& [name, shape] : r.inputs) j["inputs"].push_back({{"name", name}, {"shape", shape}});
  j["file_bytes"] = r.file_bytes > 0 ? Json(r.file_bytes) : Json(nullptr);
  j["parameters"] = r.parameters;
  j["nonzero_parameters"] = r.nonzero_parameters;
  j["parameter_bytes"] = r.parameter_bytes;
  j["dtype"] = r.dtype;
  j["flops"] = optional_json(r.flops);
  j["load_seconds"] = r.load_seconds;
  j["compile_seconds"] = r.compile_seconds;
  j["first_run_seconds"] = r.vary ? Json(nullptr) : Json(r.first_run_seconds);
  j["latency_seconds"] = {{"min", r.time.min}, {"max", r.time.max}, {"mean", r.time.mean}, {"stddev", r.time.stddev}, {"p50", r.time.p50},
                          {"p50_low", r.time.p50_interval.low}, {"p50_high", r.time.p50_interval.high}, {"p90", r.time.p90},
                          {"p95", r.time.p95}, {"p99", r.time.p99}};
  j["samples_per_second"] = static_cast<double>(r.batch) / r.time.p50;
  j["speedup"] = {{"value", r.ratio.speedup}, {"low", r.ratio.low}, {"high", r.ratio.high}};
  j["flops_per_second"] = optional_json(r.flops_per_second);
  j["ds_compute_efficiency"] = optional_json(r.efficiency);
  j["planned_bytes"] = r.planned && !r.vary ? Json(r.planned_bytes) : Json(nullptr);
  j["measured_bytes"] = r.vary ? Json(nullptr) : Json(r.measured_bytes);
  j["eager_reason"] = r.planned ? Json(nullptr) : Json(r.eager_reason);
  j["top1"] = optional_json(r.top1);
  j["loss"] = optional_json(r.loss);
  j["samples"] = r.samples;
  j["baseline"] = r.baseline ? Json{{"p50", r.baseline->p50}, {"change", r.baseline->change}, {"regressed", r.baseline->regressed}} : Json(nullptr);
  j["vary"] = r.vary ? vary_json(*r.vary) : Json(nullptr);
  j["profile"] = r.profile ? profile_json(*r.profile) : Json(nullptr);
  j["seconds"] = r.seconds;
  return j;
}

}  // namespace

std::string bench_json(const BenchReport& report) {
  Json json;
  json["schema"] = kSchema;
  json["version"] = report.version;
  json["date"] = report.date;
  json["cpu"] = report.cpu;
  json["os"] = report.os;
  json["seed"] = report.seed;
  json["data"] = report.random_inputs ? Json(nullptr) : Json(report.data);
  json["static_plan"] = report.static_plan;
  json["rounds"] = report.rounds;
  json["costs"] = report.costs ? Json{{"file", report.costs->file}, {"hash", report.costs->hash()}} : Json(nullptr);
  json["peaks"] = Json::array();
  for (const Peaks& p : report.peaks)
    json["peaks"].push_back({{"threads", p.threads}, {"f32_flops_per_second", positive_json(p.f32)}, {"i8_flops_per_second", positive_json(p.i8)},
                             {"bf16_flops_per_second", positive_json(p.bf16)},
                             {"f16_flops_per_second", positive_json(p.f16)},
                             {"bytes_per_second", positive_json(p.bandwidth)}});
  json["ds_memory_usage"] = Json::object();
  for (int t = 0; t < kTierCount; ++t)
    json["ds_memory_usage"][std::string(tier_name(static_cast<Tier>(t)))] = {{"bytes", tier_bytes(static_cast<Tier>(t))},
                                                                             {"peak_bytes", tier_peak_bytes(static_cast<Tier>(t))}};
  json["rows"] = Json::array();
  for (const RowReport& r : report.rows) json["rows"].push_back(row_json(r));
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace ds::bench
