#include "clip_lora/model/onnx.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "onnx_graph.hpp"

namespace clip_lora::model {
namespace {

constexpr double kLargestHalf = 65504.0;

/// Where a tower's blocks are and how its rows lie.
struct Tower {
  std::string module;  ///< "transformer" of the tower, as the checkpoint calls it
  TowerArchitecture sizes;
  std::int64_t length = 0;  ///< L
  bool causal = false;
};

OnnxType onnx_type(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return OnnxType::kFloat;
    case at::kHalf:
      return OnnxType::kHalf;
    case at::kLong:
      return OnnxType::kInt64;
    default:
      TORCH_CHECK(false, "no type of ONNX is known for ", dtype);
  }
}

/// `tensor` as the file holds it, converted and copied only when it is written.
OnnxTensor onnx_tensor(const at::Tensor& tensor, at::ScalarType dtype) {
  const auto bytes = [tensor, dtype] {
    const at::Tensor stored = tensor.to(dtype).contiguous();
    return std::string(static_cast<const char*>(stored.const_data_ptr()), stored.nbytes());
  };
  return {onnx_type(dtype), tensor.sizes().vec(), bytes};
}

/// CLIP's layers as nodes of one graph. Between layers, the rows of all images or prompts are one matrix,
/// [B L, D], so that every projection is one Gemm with the checkpoint's own weight [out, in].
class OnnxClip {
 public:
  OnnxClip(const std::string& graph_name, const Clip& clip, at::ScalarType dtype)
      : graph_(graph_name), architecture_(clip->architecture()), weights_(state_dict(clip)), dtype_(dtype) {}

  OnnxGraph& graph() { return graph_; }
  OnnxValue image_features();  ///< from a new input `images`: [B, E] float32, normalised
  OnnxValue text_features();   ///< from a new input `tokens`: [B, E] float32, normalised
  OnnxValue logits(const OnnxValue& image_features, const at::Tensor& class_features);  ///< [B, C] float32

 private:
  OnnxValue weight(const std::string& name);
  OnnxValue scalar(const std::string& name, double value);
  OnnxValue integers(const OnnxInts& values);
  OnnxValue reshape(const OnnxValue& x, const std::string& name, const OnnxInts& shape);
  OnnxValue cast(const OnnxValue& x, const std::string& name, at::ScalarType dtype);

  OnnxValue linear(const OnnxValue& x, const std::string& name, const std::string& separator = ".");
  OnnxValue layer_norm(const OnnxValue& x, const std::string& name, const TowerArchitecture& tower);
  OnnxValue activation(const OnnxValue& x, const std::string& name, Activation activation);
  OnnxValue causal_mask(std::int64_t length);
  OnnxValue heads(const OnnxValue& x, const std::string& name, const Tower& tower,
                  const OnnxInts& permutation);
  OnnxValue attention(const OnnxValue& x, const std::string& name, const Tower& tower);
  OnnxValue block(const OnnxValue& x, const std::string& name, const Tower& tower);
  OnnxValue blocks(const OnnxValue& x, const Tower& tower);
  OnnxValue patch_rows(const OnnxValue& images);
  OnnxValue normalised(const OnnxValue& x, const std::string& name);

  OnnxGraph graph_;
  ClipArchitecture architecture_;
  io::StateDict weights_;
  at::ScalarType dtype_;
};

OnnxValue OnnxClip::weight(const std::string& name) {
  const at::Tensor& tensor = weights_.at(name);
  if (dtype_ == at::kHalf) {
    const auto [smallest, largest] = at::aminmax(tensor);
    const double extent = std::max(-smallest.item<double>(), largest.item<double>());
    if (extent > kLargestHalf) {
      throw ConfigError("ONNX in float16: '" + name + "' has a value of magnitude " + std::to_string(extent) +
                        ", expected at most 65504 (hint: --dtype fp32)");
    }
  }
  return graph_.initializer(name, onnx_tensor(tensor, dtype_));
}

OnnxValue OnnxClip::scalar(const std::string& name, double value) {
  return graph_.initializer("constant." + name, onnx_tensor(at::scalar_tensor(value, at::kFloat), dtype_));
}

OnnxValue OnnxClip::integers(const OnnxInts& values) {
  std::string name = "constant.integers";
  for (const auto value : values) name.append("_").append(std::to_string(value));
  return graph_.initializer(name, onnx_tensor(at::tensor(values, at::kLong), at::kLong));
}

OnnxValue OnnxClip::reshape(const OnnxValue& x, const std::string& name, const OnnxInts& shape) {
  return graph_.node("Reshape", name, {x, integers(shape)});
}

OnnxValue OnnxClip::cast(const OnnxValue& x, const std::string& name, at::ScalarType dtype) {
  if (dtype_ == at::kFloat) return x;
  return graph_.node("Cast", name, {x}, {{"to", static_cast<std::int64_t>(onnx_type(dtype))}});
}

OnnxValue OnnxClip::linear(const OnnxValue& x, const std::string& name, const std::string& separator) {
  return graph_.node("Gemm", name,
                     {x, weight(name + separator + "weight"), weight(name + separator + "bias")},
                     {{"transB", 1}});
}

OnnxValue OnnxClip::layer_norm(const OnnxValue& x, const std::string& name, const TowerArchitecture& tower) {
  // Its statistics are float32 whatever the type of x: stash_type's default.
  return graph_.node("LayerNormalization", name, {x, weight(name + ".weight"), weight(name + ".bias")},
                     {{"axis", -1}, {"epsilon", tower.layer_norm_epsilon}});
}

OnnxValue OnnxClip::activation(const OnnxValue& x, const std::string& name, Activation activation) {
  if (activation == Activation::kQuickGelu) {  // x · sigmoid(1.702 x)
    const OnnxValue scaled = graph_.node("Mul", name + ".scaled", {x, scalar("quick_gelu", 1.702)});
    const OnnxValue gate = graph_.node("Sigmoid", name + ".sigmoid", {scaled});
    return graph_.node("Mul", name, {x, gate});
  }
  // x (1 + erf(x / √2)) / 2, in the order that runtimes recognise as GELU
  const OnnxValue scaled =
      graph_.node("Div", name + ".scaled", {x, scalar("root_of_2", std::numbers::sqrt2)});
  const OnnxValue error = graph_.node("Erf", name + ".erf", {scaled});
  const OnnxValue gate = graph_.node("Add", name + ".gate", {error, scalar("one", 1.0)});
  const OnnxValue doubled = graph_.node("Mul", name + ".doubled", {x, gate});
  return graph_.node("Mul", name, {doubled, scalar("half", 0.5)});
}

OnnxValue OnnxClip::causal_mask(std::int64_t length) {
  const at::Tensor mask =
      at::full({length, length}, -std::numeric_limits<float>::infinity()).triu(/*diagonal=*/1);
  return graph_.initializer("constant.causal_mask", onnx_tensor(mask, dtype_));  // [L, L]
}

/// [B L, D] → [B, L, H, D / H], permuted.
OnnxValue OnnxClip::heads(const OnnxValue& x, const std::string& name, const Tower& tower,
                          const OnnxInts& permutation) {
  const std::int64_t head_width = tower.sizes.width / tower.sizes.heads;
  const OnnxValue apart = reshape(x, name + ".apart", {-1, tower.length, tower.sizes.heads, head_width});
  return graph_.node("Transpose", name, {apart}, {{"perm", permutation}});
}

OnnxValue OnnxClip::attention(const OnnxValue& x, const std::string& name, const Tower& tower) {
  const std::int64_t head_width = tower.sizes.width / tower.sizes.heads;
  const auto qkv =
      graph_.split_in_three(name + ".qkv", linear(x, name + ".in_proj", "_"), /*axis=*/1);  // [B L, D]
  // Scaled before the product, which keeps it within float16's range.
  const OnnxValue scale = scalar("head_scale", 1.0 / std::sqrt(static_cast<double>(head_width)));
  const OnnxValue q =
      heads(graph_.node("Mul", name + ".scaled_q", {qkv[0], scale}), name + ".q", tower, {0, 2, 1, 3});
  const OnnxValue k = heads(qkv[1], name + ".k", tower, {0, 2, 3, 1});  // [B, H, D / H, L]
  const OnnxValue v = heads(qkv[2], name + ".v", tower, {0, 2, 1, 3});  // [B, H, L, D / H]
  OnnxValue scores = graph_.node("MatMul", name + ".scores", {q, k});   // [B, H, L, L]
  if (tower.causal) scores = graph_.node("Add", name + ".masked_scores", {scores, causal_mask(tower.length)});
  const OnnxValue shares = graph_.node("Softmax", name + ".shares", {scores}, {{"axis", -1}});
  const OnnxValue mixed = graph_.node("MatMul", name + ".mixed", {shares, v});  // [B, H, L, D / H]
  const OnnxValue together =
      graph_.node("Transpose", name + ".together", {mixed}, {{"perm", OnnxInts{0, 2, 1, 3}}});
  return linear(reshape(together, name + ".rows", {-1, tower.sizes.width}), name + ".out_proj");
}

OnnxValue OnnxClip::block(const OnnxValue& x, const std::string& name, const Tower& tower) {
  const OnnxValue attended = attention(layer_norm(x, name + ".ln_1", tower.sizes), name + ".attn", tower);
  const OnnxValue middle = graph_.node("Add", name + ".attended", {x, attended});
  const OnnxValue hidden = linear(layer_norm(middle, name + ".ln_2", tower.sizes), name + ".mlp.c_fc");
  const OnnxValue active = activation(hidden, name + ".mlp.activation", tower.sizes.activation);
  return graph_.node("Add", name, {middle, linear(active, name + ".mlp.c_proj")});
}

OnnxValue OnnxClip::blocks(const OnnxValue& x, const Tower& tower) {
  OnnxValue rows = x;
  for (std::int64_t i = 0; i < tower.sizes.layers; ++i) {
    rows = block(rows, tower.module + ".resblocks." + std::to_string(i), tower);
  }
  return rows;
}

/// [B, 3, R, R] → [B, L, D]: the class embedding, then the patches row by row; with their positions.
OnnxValue OnnxClip::patch_rows(const OnnxValue& images) {
  const std::int64_t width = architecture_.vision.width;
  const std::int64_t grid = architecture_.image_size_px / architecture_.patch_size_px;
  const OnnxInts strides(2, architecture_.patch_size_px);
  const OnnxValue map = graph_.node("Conv", "visual.conv1", {images, weight("visual.conv1.weight")},
                                    {{"kernel_shape", strides}, {"strides", strides}});  // [B, D, grid, grid]
  const OnnxValue flat = reshape(map, "visual.conv1.flat", {-1, width, grid * grid});
  const OnnxValue patches = graph_.node("Transpose", "visual.patches", {flat}, {{"perm", OnnxInts{0, 2, 1}}});

  const OnnxValue count = graph_.node("Shape", "visual.image_count", {images}, {{"start", 0}, {"end", 1}});
  const OnnxValue shape =
      graph_.node("Concat", "visual.class_rows.shape", {count, integers({1, width})}, {{"axis", 0}});
  const OnnxValue classes =
      graph_.node("Expand", "visual.class_rows", {weight("visual.class_embedding"), shape});
  const OnnxValue rows = graph_.node("Concat", "visual.rows", {classes, patches}, {{"axis", 1}});
  return graph_.node("Add", "visual.placed_rows", {rows, weight("visual.positional_embedding")});
}

/// Every row of [B, E] divided by its length, in float32: a sum of E squares is too much for float16.
OnnxValue OnnxClip::normalised(const OnnxValue& x, const std::string& name) {
  const OnnxValue precise = cast(x, name + ".float32", at::kFloat);
  const OnnxValue length =
      graph_.node("ReduceL2", name + ".length", {precise}, {{"axes", OnnxInts{1}}, {"keepdims", 1}});
  return graph_.node("Div", name, {precise, length});
}

OnnxValue OnnxClip::image_features() {
  const std::int64_t size = architecture_.image_size_px;
  const std::int64_t width = architecture_.vision.width;
  const std::int64_t grid = size / architecture_.patch_size_px;
  const Tower tower{"visual.transformer", architecture_.vision, grid * grid + 1, /*causal=*/false};

  const OnnxValue images =
      cast(graph_.input("images", OnnxType::kFloat, {kOnnxBatch, 3, size, size}), "images.cast", dtype_);
  const OnnxValue placed = reshape(patch_rows(images), "visual.matrix", {-1, width});  // [B L, D]
  const OnnxValue encoded = blocks(layer_norm(placed, "visual.ln_pre", tower.sizes), tower);
  const OnnxValue apart = reshape(encoded, "visual.encoded", {-1, tower.length, width});  // [B, L, D]
  const OnnxValue first =
      graph_.initializer("constant.first", onnx_tensor(at::zeros({}, at::kLong), at::kLong));
  const OnnxValue classes =
      graph_.node("Gather", "visual.encoded_classes", {apart, first}, {{"axis", 1}});  // [B, D]
  const OnnxValue summary = layer_norm(classes, "visual.ln_post", tower.sizes);
  return normalised(graph_.node("MatMul", "visual.projected", {summary, weight("visual.proj")}),
                    "image_features");
}

OnnxValue OnnxClip::text_features() {
  const std::int64_t width = architecture_.text.width;
  const Tower tower{"transformer", architecture_.text, architecture_.context_length, /*causal=*/true};

  const OnnxValue tokens = graph_.input("tokens", OnnxType::kInt64, {kOnnxBatch, tower.length});
  const OnnxValue embedded =
      graph_.node("Gather", "token_embedding", {weight("token_embedding.weight"), tokens});
  const OnnxValue placed =
      graph_.node("Add", "placed_tokens", {embedded, weight("positional_embedding")});  // [B, L, D]
  const OnnxValue encoded = blocks(reshape(placed, "matrix", {-1, width}), tower);
  const OnnxValue apart = reshape(encoded, "encoded", {-1, tower.length, width});  // [B, L, D]
  // The end token is the largest id, its first place counts.
  const OnnxValue end =
      graph_.node("ArgMax", "end_of_text", {tokens}, {{"axis", 1}, {"keepdims", 1}});  // [B, 1]
  const OnnxValue ends =
      graph_.node("GatherND", "encoded_ends", {apart, end}, {{"batch_dims", 1}});  // [B, D]
  const OnnxValue summary = layer_norm(ends, "ln_final", tower.sizes);
  return normalised(graph_.node("MatMul", "projected", {summary, weight("text_projection")}),
                    "text_features");
}

OnnxValue OnnxClip::logits(const OnnxValue& image_features, const at::Tensor& class_features) {
  const OnnxValue classes = graph_.initializer("class_features", onnx_tensor(class_features, at::kFloat));
  const OnnxValue cosines =
      graph_.node("Gemm", "cosines", {image_features, classes}, {{"transB", 1}});  // [B, C]
  const OnnxValue exponent =
      graph_.initializer("logit_scale", onnx_tensor(weights_.at("logit_scale"), at::kFloat));
  return graph_.node("Mul", "logits", {cosines, graph_.node("Exp", "scale", {exponent})});
}

void require_plain(Clip clip, at::ScalarType dtype) {
  TORCH_CHECK(dtype == at::kFloat || dtype == at::kHalf, "ONNX graphs are float32 or float16, not ", dtype);
  TORCH_CHECK(clip->dtype() == at::kFloat && clip->device().is_cpu(),
              "expected a float32 model on the CPU, got ", clip->dtype(), " on ", clip->device());
  for (Transformer tower : {clip->visual->transformer, clip->transformer}) {
    for (std::int64_t i = 0; i < tower->layers(); ++i) {
      const ops::AttentionLora& lora = tower->block(i).attn->lora;
      TORCH_CHECK(!lora.q && !lora.k && !lora.v && !lora.o,
                  "expected no adapter in the model: merge it first");
    }
  }
}

}  // namespace

std::string onnx_classifier(const Clip& clip, const at::Tensor& class_features, at::ScalarType dtype,
                            const std::map<std::string, std::string>& metadata) {
  require_plain(clip, dtype);
  TORCH_CHECK(class_features.dim() == 2 && class_features.size(1) == clip->architecture().embedding,
              "expected class features [C, ", clip->architecture().embedding, "], got ",
              class_features.sizes());
  OnnxClip writer("clip_classifier", clip, dtype);
  const OnnxValue logits = writer.logits(writer.image_features(), class_features.to(at::kCPU));
  const OnnxValue probabilities = writer.graph().node("Softmax", "probabilities", {logits}, {{"axis", 1}});
  for (const auto& value : {probabilities, logits}) {
    writer.graph().output(value, OnnxType::kFloat, {kOnnxBatch, class_features.size(0)});
  }
  return writer.graph().serialise(metadata);
}

std::string onnx_image_tower(const Clip& clip, at::ScalarType dtype,
                             const std::map<std::string, std::string>& metadata) {
  require_plain(clip, dtype);
  OnnxClip writer("clip_image_tower", clip, dtype);
  writer.graph().output(writer.image_features(), OnnxType::kFloat,
                        {kOnnxBatch, clip->architecture().embedding});
  return writer.graph().serialise(metadata);
}

std::string onnx_text_tower(const Clip& clip, at::ScalarType dtype,
                            const std::map<std::string, std::string>& metadata) {
  require_plain(clip, dtype);
  OnnxClip writer("clip_text_tower", clip, dtype);
  writer.graph().output(writer.text_features(), OnnxType::kFloat,
                        {kOnnxBatch, clip->architecture().embedding});
  return writer.graph().serialise(metadata);
}

}  // namespace clip_lora::model
