#include "clip_lora/model/architecture.hpp"

#include <array>
#include <cmath>
#include <sstream>

#include "clip_lora/core/errors.hpp"
#include "other_models.hpp"
#include "read_shapes.hpp"

namespace clip_lora::model {
namespace {

constexpr std::int64_t kHeadWidth = 64;
constexpr std::int64_t kContextLength = 77;
constexpr std::int64_t kVocabulary = 49408;

constexpr TowerArchitecture open_ai_tower(std::int64_t width, std::int64_t layers) {
  return {.width = width, .layers = layers, .mlp_width = 4 * width, .heads = width / kHeadWidth};
}

/// Of LAION's largest models: exact GELU, and vision heads of another width than 64.
constexpr TowerArchitecture open_clip_tower(std::int64_t width, std::int64_t layers, std::int64_t mlp_width,
                                            std::int64_t heads) {
  return {width, layers, mlp_width, heads, Activation::kGelu};
}

constexpr ClipArchitecture clip(const TowerArchitecture& vision, const TowerArchitecture& text,
                                std::int64_t patch_size_px, std::int64_t image_size_px,
                                std::int64_t embedding) {
  return {vision, text, patch_size_px, image_size_px, kContextLength, kVocabulary, embedding};
}

struct Published {
  const char* name;
  ClipArchitecture architecture;
};

/// OpenAI's, and those of OpenCLIP's model_configs whose head width the shapes do not say.
constexpr std::array kPublished = {
    Published{"ViT-B/32", clip(open_ai_tower(768, 12), open_ai_tower(512, 12), 32, 224, 512)},
    Published{"ViT-B/16", clip(open_ai_tower(768, 12), open_ai_tower(512, 12), 16, 224, 512)},
    Published{"ViT-L/14", clip(open_ai_tower(1024, 24), open_ai_tower(768, 12), 14, 224, 768)},
    Published{"ViT-L/14@336px", clip(open_ai_tower(1024, 24), open_ai_tower(768, 12), 14, 336, 768)},
    Published{"ViT-H/14",
              clip(open_clip_tower(1280, 32, 5120, 16), open_clip_tower(1024, 24, 4096, 16), 14, 224, 1024)},
    Published{"ViT-g/14",
              clip(open_clip_tower(1408, 40, 6144, 16), open_clip_tower(1024, 24, 4096, 16), 14, 224, 1024)},
    Published{"ViT-bigG/14",
              clip(open_clip_tower(1664, 48, 8192, 16), open_clip_tower(1280, 32, 5120, 20), 14, 224, 1280)},
};

ClipArchitecture shapes_only(ClipArchitecture architecture) {
  for (TowerArchitecture* tower : {&architecture.vision, &architecture.text}) {
    *tower = {.width = tower->width, .layers = tower->layers, .mlp_width = tower->mlp_width};
  }
  return architecture;
}

const Published* published_with_the_shapes_of(const ClipArchitecture& architecture) {
  for (const auto& published : kPublished) {
    if (shapes_only(published.architecture) == shapes_only(architecture)) return &published;
  }
  return nullptr;
}

/// Reads sizes off tensors; every complaint names the file, and tensors as the file does.
class ShapeReader {
 public:
  ShapeReader(const io::StateDict& tensors, const std::string& source, const NameInFile& name_in_file)
      : tensors_(tensors), source_(source), name_in_file_(name_in_file) {}

  [[noreturn]] void fail(const std::string& what) const {
    throw CheckpointError("checkpoint '" + source_ + "': " + what);
  }

  std::string quoted(const std::string& name) const { return "'" + name_in_file_(name) + "'"; }

  at::IntArrayRef shape(const std::string& name, std::size_t axes) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) fail_missing(name);
    const at::Tensor& tensor = found->second;
    if (static_cast<std::size_t>(tensor.dim()) != axes || tensor.numel() == 0) {
      std::ostringstream got;
      got << tensor.sizes();
      fail("tensor " + quoted(name) + " has shape " + got.str() + ", expected " + std::to_string(axes) +
           " axes, none empty");
    }
    return tensor.sizes();
  }

  TowerArchitecture tower(const std::string& prefix, std::int64_t width) const {
    const std::string in_proj = prefix + "resblocks.0.attn.in_proj_weight";
    const std::int64_t columns = shape(in_proj, 2)[1];
    if (columns != width) {
      fail("tensor " + quoted(in_proj) + " has " + std::to_string(columns) +
           " columns, expected the tower's width " + std::to_string(width));
    }
    TowerArchitecture tower = open_ai_tower(width, layers(prefix));
    // Missing or misshaped, it is listed with all others that do not fit.
    const auto c_fc = tensors_.find(prefix + "resblocks.0.mlp.c_fc.weight");
    if (c_fc != tensors_.end() && c_fc->second.dim() == 2 && c_fc->second.numel() > 0) {
      tower.mlp_width = c_fc->second.size(0);
    }
    if (width % kHeadWidth != 0) tower.heads = 0;
    return tower;
  }

 private:
  /// The number of `<prefix>resblocks.<i>.` without a gap, whatever each holds.
  std::int64_t layers(const std::string& prefix) const {
    for (std::int64_t count = 0;; ++count) {
      const std::string block = prefix + "resblocks." + std::to_string(count) + ".";
      const auto first = tensors_.lower_bound(block);
      if (first == tensors_.end() || !first->first.starts_with(block)) return count;
    }
  }

  [[noreturn]] void fail_missing(const std::string& name) const {
    std::vector<std::string> others;
    for (const auto& [other, tensor] : tensors_) others.push_back(name_in_file_(other));
    fail("tensor " + quoted(name) + " is missing, " + std::to_string(others.size()) + " others are there" +
         (others.empty() ? "" : ": " + join_capped(others, 3)) +
         " (hint: expected the names of OpenAI's CLIP, OpenCLIP or Hugging Face's CLIPModel, both towers)");
  }

  const io::StateDict& tensors_;
  const std::string& source_;
  const NameInFile& name_in_file_;
};

}  // namespace

std::string to_string(Activation activation) {
  return activation == Activation::kQuickGelu ? "quick_gelu" : "gelu";
}

Activation parse_activation(const std::string& name) {
  if (name == "quick_gelu") return Activation::kQuickGelu;
  if (name == "gelu") return Activation::kGelu;
  throw ConfigError("activation '" + name + "', expected quick_gelu or gelu" +
                    did_you_mean(name, {"quick_gelu", "gelu"}));
}

ClipArchitecture read_shapes(const io::StateDict& tensors, const std::string& source,
                             const NameInFile& name_in_file) {
  const ShapeReader reader(tensors, source, name_in_file);
  const auto patches = reader.shape("visual.conv1.weight", 4);             // [D, 3, patch, patch]
  const auto positions = reader.shape("visual.positional_embedding", 2);   // [grid² + 1, D]
  const auto token_embedding = reader.shape("token_embedding.weight", 2);  // [vocabulary, D]
  const auto text_positions = reader.shape("positional_embedding", 2);     // [context_length, D]
  const auto text_projection = reader.shape("text_projection", 2);         // [D, E]

  const auto grid = static_cast<std::int64_t>(std::llround(std::sqrt(static_cast<double>(positions[0] - 1))));
  if (grid < 1 || grid * grid != positions[0] - 1) {
    reader.fail("tensor " + reader.quoted("visual.positional_embedding") + " has " +
                std::to_string(positions[0]) + " rows, expected a square number of patches and one more");
  }
  ClipArchitecture architecture;
  architecture.vision = reader.tower("visual.transformer.", patches[0]);
  architecture.text = reader.tower("transformer.", token_embedding[1]);
  architecture.patch_size_px = patches[3];
  architecture.image_size_px = grid * patches[3];
  architecture.context_length = text_positions[0];
  architecture.vocabulary = token_embedding[0];
  architecture.embedding = text_projection[1];
  if (const Published* published = published_with_the_shapes_of(architecture)) {
    architecture.vision.heads = published->architecture.vision.heads;
    architecture.text.heads = published->architecture.text.heads;
  }
  return architecture;
}

void require_heads(const ClipArchitecture& architecture, const std::string& source) {
  for (const TowerArchitecture* tower : {&architecture.vision, &architecture.text}) {
    if (tower->heads > 0 && tower->width % tower->heads == 0) continue;
    throw CheckpointError("checkpoint '" + source + "': a tower's width " + std::to_string(tower->width) +
                          " is no multiple of " +
                          (tower->heads > 0 ? "its " + std::to_string(tower->heads) + " heads"
                                            : "the head width 64 (hint: a config.json or "
                                              "open_clip_config.json beside it says another one)"));
  }
}

ClipArchitecture read_architecture(const io::StateDict& state_dict, const std::string& source) {
  refuse_other_models(state_dict, source);
  const ClipArchitecture architecture =
      read_shapes(state_dict, source, [](const std::string& name) { return name; });
  require_heads(architecture, source);
  return architecture;
}

std::optional<std::string> published_name(const ClipArchitecture& architecture) {
  const Published* published = published_with_the_shapes_of(architecture);
  return published != nullptr ? std::optional<std::string>(published->name) : std::nullopt;
}

std::optional<ClipArchitecture> published_architecture(const std::string& name) {
  for (const auto& published : kPublished) {
    if (published.name == name) return published.architecture;
  }
  return std::nullopt;
}

std::string describe(const ClipArchitecture& a) {
  std::ostringstream text;
  text << "vision " << a.vision.width << "/" << a.vision.layers << "/" << a.patch_size_px << "/"
       << a.image_size_px << ", text " << a.text.width << "/" << a.text.layers << ", embedding "
       << a.embedding;
  return text.str();
}

}  // namespace clip_lora::model
