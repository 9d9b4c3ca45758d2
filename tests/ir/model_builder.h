// Builds ModelProtos for the importer's tests, valid or not.
#pragma once

#include <gtest/gtest.h>
#include <onnx/onnx_pb.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "libds/base/error.h"

namespace ds::test {

class ModelBuilder {
 public:
  explicit ModelBuilder(int64_t opset = 17, int64_t ir = 8) {
    model.set_ir_version(ir);
    auto* import = model.add_opset_import();
    import->set_domain("");
    import->set_version(opset);
    graph().set_name("g");
  }

  onnx::GraphProto& graph() { return *model.mutable_graph(); }

  static void set_type(onnx::ValueInfoProto& info, const std::string& name, const std::vector<std::string>& dims, int dtype) {
    info.set_name(name);
    auto& type = *info.mutable_type()->mutable_tensor_type();
    type.set_elem_type(dtype);
    type.mutable_shape();
    for (const std::string& d : dims) {
      auto& dim = *type.mutable_shape()->add_dim();
      if (d.empty()) continue;
      if (isdigit(d[0]) || d[0] == '-') dim.set_dim_value(std::stoll(d));
      else dim.set_dim_param(d);
    }
  }
  onnx::ValueInfoProto& input(const std::string& name, const std::vector<std::string>& dims, int dtype = 1) {
    auto& info = *graph().add_input();
    set_type(info, name, dims, dtype);
    return info;
  }
  onnx::ValueInfoProto& output(const std::string& name, const std::vector<std::string>& dims, int dtype = 1) {
    auto& info = *graph().add_output();
    set_type(info, name, dims, dtype);
    return info;
  }
  onnx::NodeProto& node(const std::string& op, const std::vector<std::string>& inputs, const std::vector<std::string>& outputs,
                        const std::string& name = "n") {
    auto& n = *graph().add_node();
    n.set_op_type(op);
    n.set_name(name);
    for (const auto& i : inputs) n.add_input(i);
    for (const auto& o : outputs) n.add_output(o);
    return n;
  }
  onnx::TensorProto& initializer(const std::string& name, const std::vector<int64_t>& dims, int dtype) {
    auto& t = *graph().add_initializer();
    t.set_name(name);
    t.set_data_type(dtype);
    for (int64_t d : dims) t.add_dims(d);
    return t;
  }
  onnx::TensorProto& floats(const std::string& name, const std::vector<int64_t>& dims, const std::vector<float>& values) {
    auto& t = initializer(name, dims, 1);
    for (float v : values) t.add_float_data(v);
    return t;
  }
  onnx::TensorProto& ints(const std::string& name, const std::vector<int64_t>& values) {
    auto& t = initializer(name, {static_cast<int64_t>(values.size())}, 7);
    for (int64_t v : values) t.add_int64_data(v);
    return t;
  }

  std::string bytes() const { return model.SerializeAsString(); }

  onnx::ModelProto model;
};

inline void set_attr(onnx::NodeProto& n, const std::string& name, int64_t v) {
  auto& a = *n.add_attribute();
  a.set_name(name);
  a.set_type(onnx::AttributeProto::INT);
  a.set_i(v);
}
inline void set_attr(onnx::NodeProto& n, const std::string& name, float v) {
  auto& a = *n.add_attribute();
  a.set_name(name);
  a.set_type(onnx::AttributeProto::FLOAT);
  a.set_f(v);
}
inline void set_attr(onnx::NodeProto& n, const std::string& name, const std::string& v) {
  auto& a = *n.add_attribute();
  a.set_name(name);
  a.set_type(onnx::AttributeProto::STRING);
  a.set_s(v);
}
inline void set_attr(onnx::NodeProto& n, const std::string& name, const std::vector<int64_t>& v) {
  auto& a = *n.add_attribute();
  a.set_name(name);
  a.set_type(onnx::AttributeProto::INTS);
  for (int64_t x : v) a.add_ints(x);
}
inline void set_attr(onnx::NodeProto& n, const std::string& name, const std::vector<float>& v) {
  auto& a = *n.add_attribute();
  a.set_name(name);
  a.set_type(onnx::AttributeProto::FLOATS);
  for (float x : v) a.add_floats(x);
}

// Runs `body`, which must throw a ds::Error of `code` whose text contains every one of `parts` and
// is one line.
inline void expect_error(ExitCode code, const std::vector<std::string>& parts, const std::function<void()>& body) {
  try {
    body();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& e) {
    EXPECT_EQ(static_cast<int>(e.code()), static_cast<int>(code)) << e.what();
    for (const std::string& part : parts) EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
  }
}

// A folder that is removed at the end of the test.
class Folder {
 public:
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "ds-onnx-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
    path_ = pattern;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path_ / name, std::ios::binary) << bytes;
    return *this / name;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace ds::test
