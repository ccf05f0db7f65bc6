#include "support/onnx_file.hpp"

#include <onnx/checker.h>
#include <onnx/onnx_pb.h>
#include <onnx/shape_inference/implementation.h>

#include <stdexcept>

namespace clip_lora::testing {
namespace {

onnx::ModelProto parse(const std::string& bytes) {
  onnx::ModelProto model;
  if (!model.ParseFromString(bytes))
    throw std::runtime_error("protobuf cannot parse these bytes as an ONNX model");
  return model;
}

std::string describe(const onnx::ValueInfoProto& info) {
  const auto& type = info.type().tensor_type();
  std::string sizes;
  for (const auto& dimension : type.shape().dim()) {
    sizes += (sizes.empty() ? "" : ", ");
    sizes += dimension.has_dim_param() ? dimension.dim_param() : std::to_string(dimension.dim_value());
  }
  return info.name() + ": " + std::to_string(type.elem_type()) + " [" + sizes + "]";
}

}  // namespace

OnnxFile read_onnx(const std::string& bytes) {
  const onnx::ModelProto model = parse(bytes);
  OnnxFile file;
  file.ir_version = model.ir_version();
  file.producer = model.producer_name();
  for (const auto& opset : model.opset_import()) file.opsets[opset.domain()] = opset.version();
  for (const auto& property : model.metadata_props()) file.metadata[property.key()] = property.value();
  for (const auto& input : model.graph().input()) file.inputs.push_back(describe(input));
  for (const auto& output : model.graph().output()) file.outputs.push_back(describe(output));
  for (const auto& tensor : model.graph().initializer()) {
    file.initializers[tensor.name()] = {
        tensor.data_type(), {tensor.dims().begin(), tensor.dims().end()}, tensor.raw_data()};
  }
  for (const auto& node : model.graph().node()) {
    for (const auto& attribute : node.attribute()) {
      if (attribute.name() == "epsilon") file.epsilons.push_back(attribute.f());
    }
  }
  return file;
}

std::string onnx_complaint(const std::string& bytes) {
  onnx::ModelProto model = parse(bytes);
  const onnx::ShapeInferenceOptions strict(/*check_type=*/true, /*strict_mode=*/1, /*data_prop=*/true);
  try {
    onnx::checker::check_model(model);
    onnx::shape_inference::InferShapes(model, onnx::OpSchemaRegistry::Instance(), strict);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

}  // namespace clip_lora::testing
