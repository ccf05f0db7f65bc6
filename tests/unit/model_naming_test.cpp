#include <gmock/gmock.h>
#include <torch/torch.h>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "clip_lora/model/naming.hpp"
#include "support/close.hpp"
#include "support/throws.hpp"
#include "support/tiny_model.hpp"

namespace clip_lora::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAreArray;

std::vector<std::string> names_of(const io::StateDict& tensors) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors) names.push_back(name);
  return names;
}

/// The names in a file of transformers' CLIPModel.save_pretrained, with so many layers.
std::vector<std::string> names_of_transformers(int vision_layers, int text_layers) {
  std::vector<std::string> names = {"logit_scale",
                                    "text_projection.weight",
                                    "visual_projection.weight",
                                    "text_model.embeddings.position_embedding.weight",
                                    "text_model.embeddings.token_embedding.weight",
                                    "text_model.final_layer_norm.bias",
                                    "text_model.final_layer_norm.weight",
                                    "vision_model.embeddings.class_embedding",
                                    "vision_model.embeddings.patch_embedding.weight",
                                    "vision_model.embeddings.position_embedding.weight",
                                    "vision_model.post_layernorm.bias",
                                    "vision_model.post_layernorm.weight",
                                    "vision_model.pre_layrnorm.bias",
                                    "vision_model.pre_layrnorm.weight"};
  const auto add = [&](const std::string& tower, int layers) {
    for (int i = 0; i < layers; ++i) {
      for (const std::string part : {"layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2", "self_attn.k_proj",
                                     "self_attn.out_proj", "self_attn.q_proj", "self_attn.v_proj"}) {
        for (const std::string kind : {".bias", ".weight"}) {
          names.push_back(tower + ".encoder.layers." + std::to_string(i) + "." + part + kind);
        }
      }
    }
  };
  add("text_model", text_layers);
  add("vision_model", vision_layers);
  return names;
}

TEST(Naming, OfHuggingFaceIsThatOfTransformers) {
  const auto renamed = model::to_hugging_face(model::state_dict(random_clip()));
  EXPECT_THAT(names_of(renamed), UnorderedElementsAreArray(names_of_transformers(3, 4)));
}

TEST(Naming, ToHuggingFaceAndBackIsTheIdentity) {
  for (const auto type : {at::kFloat, at::kHalf, at::kBFloat16}) {
    io::StateDict original;
    for (const auto& [name, tensor] : model::state_dict(random_clip())) original[name] = tensor.to(type);
    const auto back = model::from_hugging_face(model::to_hugging_face(original));
    ASSERT_EQ(names_of(back), names_of(original));
    for (const auto& [name, tensor] : original) EXPECT_TRUE(identical(back.at(name), tensor)) << name;
  }
}

TEST(Naming, SplitsTheJoinedProjectionsIntoQueryKeyAndValue) {
  const auto original = model::state_dict(random_clip());
  const auto renamed = model::to_hugging_face(original);
  const auto& joined = original.at("visual.transformer.resblocks.2.attn.in_proj_weight");  // [3D, D]
  const std::string attention = "vision_model.encoder.layers.2.self_attn.";
  EXPECT_TRUE(identical(renamed.at(attention + "q_proj.weight"), joined.slice(0, 0, 192)));
  EXPECT_TRUE(identical(renamed.at(attention + "k_proj.weight"), joined.slice(0, 192, 384)));
  EXPECT_TRUE(identical(renamed.at(attention + "v_proj.weight"), joined.slice(0, 384, 576)));
}

TEST(Naming, TransposesTheTwoProjectionsIntoTheJointSpace) {
  const auto original = model::state_dict(random_clip());
  const auto renamed = model::to_hugging_face(original);
  EXPECT_TRUE(identical(renamed.at("visual_projection.weight"), original.at("visual.proj").t()));
  EXPECT_TRUE(identical(renamed.at("text_projection.weight"), original.at("text_projection").t()));
}

TEST(Naming, IsToldByTheNames) {
  const auto original = model::state_dict(random_clip());
  EXPECT_EQ(model::naming_of(original), model::Naming::kOpenAi);
  EXPECT_EQ(model::naming_of(model::to_hugging_face(original)), model::Naming::kHuggingFace);
}

TEST(Naming, LeavesWhatItDoesNotKnowAndDropsPositionIds) {
  const io::StateDict tensors = {{"text_model.embeddings.position_ids", at::zeros({1, 77})},
                                 {"text_model.encoder.layers.0.self_attn.q_proj.weight", at::zeros({2, 2})},
                                 {"text_model.encoder.layers.x", at::zeros({1})},
                                 {"surprise", at::zeros({1})}};
  const auto renamed = model::from_hugging_face(tensors);
  EXPECT_THAT(names_of(renamed),
              UnorderedElementsAreArray({"text_model.encoder.layers.0.self_attn.q_proj.weight",
                                         "text_model.encoder.layers.x", "surprise"}));
}

TEST(Naming, DoesNotJoinProjectionsThatDoNotFitTogether) {
  const std::string attention = "text_model.encoder.layers.0.self_attn.";
  const auto joined_with = [&](const at::Tensor& value) {
    return model::from_hugging_face({{attention + "q_proj.weight", at::zeros({2, 2})},
                                     {attention + "k_proj.weight", at::zeros({2, 2})},
                                     {attention + "v_proj.weight", value}})
        .contains("transformer.resblocks.0.attn.in_proj_weight");
  };
  EXPECT_TRUE(joined_with(at::zeros({2, 2})));
  EXPECT_FALSE(joined_with(at::zeros({2, 3})));
  EXPECT_FALSE(joined_with(at::zeros({2})));
  EXPECT_FALSE(joined_with(at::zeros({})));
  EXPECT_FALSE(joined_with(at::zeros({2, 2}, at::kHalf)));
}

image::Preprocessing unusual_preprocessing() {
  image::Preprocessing preprocessing;
  preprocessing.size_px = 96;
  preprocessing.resize_px = 112;
  preprocessing.resize_mode = image::ResizeMode::kLongest;
  preprocessing.interpolation = image::Interpolation::kLanczos;
  preprocessing.orientation = image::Orientation::kApplyExif;
  preprocessing.fill_color = {1, 127, 255};
  preprocessing.rescale_factor = 1.0 / 127.5;
  preprocessing.mean = {0.5F, 0.1F, 1.0F / 3.0F};
  preprocessing.standard_deviation = {0.25F, 0.7F, 2.0F / 3.0F};
  return preprocessing;
}

TEST(PreprocessingJson, GivesBackEveryField) {
  for (const auto& preprocessing : {image::Preprocessing{}, unusual_preprocessing()}) {
    const auto text = model::to_json(preprocessing).dump();
    EXPECT_EQ(model::preprocessing_from_json(nlohmann::json::parse(text)), preprocessing) << text;
  }
}

TEST(PreprocessingJson, HasOpenClipsNames) {
  const auto json = model::to_json(image::Preprocessing{});
  EXPECT_EQ(json.at("size"), 224);
  EXPECT_EQ(json.at("mode"), "RGB");
  EXPECT_EQ(json.at("interpolation"), "bicubic");
  EXPECT_EQ(json.at("resize_mode"), "shortest");
  EXPECT_EQ(json.at("mean").get<std::vector<float>>(),
            (std::vector<float>{0.48145466F, 0.4578275F, 0.40821073F}));
  EXPECT_EQ(json.at("std").get<std::vector<float>>(),
            (std::vector<float>{0.26862954F, 0.26130258F, 0.27577711F}));
}

TEST(PreprocessingJson, SaysWhetherPhotosAreTurnedAndIsReadAsNoWhereItDoesNot) {
  image::Preprocessing turned;
  turned.orientation = image::Orientation::kApplyExif;
  EXPECT_EQ(model::to_json(turned).at("exif"), true);
  EXPECT_EQ(model::to_json(image::Preprocessing{}).at("exif"), false);
  EXPECT_EQ(model::preprocessing_from_json({{"size", 224}}).orientation, image::Orientation::kIgnoreExif);
}

TEST(PreprocessingJson, OfTheWrongTypeIsRefusedNamingTheField) {
  const auto complaint = [](const char* json) {
    return message_of<CheckpointError>([&] { model::preprocessing_from_json(nlohmann::json::parse(json)); });
  };
  EXPECT_THAT(complaint("[1, 2]"), AllOf(HasSubstr("[1,2]"), HasSubstr("object")));
  EXPECT_THAT(complaint(R"({"size": "large"})"), AllOf(HasSubstr("size"), HasSubstr("large")));
  EXPECT_THAT(complaint(R"({"size": -3})"), AllOf(HasSubstr("size"), HasSubstr("-3")));
  EXPECT_THAT(complaint(R"({"size": 99999999999})"), HasSubstr("size"));
  EXPECT_THAT(complaint(R"({"size": [224, 112]})"), HasSubstr("size"));
  EXPECT_THAT(complaint(R"({"mean": [0.1, 0.2]})"), HasSubstr("mean"));
  EXPECT_THAT(complaint(R"({"mean": ["a", 0, 0]})"), HasSubstr("mean"));
  EXPECT_THAT(complaint(R"({"std": [0.1, 0.2, 0]})"), HasSubstr("std"));
  EXPECT_THAT(complaint(R"({"fill_color": 256})"), HasSubstr("fill_color"));
  EXPECT_THAT(complaint(R"({"rescale_factor": 0})"), HasSubstr("rescale_factor"));
  EXPECT_THAT(complaint(R"({"mode": "L"})"), HasSubstr("mode"));
  EXPECT_THAT(complaint(R"({"resize_mode": "stretch"})"), HasSubstr("stretch"));
  EXPECT_THAT(complaint(R"({"interpolation": 7})"), HasSubstr("interpolation"));
  EXPECT_THAT(complaint(R"({"exif": "auto"})"), AllOf(HasSubstr("exif"), HasSubstr("auto")));
}

}  // namespace
}  // namespace clip_lora::testing
