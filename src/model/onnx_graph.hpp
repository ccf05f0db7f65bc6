#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

// No LibTorch here, and no protobuf in this header: LibTorch's include folder holds another version of
// protobuf.

namespace onnx {
class GraphProto;
class NodeProto;
}  // namespace onnx

namespace clip_lora::model {

/// Element types, with ONNX's own numbers (TensorProto.DataType).
enum class OnnxType : std::int32_t { kFloat = 1, kInt64 = 7, kHalf = 10 };

/// A tensor in a graph, by its name.
using OnnxValue = std::string;

using OnnxInts = std::vector<std::int64_t>;
using OnnxAttributes = std::map<std::string, std::variant<std::int64_t, OnnxInts, double>>;

/// The batch axis in the shape of an input or an output.
inline constexpr std::int64_t kOnnxBatch = -1;

/// What an initializer holds.
struct OnnxTensor {
  OnnxType type;
  OnnxInts shape;
  std::function<std::string()> bytes;  ///< row by row, little-endian; called when the graph is written
};

/// An ONNX graph that grows node by node, in an order in which it can be computed.
class OnnxGraph {
 public:
  explicit OnnxGraph(const std::string& name);
  ~OnnxGraph();

  OnnxValue input(const std::string& name, OnnxType type, const OnnxInts& shape);
  void output(const OnnxValue& value, OnnxType type, const OnnxInts& shape);

  /// The second of a name is the first.
  OnnxValue initializer(const std::string& name, const OnnxTensor& tensor);

  /// A node with one output, called like the node.
  OnnxValue node(const std::string& op, const std::string& name, const std::vector<OnnxValue>& inputs,
                 const OnnxAttributes& attributes = {});

  /// Three equal parts along `axis`: `name`.0 and so on.
  std::vector<OnnxValue> split_in_three(const std::string& name, const OnnxValue& x, std::int64_t axis);

  /// The bytes of a ModelProto. Throws ConfigError beyond protobuf's 2 GiB, before the tensors are copied.
  std::string serialise(const std::map<std::string, std::string>& metadata) const;

 private:
  onnx::NodeProto& add_node(const std::string& op, const std::string& name,
                            const std::vector<OnnxValue>& inputs, const OnnxAttributes& attributes);
  void require_size_of_protobuf(std::size_t rest_bytes) const;

  std::string name_;
  std::unique_ptr<onnx::GraphProto> graph_;  ///< without initializers
  std::vector<std::pair<std::string, OnnxTensor>> initializers_;
  std::set<std::string> initializer_names_;
};

}  // namespace clip_lora::model
