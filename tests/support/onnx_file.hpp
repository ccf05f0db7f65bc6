#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace clip_lora::testing {

/// An ONNX model as ONNX's own protobuf definitions read it, without a type of theirs.
struct OnnxFile {
  struct Initializer {
    std::int32_t element_type = 0;  ///< ONNX's number
    std::vector<std::int64_t> shape;
    std::string bytes;
  };

  std::int64_t ir_version = 0;
  std::map<std::string, std::int64_t> opsets;  ///< by domain
  std::string producer;
  std::map<std::string, std::string> metadata;
  std::vector<std::string> inputs;   ///< "images: 1 [batch, 3, 24, 24]", where 1 is ONNX's number for float32
  std::vector<std::string> outputs;  ///< likewise
  std::map<std::string, Initializer> initializers;
  std::vector<float> epsilons;  ///< of every LayerNormalization
};

/// Throws std::runtime_error for bytes that are no ONNX model.
OnnxFile read_onnx(const std::string& bytes);

/// What ONNX's own checker and its strict inference of types and shapes find wrong, or "".
std::string onnx_complaint(const std::string& bytes);

}  // namespace clip_lora::testing
