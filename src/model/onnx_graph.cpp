#include "onnx_graph.hpp"

#include <onnx/onnx_pb.h>

#include <limits>
#include <stdexcept>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/version.hpp"

namespace clip_lora::model {
namespace {

constexpr std::int64_t kIrVersion = 8;
constexpr std::int64_t kOpset = 17;
constexpr std::size_t kLargestMessage = std::numeric_limits<std::int32_t>::max();
constexpr std::size_t kInitializerHeader = 128;  // more than its type, eight dimensions and lengths take

void set_attribute(onnx::AttributeProto& attribute, std::int64_t value) {
  attribute.set_type(onnx::AttributeProto::INT);
  attribute.set_i(value);
}

void set_attribute(onnx::AttributeProto& attribute, const OnnxInts& values) {
  attribute.set_type(onnx::AttributeProto::INTS);
  for (const auto value : values) attribute.add_ints(value);
}

void set_attribute(onnx::AttributeProto& attribute, double value) {
  attribute.set_type(onnx::AttributeProto::FLOAT);
  attribute.set_f(static_cast<float>(value));
}

void describe_value(onnx::ValueInfoProto& info, const std::string& name, OnnxType type,
                    const OnnxInts& shape) {
  info.set_name(name);
  auto& tensor = *info.mutable_type()->mutable_tensor_type();
  tensor.set_elem_type(static_cast<std::int32_t>(type));
  for (const auto size : shape) {
    auto& dimension = *tensor.mutable_shape()->add_dim();
    if (size == kOnnxBatch) {
      dimension.set_dim_param("batch");
    } else {
      dimension.set_dim_value(size);
    }
  }
}

std::size_t element_bytes(OnnxType type) {
  switch (type) {
    case OnnxType::kFloat:
      return 4;
    case OnnxType::kInt64:
      return 8;
    case OnnxType::kHalf:
      return 2;
  }
  throw std::logic_error("an ONNX type of unknown size");
}

std::size_t byte_count(const OnnxTensor& tensor) {
  std::size_t bytes = element_bytes(tensor.type);
  for (const auto size : tensor.shape) bytes *= static_cast<std::size_t>(size);
  return bytes;
}

void fill(onnx::TensorProto& proto, const std::string& name, const OnnxTensor& tensor) {
  proto.set_name(name);
  proto.set_data_type(static_cast<std::int32_t>(tensor.type));
  for (const auto size : tensor.shape) proto.add_dims(size);
  proto.set_raw_data(tensor.bytes());
}

}  // namespace

OnnxGraph::OnnxGraph(const std::string& name) : name_(name), graph_(std::make_unique<onnx::GraphProto>()) {
  graph_->set_name(name);
}

OnnxGraph::~OnnxGraph() = default;

OnnxValue OnnxGraph::input(const std::string& name, OnnxType type, const OnnxInts& shape) {
  describe_value(*graph_->add_input(), name, type, shape);
  return name;
}

void OnnxGraph::output(const OnnxValue& value, OnnxType type, const OnnxInts& shape) {
  describe_value(*graph_->add_output(), value, type, shape);
}

OnnxValue OnnxGraph::initializer(const std::string& name, const OnnxTensor& tensor) {
  if (initializer_names_.insert(name).second) initializers_.emplace_back(name, tensor);
  return name;
}

onnx::NodeProto& OnnxGraph::add_node(const std::string& op, const std::string& name,
                                     const std::vector<OnnxValue>& inputs, const OnnxAttributes& attributes) {
  onnx::NodeProto& node = *graph_->add_node();
  node.set_op_type(op);
  node.set_name(name);
  for (const auto& value : inputs) node.add_input(value);
  for (const auto& [key, value] : attributes) {
    onnx::AttributeProto& attribute = *node.add_attribute();
    attribute.set_name(key);
    std::visit([&](const auto& typed) { set_attribute(attribute, typed); }, value);
  }
  return node;
}

OnnxValue OnnxGraph::node(const std::string& op, const std::string& name,
                          const std::vector<OnnxValue>& inputs, const OnnxAttributes& attributes) {
  add_node(op, name, inputs, attributes).add_output(name);
  return name;
}

std::vector<OnnxValue> OnnxGraph::split_in_three(const std::string& name, const OnnxValue& x,
                                                 std::int64_t axis) {
  std::vector<OnnxValue> parts = {name + ".0", name + ".1", name + ".2"};
  onnx::NodeProto& split = add_node("Split", name, {x}, {{"axis", axis}});
  for (const auto& part : parts) split.add_output(part);
  return parts;
}

void OnnxGraph::require_size_of_protobuf(std::size_t rest_bytes) const {
  std::size_t bytes = rest_bytes;
  bool shrinks = false;
  for (const auto& [name, tensor] : initializers_) {
    bytes += name.size() + kInitializerHeader + byte_count(tensor);
    shrinks = shrinks || (tensor.type == OnnxType::kFloat && name.ends_with(".weight"));
  }
  if (bytes <= kLargestMessage) return;
  throw ConfigError("ONNX graph '" + name_ + "': takes " + std::to_string(bytes) +
                    " bytes, expected at most " + std::to_string(kLargestMessage) + ", protobuf's limit" +
                    (shrinks ? " (hint: --dtype fp16)" : " (hint: another --to has no such limit)"));
}

std::string OnnxGraph::serialise(const std::map<std::string, std::string>& metadata) const {
  onnx::ModelProto model;
  model.set_ir_version(kIrVersion);
  model.add_opset_import()->set_version(kOpset);
  model.set_producer_name("clip_lora");
  model.set_producer_version(kVersion);
  for (const auto& [key, value] : metadata) {
    auto& property = *model.add_metadata_props();
    property.set_key(key);
    property.set_value(value);
  }
  *model.mutable_graph() = *graph_;
  require_size_of_protobuf(model.ByteSizeLong());
  for (const auto& [name, tensor] : initializers_) {
    fill(*model.mutable_graph()->add_initializer(), name, tensor);
  }
  std::string bytes;
  if (!model.SerializeToString(&bytes)) throw std::logic_error("protobuf cannot serialise '" + name_ + "'");
  return bytes;
}

}  // namespace clip_lora::model
