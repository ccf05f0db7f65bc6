#include <gmock/gmock.h>
#include <torch/torch.h>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/model/architecture.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "support/throws.hpp"
#include "support/tiny_model.hpp"

namespace clip_lora::testing {
namespace {

using ::testing::HasSubstr;

/// Zeros of any shape that take no memory.
at::Tensor weightless(at::IntArrayRef shape) { return at::zeros({}).expand(shape); }

/// The tensors that an architecture can be read off, of a published model's shapes.
io::StateDict shapes_of(std::int64_t vision_width, int vision_layers, std::int64_t patch, std::int64_t grid,
                        std::int64_t text_width, std::int64_t embedding, int text_layers = 12) {
  io::StateDict tensors;
  tensors["visual.conv1.weight"] = weightless({vision_width, 3, patch, patch});
  tensors["visual.positional_embedding"] = weightless({grid * grid + 1, vision_width});
  tensors["token_embedding.weight"] = weightless({49408, text_width});
  tensors["positional_embedding"] = weightless({77, text_width});
  tensors["text_projection"] = weightless({text_width, embedding});
  const auto add = [&](const std::string& tower, int layers, std::int64_t width) {
    for (int i = 0; i < layers; ++i) {
      tensors[tower + "resblocks." + std::to_string(i) + ".attn.in_proj_weight"] =
          weightless({3 * width, width});
    }
  };
  add("visual.transformer.", vision_layers, vision_width);
  add("transformer.", text_layers, text_width);
  return tensors;
}

std::string complaint_of(const io::StateDict& tensors) {
  auto message = message_of<CheckpointError>([&] { model::read_architecture(tensors, "model.pt"); });
  EXPECT_THAT(message, HasSubstr("model.pt"));
  return message;
}

TEST(Architecture, IsReadOffTheShapes) {
  EXPECT_EQ(model::read_architecture(model::state_dict(random_clip()), "tiny"), tiny_architecture());
}

TEST(Architecture, KnowsThePublishedModelsByTheirShapes) {
  const auto name_of = [](const io::StateDict& tensors) {
    return model::published_name(model::read_architecture(tensors, "model.pt"));
  };
  EXPECT_EQ(name_of(shapes_of(768, 12, 32, 7, 512, 512)), "ViT-B/32");
  EXPECT_EQ(name_of(shapes_of(768, 12, 16, 14, 512, 512)), "ViT-B/16");
  EXPECT_EQ(name_of(shapes_of(1024, 24, 14, 16, 768, 768)), "ViT-L/14");
  EXPECT_EQ(name_of(shapes_of(768, 12, 16, 15, 512, 512)), std::nullopt);
  EXPECT_EQ(name_of(shapes_of(768, 11, 16, 14, 512, 512)), std::nullopt);
  EXPECT_EQ(name_of(shapes_of(1280, 32, 14, 16, 1024, 1024, 24)), "ViT-H/14");
  const auto large = name_of(shapes_of(1024, 24, 14, 24, 768, 768));
  ASSERT_TRUE(large.has_value());
  EXPECT_THAT(*large, HasSubstr("336px"));
}

TEST(Architecture, OfAPublishedNameHasThatName) {
  for (const std::string name :
       {"ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px", "ViT-H/14", "ViT-g/14", "ViT-bigG/14"}) {
    const auto architecture = model::published_architecture(name);
    ASSERT_TRUE(architecture.has_value()) << name;
    EXPECT_EQ(model::published_name(*architecture), name);
  }
  EXPECT_EQ(model::published_architecture("ViT-B/17"), std::nullopt);
}

TEST(Architecture, OfAPublishedNameIsThatOfItsShapesAlone) {
  auto architecture = *model::published_architecture("ViT-B/32");
  architecture.vision.activation = architecture.text.activation = model::Activation::kGelu;
  architecture.vision.heads = 6;
  architecture.text.layer_norm_epsilon = 1e-6;
  EXPECT_EQ(model::published_name(architecture), "ViT-B/32");
  architecture.vision.mlp_width += 1;
  EXPECT_EQ(model::published_name(architecture), std::nullopt);
}

TEST(Architecture, HasHeadsOf64UnlessItIsKnownOtherwise) {
  const auto base = model::read_architecture(shapes_of(768, 12, 16, 14, 512, 512), "model.pt");
  EXPECT_EQ(base.vision.heads, 12);
  EXPECT_EQ(base.text.heads, 8);
  const auto huge = model::read_architecture(shapes_of(1280, 32, 14, 16, 1024, 1024, 24), "model.pt");
  EXPECT_EQ(huge.vision.heads, 16);
}

TEST(Architecture, HasTheMlpWidthOfItsWeights) {
  auto tensors = shapes_of(768, 12, 16, 14, 512, 512);
  EXPECT_EQ(model::read_architecture(tensors, "model.pt").vision.mlp_width, 3072);
  tensors["visual.transformer.resblocks.0.mlp.c_fc.weight"] = weightless({100, 768});
  EXPECT_EQ(model::read_architecture(tensors, "model.pt").vision.mlp_width, 100);
}

TEST(Activation, HasNamesThatAreReadBack) {
  for (const auto activation : {model::Activation::kQuickGelu, model::Activation::kGelu}) {
    EXPECT_EQ(model::parse_activation(model::to_string(activation)), activation);
  }
  const auto message = message_of<ConfigError>([] { model::parse_activation("quickgelu"); });
  EXPECT_THAT(message, ::testing::AllOf(HasSubstr("'quickgelu'"), HasSubstr("did you mean 'quick_gelu'")));
}

TEST(Architecture, IsDescribedByWidthsLayersPatchAndSize) {
  const auto text = model::describe(*model::published_architecture("ViT-B/16"));
  EXPECT_EQ(text, "vision 768/12/16/224, text 512/12, embedding 512");
}

TEST(Architecture, ACheckpointThatLacksATensorIsRefusedNamingIt) {
  const auto whole = shapes_of(768, 12, 16, 14, 512, 512);
  for (const std::string name :
       {"visual.conv1.weight", "visual.positional_embedding", "token_embedding.weight",
        "positional_embedding", "text_projection", "visual.transformer.resblocks.0.attn.in_proj_weight",
        "transformer.resblocks.0.attn.in_proj_weight"}) {
    auto tensors = whole;
    tensors.erase(name);
    EXPECT_THAT(complaint_of(tensors), HasSubstr("'" + name + "'"));
  }
  complaint_of({});
}

TEST(Architecture, ATensorOfImpossibleShapeIsRefusedNamingIt) {
  const auto whole = shapes_of(768, 12, 16, 14, 512, 512);
  const auto complaint_with = [&](const std::string& name, at::IntArrayRef shape) {
    auto tensors = whole;
    tensors[name] = weightless(shape);
    return complaint_of(tensors);
  };
  for (const std::string name : {"visual.conv1.weight", "visual.positional_embedding",
                                 "token_embedding.weight", "positional_embedding", "text_projection"}) {
    EXPECT_THAT(complaint_with(name, {}), HasSubstr(name));
    EXPECT_THAT(complaint_with(name, {0}), HasSubstr(name));
    EXPECT_THAT(complaint_with(name, {2, 3, 5, 7, 11}), HasSubstr(name));
  }
  EXPECT_THAT(complaint_with("visual.positional_embedding", {197 + 1, 768}),
              HasSubstr("positional_embedding"));
  EXPECT_THAT(complaint_with("visual.positional_embedding", {1, 768}), HasSubstr("positional_embedding"));
  EXPECT_THAT(complaint_with("visual.conv1.weight", {100, 3, 16, 16}), HasSubstr("100"));
}

TEST(Architecture, AClipWithAResNetIsRefusedSayingSo) {
  io::StateDict tensors;
  tensors["visual.layer1.0.conv1.weight"] = weightless({64, 64, 1, 1});
  tensors["visual.conv1.weight"] = weightless({32, 3, 3, 3});
  tensors["token_embedding.weight"] = weightless({49408, 512});
  tensors["positional_embedding"] = weightless({77, 512});
  tensors["text_projection"] = weightless({512, 1024});
  EXPECT_THAT(complaint_of(tensors), HasSubstr("ResNet"));
}

}  // namespace
}  // namespace clip_lora::testing
