#include "clip_lora/model/naming.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

#include "clip_lora/core/errors.hpp"
#include "hugging_face_name.hpp"

namespace clip_lora::model {
namespace {

struct NamePair {
  std::string_view open_ai;
  std::string_view hugging_face;
};

/// Whole names, or what a name begins with if it ends in a dot.
constexpr std::array kOutsideBlocks = {
    NamePair{"logit_scale", "logit_scale"},
    NamePair{"token_embedding.weight", "text_model.embeddings.token_embedding.weight"},
    NamePair{"positional_embedding", "text_model.embeddings.position_embedding.weight"},
    NamePair{"ln_final.", "text_model.final_layer_norm."},
    NamePair{"text_projection", "text_projection.weight"},
    NamePair{"visual.class_embedding", "vision_model.embeddings.class_embedding"},
    NamePair{"visual.conv1.", "vision_model.embeddings.patch_embedding."},
    NamePair{"visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"},
    NamePair{"visual.ln_pre.", "vision_model.pre_layrnorm."},
    NamePair{"visual.ln_post.", "vision_model.post_layernorm."},
    NamePair{"visual.proj", "visual_projection.weight"},
};

/// What the names of a tower's blocks begin with; the block's number follows.
constexpr std::array kTowers = {
    NamePair{"visual.transformer.resblocks.", "vision_model.encoder.layers."},
    NamePair{"transformer.resblocks.", "text_model.encoder.layers."},
};

/// What follows the block's number, but for q, k and v.
constexpr std::array kInBlock = {
    NamePair{"attn.out_proj.", "self_attn.out_proj."},
    NamePair{"ln_1.", "layer_norm1."},
    NamePair{"ln_2.", "layer_norm2."},
    NamePair{"mlp.c_fc.", "mlp.fc1."},
    NamePair{"mlp.c_proj.", "mlp.fc2."},
};

/// Matrices that OpenAI keeps as [D, E] and Hugging Face, as linear layers, as [E, D]; OpenAI's names.
constexpr std::array kTransposed = {std::string_view("text_projection"), std::string_view("visual.proj")};

constexpr std::array kProjections = {"q_proj", "k_proj", "v_proj"};

using Side = std::string_view NamePair::*;

template <std::size_t N>
std::optional<std::string> renamed(const std::array<NamePair, N>& pairs, std::string_view name, Side from,
                                   Side to) {
  for (const auto& pair : pairs) {
    const std::string_view prefix = pair.*from;
    if (name == prefix) return std::string(pair.*to);
    if (prefix.ends_with('.') && name.starts_with(prefix)) {
      return std::string(pair.*to).append(name.substr(prefix.size()));
    }
  }
  return std::nullopt;
}

/// A tensor of a tower's block.
struct BlockName {
  std::string in_open_ai;       ///< "visual.transformer.resblocks.3."
  std::string in_hugging_face;  ///< "vision_model.encoder.layers.3."
  std::string_view rest;        ///< what follows, on the side that it was told by
};

std::optional<BlockName> block_of(std::string_view name, Side side) {
  for (const auto& tower : kTowers) {
    if (!name.starts_with(tower.*side)) continue;
    const std::string_view numbered = name.substr((tower.*side).size());
    const std::size_t dot = numbered.find('.');
    if (dot == std::string_view::npos) return std::nullopt;
    const std::string_view number = numbered.substr(0, dot + 1);
    return BlockName{std::string(tower.open_ai).append(number),
                     std::string(tower.hugging_face).append(number), numbered.substr(dot + 1)};
  }
  return std::nullopt;
}

/// The other side's name of a tensor that has one of its own there: all but q, k and v.
std::optional<std::string> other_name(std::string_view name, Side from, Side to) {
  if (const auto block = block_of(name, from)) {
    const auto inner = renamed(kInBlock, block->rest, from, to);
    if (!inner) return std::nullopt;
    return (to == &NamePair::open_ai ? block->in_open_ai : block->in_hugging_face) + *inner;
  }
  return renamed(kOutsideBlocks, name, from, to);
}

bool is_transposed(std::string_view open_ai_name) {
  return std::find(kTransposed.begin(), kTransposed.end(), open_ai_name) != kTransposed.end();
}

at::Tensor transposed_if_matrix(const at::Tensor& tensor) { return tensor.dim() == 2 ? tensor.t() : tensor; }

/// "weight" or "bias" if `rest` is that of an OpenAI block's q, k and v.
std::optional<std::string> joined_part(std::string_view rest) {
  constexpr std::string_view kJoined = "attn.in_proj_";
  if (!rest.starts_with(kJoined)) return std::nullopt;
  return std::string(rest.substr(kJoined.size()));
}

/// q, k and v of one block if they can be joined: all there, of one type, and alike but for the rows.
std::vector<at::Tensor> joinable(const io::StateDict& tensors, const std::string& block,
                                 const std::string& part) {
  std::vector<at::Tensor> parts;
  for (const char* projection : kProjections) {
    const auto found = tensors.find(block + "self_attn." + projection + "." + part);
    if (found == tensors.end() || found->second.dim() == 0) return {};
    const at::Tensor& first = parts.empty() ? found->second : parts.front();
    if (found->second.sizes().slice(1) != first.sizes().slice(1) || found->second.dtype() != first.dtype())
      return {};
    parts.push_back(found->second);
  }
  return parts;
}

}  // namespace

std::string to_string(Naming naming) {
  switch (naming) {
    case Naming::kOpenAi:
      return "OpenAI";
    case Naming::kHuggingFace:
      return "Hugging Face";
    case Naming::kOpenClip:
      return "OpenCLIP";
  }
  TORCH_CHECK(false, "no naming ", static_cast<int>(naming));
}

Naming naming_of(const io::StateDict& tensors) {
  const bool hugging_face = std::any_of(tensors.begin(), tensors.end(), [](const auto& item) {
    return item.first.starts_with("vision_model.") || item.first.starts_with("text_model.");
  });
  return hugging_face ? Naming::kHuggingFace : Naming::kOpenAi;
}

std::string hugging_face_name(const std::string& open_ai_name) {
  if (const auto name = other_name(open_ai_name, &NamePair::open_ai, &NamePair::hugging_face)) return *name;
  const auto block = block_of(open_ai_name, &NamePair::open_ai);
  const auto part = block ? joined_part(block->rest) : std::nullopt;
  return part ? block->in_hugging_face + "self_attn.q_proj." + *part : open_ai_name;
}

io::StateDict from_hugging_face(const io::StateDict& tensors) {
  io::StateDict result;
  std::vector<std::string> joined;
  for (const auto& block_tensor : tensors) {
    const auto block = block_of(block_tensor.first, &NamePair::hugging_face);
    constexpr std::string_view kFirst = "self_attn.q_proj.";
    if (!block || !block->rest.starts_with(kFirst)) continue;
    const std::string part(block->rest.substr(kFirst.size()));
    const auto parts = joinable(tensors, block->in_hugging_face, part);
    if (parts.empty()) continue;
    result[block->in_open_ai + "attn.in_proj_" + part] = at::cat(parts);
    for (const char* projection : kProjections) {
      joined.push_back(block->in_hugging_face + "self_attn." + projection + "." + part);
    }
  }
  std::sort(joined.begin(), joined.end());
  for (const auto& [name, tensor] : tensors) {
    if (name.ends_with(".embeddings.position_ids") || std::binary_search(joined.begin(), joined.end(), name))
      continue;
    const auto open_ai = other_name(name, &NamePair::hugging_face, &NamePair::open_ai);
    result[open_ai.value_or(name)] =
        open_ai && is_transposed(*open_ai) ? transposed_if_matrix(tensor) : tensor;
  }
  return result;
}

io::StateDict to_hugging_face(const io::StateDict& tensors) {
  io::StateDict result;
  for (const auto& [name, tensor] : tensors) {
    const auto block = block_of(name, &NamePair::open_ai);
    const auto part = block ? joined_part(block->rest) : std::nullopt;
    if (part && tensor.dim() > 0 && tensor.size(0) % 3 == 0) {
      const auto parts = tensor.chunk(3);  // [3D, …] → q, k, v, views
      for (std::size_t i = 0; i < parts.size(); ++i) {
        result[block->in_hugging_face + "self_attn." + kProjections[i] + "." + *part] = parts[i];
      }
      continue;
    }
    const auto other = other_name(name, &NamePair::open_ai, &NamePair::hugging_face);
    result[other.value_or(name)] = is_transposed(name) ? transposed_if_matrix(tensor) : tensor;
  }
  return result;
}

}  // namespace clip_lora::model
