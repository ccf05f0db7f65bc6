#include <gmock/gmock.h>
#include <torch/torch.h>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "support/checkpoint_forms.hpp"
#include "support/throws.hpp"
#include "support/tiny_model.hpp"

namespace clip_lora::testing {
namespace {

using model::Naming;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// Nothing about it is OpenAI's: heads, widths of the MLPs, activation, eps.
model::ClipArchitecture unusual_architecture() {
  auto architecture = tiny_architecture();
  architecture.vision = {.width = 60,
                         .layers = 2,
                         .mlp_width = 131,
                         .heads = 5,
                         .activation = model::Activation::kGelu,
                         .layer_norm_epsilon = 1e-6};
  architecture.text = {.width = 24,
                       .layers = 1,
                       .mlp_width = 100,
                       .heads = 3,
                       .activation = model::Activation::kGelu,
                       .layer_norm_epsilon = 2e-3};
  return architecture;
}

/// A checkpoint of that architecture whose configuration can be spoilt.
class Configuration : public ::testing::Test {
 protected:
  model::Clip clip_ = random_clip(unusual_architecture());
  io::CheckpointFiles hugging_face_ = checkpoint_files(clip_, Naming::kHuggingFace, preprocessing_of(clip_));
  io::CheckpointFiles open_clip_ = checkpoint_files(clip_, Naming::kOpenClip, preprocessing_of(clip_));

  /// `pointer` is a JSON pointer, e.g. "/text_config/hidden_size".
  static io::CheckpointFiles with(io::CheckpointFiles files, const std::string& document,
                                  const std::string& pointer, const json& value) {
    files.documents.at(document)[json::json_pointer(pointer)] = value;
    return files;
  }

  /// What is said of a field, which must be called by its path with dots.
  static void expect_refused(const io::CheckpointFiles& files, const std::string& document,
                             const std::string& pointer, const json& value,
                             const std::string& expected = "") {
    std::string path = pointer.substr(1);
    std::replace(path.begin(), path.end(), '/', '.');
    const auto message =
        message_of<CheckpointError>([&] { model::load_clip(with(files, document, pointer, value)); });
    EXPECT_THAT(message, AllOf(HasSubstr("'model'"), HasSubstr(document),
                               HasSubstr(path + " is " + value.dump()), HasSubstr("expected " + expected)));
  }

  void expect_config_refused(const std::string& pointer, const json& value,
                             const std::string& expected = "") {
    expect_refused(hugging_face_, "config.json", pointer, value, expected);
  }
  void expect_preprocessor_refused(const std::string& pointer, const json& value) {
    expect_refused(hugging_face_, "preprocessor_config.json", pointer, value);
  }
  void expect_open_clip_refused(const std::string& pointer, const json& value,
                                const std::string& expected = "") {
    expect_refused(open_clip_, "open_clip_config.json", pointer, value, expected);
  }
};

TEST_F(Configuration, OfEitherLibrarySaysWhatTheShapesDoNot) {
  for (const auto& files : {hugging_face_, open_clip_}) {
    const auto loaded = model::load_clip(files);
    EXPECT_EQ(loaded.clip->architecture(), unusual_architecture());
    EXPECT_EQ(loaded.preprocessing, preprocessing_of(clip_));
    EXPECT_THAT(loaded.warnings, IsEmpty());
  }
  EXPECT_EQ(model::load_clip(hugging_face_).naming, Naming::kHuggingFace);
  EXPECT_EQ(model::load_clip(open_clip_).naming, Naming::kOpenClip);
}

TEST_F(Configuration, OfHuggingFaceHasTheFieldsOfTransformers) {
  const auto& config = hugging_face_.documents.at("config.json");
  EXPECT_EQ(config.at("model_type"), "clip");
  EXPECT_EQ(config.at("architectures"), json({"CLIPModel"}));
  EXPECT_EQ(config.at("projection_dim"), 48);
  const auto& text = config.at("text_config");
  EXPECT_EQ(text.at("hidden_size"), 24);
  EXPECT_EQ(text.at("intermediate_size"), 100);
  EXPECT_EQ(text.at("num_attention_heads"), 3);
  EXPECT_EQ(text.at("num_hidden_layers"), 1);
  EXPECT_EQ(text.at("max_position_embeddings"), 77);
  EXPECT_EQ(text.at("vocab_size"), 500);
  EXPECT_EQ(text.at("hidden_act"), "gelu");
  EXPECT_EQ(text.at("layer_norm_eps"), 2e-3);
  EXPECT_EQ(text.at("eos_token_id"), 499);
  const auto& vision = config.at("vision_config");
  EXPECT_EQ(vision.at("image_size"), 24);
  EXPECT_EQ(vision.at("patch_size"), 8);
  const auto& preprocessor = hugging_face_.documents.at("preprocessor_config.json");
  EXPECT_EQ(preprocessor.at("size"), json({{"shortest_edge", 24}}));
  EXPECT_EQ(preprocessor.at("crop_size"), json({{"height", 24}, {"width", 24}}));
  EXPECT_EQ(preprocessor.at("resample"), 3);
}

TEST_F(Configuration, OfHuggingFaceNamesTheEndTokenOfClipsVocabulary) {
  const auto config =
      model::configuration_files(*model::published_architecture("ViT-B/16"), {}, Naming::kHuggingFace);
  EXPECT_EQ(config.at("config.json").at("text_config").at("eos_token_id"), 49407);
  EXPECT_EQ(config.at("config.json").at("text_config").at("bos_token_id"), 49406);
}

TEST_F(Configuration, ThatLeavesFieldsOutHasTheLibrarysDefaults) {
  // transformers: 8 and 12 heads, quick_gelu, 1e-5; OpenCLIP: 8 text heads, head width 64, GELU, 1e-5.
  auto architecture = unusual_architecture();
  architecture.vision.width = 192;
  architecture.vision.heads = 4;
  const auto clip = random_clip(architecture);
  auto files = checkpoint_files(clip, Naming::kHuggingFace, preprocessing_of(clip));
  files.documents["config.json"] = {{"model_type", "clip"}, {"text_config", {{"eos_token_id", 2}}}};
  const auto hugging_face = model::load_clip(files).clip->architecture();
  EXPECT_EQ(hugging_face.vision.heads, 12);
  EXPECT_EQ(hugging_face.text.heads, 8);
  EXPECT_EQ(hugging_face.vision.activation, model::Activation::kQuickGelu);
  EXPECT_EQ(hugging_face.text.layer_norm_epsilon, 1e-5);

  files = checkpoint_files(clip, Naming::kOpenClip, preprocessing_of(clip));
  files.documents["open_clip_config.json"] = {{"model_cfg", {{"vision_cfg", json::object()}}}};
  const auto open_clip = model::load_clip(files).clip->architecture();
  EXPECT_EQ(open_clip.vision.heads, 3);
  EXPECT_EQ(open_clip.text.heads, 8);
  EXPECT_EQ(open_clip.vision.activation, model::Activation::kGelu);
}

TEST_F(Configuration, OfAnOldTransformersKeepsItsTowersElsewhere) {
  auto& config = hugging_face_.documents.at("config.json");
  config["text_config_dict"] = config["text_config"];
  config["text_config"] = {{"num_attention_heads", 2}};
  EXPECT_EQ(model::load_clip(hugging_face_).clip->architecture().text.heads, 3);
}

TEST_F(Configuration, MayDifferBetweenTheTowers) {
  const auto files = with(hugging_face_, "config.json", "/vision_config/hidden_act", "quick_gelu");
  const auto architecture = model::load_clip(files).clip->architecture();
  EXPECT_EQ(architecture.vision.activation, model::Activation::kQuickGelu);
  EXPECT_EQ(architecture.text.activation, model::Activation::kGelu);
  EXPECT_THROW(model::configuration_files(architecture, preprocessing_of(clip_), Naming::kOpenClip),
               ConfigError);
}

TEST_F(Configuration, OfHuggingFaceThatContradictsTheWeightsIsRefusedNamingBoth) {
  expect_config_refused("/projection_dim", 512, "48");
  for (const std::string tower : {"/text_config", "/vision_config"}) {
    expect_config_refused(tower + "/hidden_size", 17, tower == "/text_config" ? "24" : "60");
    expect_config_refused(tower + "/intermediate_size", 17, tower == "/text_config" ? "100" : "131");
    expect_config_refused(tower + "/num_hidden_layers", 17, tower == "/text_config" ? "1" : "2");
    expect_config_refused(tower + "/num_attention_heads", 7, "a divisor");
    expect_config_refused(tower + "/num_attention_heads", 0, "a divisor");
    expect_config_refused(tower + "/num_attention_heads", "three", "an integer");
    expect_config_refused(tower + "/hidden_act", "gelu_new", "\"quick_gelu\" or \"gelu\"");
    expect_config_refused(tower + "/layer_norm_eps", -1.0);
    expect_config_refused(tower, json::array({1}), "a JSON object");
  }
  expect_config_refused("/text_config/vocab_size", 49408, "500");
  expect_config_refused("/text_config/max_position_embeddings", 64, "77");
  expect_config_refused("/text_config/eos_token_id", 3, "499");
  expect_config_refused("/vision_config/image_size", 32, "24");
  expect_config_refused("/vision_config/patch_size", 16, "8");
  expect_config_refused("/vision_config/num_channels", 1, "3");
  expect_config_refused("/model_type", "siglip", "\"clip\"");
}

TEST_F(Configuration, OfOpenClipThatContradictsTheWeightsIsRefusedNamingBoth) {
  expect_open_clip_refused("/model_cfg/embed_dim", 512, "48");
  expect_open_clip_refused("/model_cfg/vision_cfg/width", 17, "60");
  expect_open_clip_refused("/model_cfg/vision_cfg/layers", 17, "2");
  expect_open_clip_refused("/model_cfg/vision_cfg/layers", json::array({3, 4, 6, 3}), "an integer");
  expect_open_clip_refused("/model_cfg/vision_cfg/mlp_ratio", 4.0, "one that makes the 131 rows");
  expect_open_clip_refused("/model_cfg/vision_cfg/head_width", 7, "a divisor");
  expect_open_clip_refused("/model_cfg/vision_cfg/head_width", 0, "a divisor");
  expect_open_clip_refused("/model_cfg/vision_cfg/image_size", 32, "24");
  expect_open_clip_refused("/model_cfg/vision_cfg/patch_size", 16, "8");
  expect_open_clip_refused("/model_cfg/text_cfg/width", 17, "24");
  expect_open_clip_refused("/model_cfg/text_cfg/layers", 17, "1");
  expect_open_clip_refused("/model_cfg/text_cfg/heads", 7, "a divisor");
  expect_open_clip_refused("/model_cfg/text_cfg/context_length", 64, "77");
  expect_open_clip_refused("/model_cfg/text_cfg/vocab_size", 49408, "500");
  expect_open_clip_refused("/model_cfg/quick_gelu", "yes", "true or false");
  expect_open_clip_refused("/model_cfg", 3, "a JSON object");
  expect_open_clip_refused("/preprocess_cfg/size", 32, "24");
}

TEST_F(Configuration, OfOpenClipThatWantsWhatClipDoesNotHaveIsRefusedNamingIt) {
  const std::string vision = "/model_cfg/vision_cfg/";
  expect_open_clip_refused(vision + "timm_model_name", "vit_base_patch16_224");
  expect_open_clip_refused(vision + "attentional_pool", true);
  expect_open_clip_refused(vision + "pool_type", "avg", "\"tok\"");
  expect_open_clip_refused(vision + "no_ln_pre", true);
  expect_open_clip_refused(vision + "ls_init_value", 1e-4);
  expect_open_clip_refused(vision + "final_ln_after_pool", true);
  expect_open_clip_refused(vision + "qk_norm", true);
  expect_open_clip_refused(vision + "act_kwargs/approximate", "tanh");
  expect_open_clip_refused(vision + "norm_kwargs/elementwise_affine", true);
  const std::string text = "/model_cfg/text_cfg/";
  expect_open_clip_refused(text + "hf_model_name", "roberta-base");
  expect_open_clip_refused(text + "hf_tokenizer_name", "bert-base-uncased");
  expect_open_clip_refused(text + "tokenizer_kwargs", json({{"clean", "canonicalize"}}));
  expect_open_clip_refused(text + "pool_type", "last", "\"argmax\"");
  expect_open_clip_refused(text + "proj_type", "none", "\"linear\"");
  expect_open_clip_refused(text + "proj_bias", true);
  expect_open_clip_refused(text + "no_causal_mask", true);
  expect_open_clip_refused(text + "embed_cls", true);
  expect_open_clip_refused("/model_cfg/multimodal_cfg", json({{"width", 768}}));
  expect_open_clip_refused("/model_cfg/init_logit_bias", -10);
}

TEST_F(Configuration, MaySwitchOffWhatClipDoesNotHave) {
  auto files = open_clip_;
  auto& config = files.documents.at("open_clip_config.json").at("model_cfg");
  config["custom_text"] = true;
  config["vision_cfg"].update(
      json::parse(R"({"attentional_pool": false, "ls_init_value": null, "patch_dropout": 0.5,
      "pool_type": "tok", "output_tokens": true, "attn_pooler_queries": 256, "act_kwargs": {}, "qk_norm": false})"));
  config["text_cfg"].update(
      json::parse(R"({"no_causal_mask": false, "pool_type": "argmax", "pad_id": 0, "eos_id": 2,
      "tokenizer_kwargs": null, "hf_proj_type": "mlp"})"));
  EXPECT_EQ(model::load_clip(files).clip->architecture(), unusual_architecture());
}

TEST_F(Configuration, OfAnImageProcessorIsHonoured) {
  auto& json_of = hugging_face_.documents.at("preprocessor_config.json");
  const auto loaded = [&] { return model::load_clip(hugging_face_).preprocessing; };
  json_of["size"] = 28;
  json_of["crop_size"] = 24;
  EXPECT_EQ(loaded().resize_px, 28);
  EXPECT_EQ(loaded().size_px, 24);
  EXPECT_EQ(loaded().resize_mode, image::ResizeMode::kShortest);
  json_of["size"] = {{"height", 24}, {"width", 24}};
  EXPECT_EQ(loaded().resize_mode, image::ResizeMode::kSquash);
  json_of["do_center_crop"] = false;
  EXPECT_EQ(loaded().size_px, 24);

  const std::vector<image::Interpolation> codes = {
      image::Interpolation::kNearest, image::Interpolation::kLanczos, image::Interpolation::kBilinear,
      image::Interpolation::kBicubic, image::Interpolation::kBox,     image::Interpolation::kHamming};
  for (std::size_t code = 0; code < codes.size(); ++code) {  // Pillow's numbers
    json_of["resample"] = code;
    EXPECT_EQ(loaded().interpolation, codes[code]);
  }
  json_of["resample"] = "bilinear";
  EXPECT_EQ(loaded().interpolation, image::Interpolation::kBilinear);

  json_of["rescale_factor"] = 0.5;
  EXPECT_EQ(loaded().rescale_factor, 0.5);
  json_of["do_rescale"] = false;
  EXPECT_EQ(loaded().rescale_factor, 1.0);
  json_of["image_mean"] = {0.5, 0.25, 0.125};
  json_of["image_std"] = {1.5, 2.5, 3.5};
  EXPECT_EQ(loaded().mean, (std::array<float, 3>{0.5F, 0.25F, 0.125F}));
  EXPECT_EQ(loaded().standard_deviation, (std::array<float, 3>{1.5F, 2.5F, 3.5F}));
  json_of["do_normalize"] = false;
  EXPECT_EQ(loaded().mean, (std::array<float, 3>{}));
  EXPECT_EQ(loaded().standard_deviation, (std::array<float, 3>{1.0F, 1.0F, 1.0F}));
}

TEST_F(Configuration, OfAnImageProcessorThatMakesNoSquareOfTheModelsSizeIsRefused) {
  expect_preprocessor_refused("/crop_size", json({{"height", 32}, {"width", 32}}));
  expect_preprocessor_refused("/crop_size", json({{"height", 24}, {"width", 12}}));
  expect_preprocessor_refused("/size", json({{"height", 32}, {"width", 32}}));
  expect_preprocessor_refused("/size", json({{"shortest_edge", 12}}));
  expect_preprocessor_refused("/size/longest_edge", 24);
  expect_preprocessor_refused("/do_resize", false);
  expect_preprocessor_refused("/do_center_crop", false);
  expect_preprocessor_refused("/do_pad", true);
  expect_preprocessor_refused("/resample", 6);
  expect_preprocessor_refused("/resample", -1);
  expect_preprocessor_refused("/resample", "cubic spline");
  expect_preprocessor_refused("/do_rescale", "no");
  expect_preprocessor_refused("/image_std", json({0.0, 1.0, 1.0}));
  expect_preprocessor_refused("/image_mean", json({0.5, 1e300, 0.5}));
  expect_preprocessor_refused("/rescale_factor", 1e300);
  expect_preprocessor_refused("/image_processor_type", "SiglipImageProcessor");
}

TEST_F(Configuration, OfHuggingFaceWithoutAnImageProcessorHasOpenAisPreprocessing) {
  hugging_face_.documents.erase("preprocessor_config.json");
  EXPECT_EQ(model::load_clip(hugging_face_).preprocessing, preprocessing_of(clip_));
}

TEST_F(Configuration, OfOpenClipsPreprocessingIsHonoured) {
  auto& config = open_clip_.documents.at("open_clip_config.json").at("preprocess_cfg");
  config = {{"mean", 0.5},
            {"std", {0.5, 0.25, 0.125}},
            {"interpolation", "bilinear"},
            {"resize_mode", "longest"},
            {"fill_color", 7}};
  const auto preprocessing = model::load_clip(open_clip_).preprocessing;
  EXPECT_EQ(preprocessing.size_px, 24);
  EXPECT_EQ(preprocessing.mean, (std::array<float, 3>{0.5F, 0.5F, 0.5F}));
  EXPECT_EQ(preprocessing.standard_deviation, (std::array<float, 3>{0.5F, 0.25F, 0.125F}));
  EXPECT_EQ(preprocessing.interpolation, image::Interpolation::kBilinear);
  EXPECT_EQ(preprocessing.resize_mode, image::ResizeMode::kLongest);
  EXPECT_EQ(preprocessing.fill_color, (std::array<std::uint8_t, 3>{7, 7, 7}));
}

TEST_F(Configuration, OfOtherLibrariesSaysNothingOfExifSinceTheyDecodeThemselves) {
  auto preprocessing = preprocessing_of(clip_);
  preprocessing.orientation = image::Orientation::kApplyExif;
  for (const auto naming : {Naming::kHuggingFace, Naming::kOpenClip}) {
    EXPECT_EQ(model::configuration_files(clip_->architecture(), preprocessing, naming),
              model::configuration_files(clip_->architecture(), preprocessing_of(clip_), naming));
  }
}

TEST_F(Configuration, KeepsThePreprocessingThatItCanSay) {
  auto preprocessing = preprocessing_of(clip_);
  preprocessing.interpolation = image::Interpolation::kBilinear;
  preprocessing.resize_mode = image::ResizeMode::kSquash;
  preprocessing.mean = {0.1F, 0.2F, 0.3F};
  for (const auto naming : {Naming::kHuggingFace, Naming::kOpenClip}) {
    EXPECT_EQ(model::load_clip(checkpoint_files(clip_, naming, preprocessing)).preprocessing, preprocessing);
  }
}

TEST_F(Configuration, RefusesToWriteAPreprocessingThatTheLibraryCannotDo) {
  const auto refuses = [&](const image::Preprocessing& preprocessing, Naming naming) {
    EXPECT_THROW(model::configuration_files(clip_->architecture(), preprocessing, naming), ConfigError);
  };
  auto longest = preprocessing_of(clip_);
  longest.resize_mode = image::ResizeMode::kLongest;
  refuses(longest, Naming::kHuggingFace);
  auto larger = preprocessing_of(clip_);
  larger.resize_px = 32;
  refuses(larger, Naming::kOpenClip);
  auto lanczos = preprocessing_of(clip_);
  lanczos.interpolation = image::Interpolation::kLanczos;
  refuses(lanczos, Naming::kOpenClip);
}

TEST_F(Configuration, OfOpenClipFoldsAnotherRescalingIntoTheNormalisation) {
  auto preprocessing = preprocessing_of(clip_);
  preprocessing.rescale_factor = 1.0 / 127.5;
  const auto config = model::configuration_files(clip_->architecture(), preprocessing, Naming::kOpenClip);
  const auto& written = config.at("open_clip_config.json").at("preprocess_cfg");
  for (std::size_t i = 0; i < 3; ++i) {
    const double byte = 200.0;
    const double ours = (byte / 127.5 - preprocessing.mean[i]) / preprocessing.standard_deviation[i];
    const double theirs =
        (byte / 255.0 - written.at("mean")[i].get<double>()) / written.at("std")[i].get<double>();
    EXPECT_NEAR(theirs, ours, 1e-12);
  }
}

}  // namespace
}  // namespace clip_lora::testing
