#include "clip_lora/model/architecture.hpp"

#include <array>
#include <cmath>
#include <sstream>

#include "clip_lora/core/errors.hpp"

namespace clip_lora::model {
namespace {

constexpr std::int64_t kHeadWidth = 64;

struct Published {
  const char* name;
  ClipArchitecture architecture;
};

constexpr ClipArchitecture published_shape(std::int64_t vision_width, std::int64_t vision_layers, std::int64_t patch_size_px,
                                           std::int64_t image_size_px, std::int64_t text_width, std::int64_t embedding) {
  return {{vision_width, vision_layers, vision_width / kHeadWidth},
          {text_width, 12, text_width / kHeadWidth},
          patch_size_px, image_size_px, 77, 49408, embedding};
}

constexpr std::array kPublished = {
    Published{"ViT-B/32", published_shape(768, 12, 32, 224, 512, 512)},
    Published{"ViT-B/16", published_shape(768, 12, 16, 224, 512, 512)},
    Published{"ViT-L/14", published_shape(1024, 24, 14, 224, 768, 768)},
    Published{"ViT-L/14@336px", published_shape(1024, 24, 14, 336, 768, 768)},
};

/// Reads sizes off tensors; every complaint names the file.
class ShapeReader {
 public:
  ShapeReader(const io::StateDict& state_dict, const std::string& source) : state_dict_(state_dict), source_(source) {}

  [[noreturn]] void fail(const std::string& what) const {
    throw CheckpointError("checkpoint '" + source_ + "': " + what);
  }

  at::IntArrayRef shape(const std::string& name, std::size_t axes) const {
    const auto found = state_dict_.find(name);
    if (found == state_dict_.end()) {
      fail("tensor '" + name + "' is missing, " + std::to_string(state_dict_.size()) + " others are there" +
           (state_dict_.contains("visual.layer1.0.conv1.weight")
                ? " (hint: this is a CLIP with a ResNet; only vision transformers can be adapted)"
                : " (hint: expected OpenAI's key names)"));
    }
    const at::Tensor& tensor = found->second;
    if (static_cast<std::size_t>(tensor.dim()) != axes || tensor.numel() == 0) {
      std::ostringstream got;
      got << tensor.sizes();
      fail("tensor '" + name + "' has shape " + got.str() + ", expected " + std::to_string(axes) + " axes, none empty");
    }
    return tensor.sizes();
  }

  /// The number of `<prefix>resblocks.<i>.` without a gap; every index must be below it.
  std::int64_t layers(const std::string& prefix) const {
    std::int64_t count = 0;
    while (state_dict_.contains(prefix + "resblocks." + std::to_string(count) + ".attn.in_proj_weight")) ++count;
    if (count == 0) fail("tensor '" + prefix + "resblocks.0.attn.in_proj_weight' is missing");
    return count;
  }

  TowerArchitecture tower(const std::string& prefix, std::int64_t width) const {
    if (width % kHeadWidth != 0) {
      fail("the width " + std::to_string(width) + " of '" + prefix + "' is no multiple of the head width 64");
    }
    const std::string in_proj = prefix + "resblocks.0.attn.in_proj_weight";
    if (shape(in_proj, 2)[1] != width) {
      fail("tensor '" + in_proj + "' has " + std::to_string(shape(in_proj, 2)[1]) + " columns, expected the tower's width " +
           std::to_string(width));
    }
    return {width, layers(prefix), width / kHeadWidth};
  }

 private:
  const io::StateDict& state_dict_;
  const std::string& source_;
};

}  // namespace

ClipArchitecture read_architecture(const io::StateDict& state_dict, const std::string& source) {
  const ShapeReader reader(state_dict, source);
  const auto patches = reader.shape("visual.conv1.weight", 4);                     // [D, 3, patch, patch]
  const auto positions = reader.shape("visual.positional_embedding", 2);           // [grid² + 1, D]
  const auto token_embedding = reader.shape("token_embedding.weight", 2);          // [vocabulary, D]
  const auto text_positions = reader.shape("positional_embedding", 2);             // [context_length, D]
  const auto text_projection = reader.shape("text_projection", 2);                 // [D, E]

  const auto grid = static_cast<std::int64_t>(std::llround(std::sqrt(static_cast<double>(positions[0] - 1))));
  if (grid < 1 || grid * grid != positions[0] - 1) {
    reader.fail("tensor 'visual.positional_embedding' has " + std::to_string(positions[0]) +
                " rows, expected a square number of patches and one more");
  }
  ClipArchitecture architecture;
  architecture.vision = reader.tower("visual.transformer.", patches[0]);
  architecture.text = reader.tower("transformer.", token_embedding[1]);
  architecture.patch_size_px = patches[3];
  architecture.image_size_px = grid * patches[3];
  architecture.context_length = text_positions[0];
  architecture.vocabulary = token_embedding[0];
  architecture.embedding = text_projection[1];
  return architecture;
}

std::optional<std::string> published_name(const ClipArchitecture& architecture) {
  for (const auto& published : kPublished) {
    if (published.architecture == architecture) return published.name;
  }
  return std::nullopt;
}

std::optional<ClipArchitecture> published_architecture(const std::string& name) {
  for (const auto& published : kPublished) {
    if (published.name == name) return published.architecture;
  }
  return std::nullopt;
}

std::string describe(const ClipArchitecture& a) {
  std::ostringstream text;
  text << "vision " << a.vision.width << "/" << a.vision.layers << "/" << a.patch_size_px << "/" << a.image_size_px
       << ", text " << a.text.width << "/" << a.text.layers << ", embedding " << a.embedding;
  return text.str();
}

}  // namespace clip_lora::model
