#include <gmock/gmock.h>
#include <torch/torch.h>

#include <cmath>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "support/checkpoint_forms.hpp"
#include "support/close.hpp"
#include "support/throws.hpp"
#include "support/tiny_model.hpp"

namespace clip_lora::testing {
namespace {

using model::Activation;
using model::Naming;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

/// A checkpoint under OpenAI's names that says nothing but its tensors.
io::CheckpointFiles bare_files(const io::StateDict& tensors) {
  io::CheckpointFiles files;
  files.path = "model";
  files.tensors = tensors;
  return files;
}

io::CheckpointFiles bare_files() { return bare_files(model::state_dict(random_clip())); }

std::string complaint_about_files(const io::CheckpointFiles& files) {
  auto message = message_of<CheckpointError>([&] { model::load_clip(files); });
  EXPECT_THAT(message, HasSubstr("'model'"));
  return message;
}

Activation activation_of(const model::LoadedClip& loaded) {
  const auto& architecture = loaded.clip->architecture();
  EXPECT_EQ(architecture.vision.activation, architecture.text.activation);
  return architecture.vision.activation;
}

TEST(LoadClipFromFiles, GivesTheSameWeightsUnderEachNamingAndType) {
  for (const auto type : {at::kFloat, at::kHalf, at::kBFloat16}) {
    const auto clip = random_clip();
    for (const auto naming : {Naming::kOpenAi, Naming::kHuggingFace, Naming::kOpenClip}) {
      auto files = checkpoint_files(clip, naming, preprocessing_of(clip));
      for (auto& [name, tensor] : files.tensors) tensor = tensor.to(type);
      const auto loaded = model::load_clip(files);
      EXPECT_EQ(loaded.naming, naming);
      const auto weights = model::state_dict(loaded.clip);
      for (const auto& [name, tensor] : model::state_dict(clip)) {
        EXPECT_TRUE(identical(weights.at(name), tensor.to(type).to(at::kFloat))) << name;
      }
    }
  }
}

TEST(LoadClipFromFiles, TakesTheTextTowerOfOpenClipsCustomTextClip) {
  const auto clip = random_clip();
  const auto original = model::state_dict(clip);
  io::StateDict renamed;
  for (const auto& [name, tensor] : original) {
    renamed[name.starts_with("visual.") || name == "logit_scale" ? name : "text." + name] = tensor;
  }
  const auto weights = model::state_dict(model::load_clip(bare_files(renamed)).clip);
  for (const auto& [name, tensor] : original) EXPECT_TRUE(identical(weights.at(name), tensor)) << name;
}

TEST(LoadClipFromFiles, TakesALogitScaleOfOneElement) {
  auto files = bare_files();
  files.tensors["logit_scale"] = at::full({1}, 3.5);
  EXPECT_TRUE(identical(model::load_clip(files).clip->logit_scale, at::full({}, 3.5)));
}

TEST(LoadClipFromFiles, KeepsTheFactorOnCosinesWhateverTypeTheModelGets) {
  auto files = bare_files();
  files.tensors["logit_scale"] = at::full({}, std::log(100.0));
  auto loaded = model::load_clip(files);
  loaded.clip->to(at::kBFloat16);
  EXPECT_NEAR(loaded.logit_scale, 100.0, 1e-4);  // of a logarithm in float32
}

TEST(LoadClipFromFiles, IgnoresThePositionsOfOldTransformers) {
  const auto clip = random_clip();
  auto files = checkpoint_files(clip, Naming::kHuggingFace, preprocessing_of(clip));
  files.tensors["text_model.embeddings.position_ids"] = at::arange(77);
  files.tensors["vision_model.embeddings.position_ids"] = at::arange(10);
  EXPECT_NO_THROW(model::load_clip(files));
}

TEST(LoadClipFromFiles, IgnoresTheCausalMaskThatTorchScriptStores) {
  auto files = bare_files();
  files.tensors["attn_mask"] = at::zeros({77, 77});
  EXPECT_NO_THROW(model::load_clip(files));
}

TEST(LoadClipFromFiles, HasOpenAisPreprocessingAtTheModelsResolutionUnlessToldOtherwise) {
  const auto loaded = model::load_clip(bare_files());
  EXPECT_EQ(loaded.preprocessing, preprocessing_of(loaded.clip));
}

TEST(ActivationOfACheckpoint, IsAssumedWithAWarningThatNamesTheFlag) {
  const auto loaded = model::load_clip(bare_files());
  EXPECT_EQ(activation_of(loaded), Activation::kQuickGelu);
  EXPECT_THAT(loaded.warnings,
              ElementsAre(AllOf(HasSubstr("'model'"), HasSubstr("--activation quick_gelu|gelu"))));
}

TEST(ActivationOfACheckpoint, IsWhatTheUserSaysAboveAll) {
  for (const auto activation : {Activation::kQuickGelu, Activation::kGelu}) {
    const auto loaded = model::load_clip(bare_files(), activation);
    EXPECT_EQ(activation_of(loaded), activation);
    EXPECT_THAT(loaded.warnings, IsEmpty());
    for (const auto naming : {Naming::kHuggingFace, Naming::kOpenClip}) {
      const auto clip = random_clip();
      const auto configured =
          model::load_clip(checkpoint_files(clip, naming, preprocessing_of(clip)), activation);
      EXPECT_EQ(activation_of(configured), activation);
    }
  }
}

TEST(ActivationOfACheckpoint, IsInTheMetadataOfOurFiles) {
  auto files = bare_files();
  files.metadata = {{"clip_lora.activation", "gelu"}};
  const auto loaded = model::load_clip(files);
  EXPECT_EQ(activation_of(loaded), Activation::kGelu);
  EXPECT_THAT(loaded.warnings, IsEmpty());
  files.metadata = {{"clip_lora.activation", "relu"}};
  EXPECT_THAT(complaint_about_files(files), AllOf(HasSubstr("relu"), HasSubstr("clip_lora.activation")));
}

TEST(ActivationOfACheckpoint, IsInTheCodeOfATorchScriptArchive) {
  auto files = bare_files();
  files.torchscript_code = "_0 = torch.sigmoid(torch.mul(argument_1, CONSTANTS.c1))";
  EXPECT_EQ(activation_of(model::load_clip(files)), Activation::kQuickGelu);
  EXPECT_THAT(model::load_clip(files).warnings, IsEmpty());
  files.torchscript_code = "gelu : __torch__.GELU\n_0 = torch.gelu(argument_1, approximate='none')";
  EXPECT_EQ(activation_of(model::load_clip(files)), Activation::kGelu);
  EXPECT_THAT(model::load_clip(files).warnings, IsEmpty());
  files.torchscript_code = "_0 = torch.relu(argument_1)";
  EXPECT_FALSE(model::load_clip(files).warnings.empty());
}

TEST(ActivationOfACheckpoint, IsRefusedWhereTheFileAndTheConfigurationBesideItDisagree) {
  const auto clip = random_clip();  // QuickGELU
  auto files = checkpoint_files(clip, Naming::kOpenClip, preprocessing_of(clip));
  files.torchscript_code = "torch.gelu(x)";
  EXPECT_THAT(complaint_about_files(files),
              AllOf(HasSubstr("is quick_gelu"), HasSubstr("says gelu"), HasSubstr("--activation")));
  EXPECT_EQ(activation_of(model::load_clip(files, Activation::kGelu)), Activation::kGelu);
}

TEST(ConfigurationBesideAFile, CountsOnlyIfItIsOneForItsNames) {
  const auto clip = random_clip();
  const auto hugging_face = checkpoint_files(clip, Naming::kHuggingFace, preprocessing_of(clip));
  const auto open_clip = checkpoint_files(clip, Naming::kOpenClip, preprocessing_of(clip));
  auto files = bare_files();
  files.documents = hugging_face.documents;
  EXPECT_EQ(model::load_clip(files).warnings.size(), 1U);
  files = hugging_face;
  files.documents = open_clip.documents;
  EXPECT_EQ(model::load_clip(files).warnings.size(), 1U);
  files.documents = {{"config.json", {{"learning_rate", 0.1}}}};
  EXPECT_EQ(model::load_clip(files).warnings.size(), 1U);
}

TEST(MetadataOfOurFiles, SaysEverythingThatTheShapesDoNot) {
  auto architecture = tiny_architecture();
  architecture.vision.heads = 12;
  architecture.text.layer_norm_epsilon = 1e-6;
  for (auto* tower : {&architecture.vision, &architecture.text}) tower->activation = Activation::kGelu;
  const auto clip = random_clip(architecture);
  auto preprocessing = preprocessing_of(clip);
  preprocessing.resize_px = 32;
  preprocessing.interpolation = image::Interpolation::kLanczos;
  auto files = bare_files(model::state_dict(clip));
  files.metadata = model::checkpoint_metadata(architecture, preprocessing);
  const auto loaded = model::load_clip(files);
  EXPECT_EQ(loaded.clip->architecture(), architecture);
  EXPECT_EQ(loaded.preprocessing, preprocessing);
  EXPECT_THAT(loaded.warnings, IsEmpty());
  files.metadata["clip_lora.configuration"] = "{";
  EXPECT_THAT(complaint_about_files(files), HasSubstr("clip_lora.configuration"));
  files.metadata["clip_lora.configuration"] = "{\"model_cfg\":" + std::string(1'000'000, '[');
  EXPECT_THAT(complaint_about_files(files), HasSubstr("nested deeper"));
  files.metadata["clip_lora.configuration"] = "{}";
  EXPECT_THAT(complaint_about_files(files), HasSubstr("model_cfg"));
}

TEST(LoadClipFromFiles, ListsWhatDoesNotFitByTheFilesOwnNames) {
  const auto clip = random_clip();
  auto files = checkpoint_files(clip, Naming::kHuggingFace, preprocessing_of(clip));
  files.tensors.erase("vision_model.encoder.layers.1.self_attn.k_proj.weight");
  files.tensors.erase("text_model.final_layer_norm.bias");
  files.tensors["visual_projection.weight"] = at::zeros({192, 48});
  files.tensors["surprise"] = at::zeros({1});
  files.documents.clear();
  EXPECT_THAT(
      complaint_about_files(files),
      AllOf(HasSubstr("vision_model.encoder.layers.1.self_attn.k_proj.weight"),
            HasSubstr("text_model.final_layer_norm.bias"),
            HasSubstr("visual_projection.weight is [192, 48], expected [48, 192]"), HasSubstr("surprise")));
}

TEST(LoadClipFromFiles, NamesATensorThatTheArchitectureIsReadOffAsTheFileWould) {
  const auto clip = random_clip();
  const auto whole = checkpoint_files(clip, Naming::kHuggingFace, preprocessing_of(clip));
  for (const std::string name :
       {"vision_model.embeddings.patch_embedding.weight", "vision_model.embeddings.position_embedding.weight",
        "text_model.embeddings.token_embedding.weight", "text_model.embeddings.position_embedding.weight",
        "text_projection.weight", "vision_model.encoder.layers.0.self_attn.q_proj.weight",
        "text_model.encoder.layers.0.self_attn.q_proj.weight"}) {
    auto files = whole;
    files.tensors.erase(name);
    EXPECT_THAT(complaint_about_files(files), HasSubstr("'" + name + "' is missing"));
    files.tensors[name] = at::zeros({2, 3, 5, 7, 11});
    EXPECT_THAT(complaint_about_files(files), HasSubstr(name));
  }
}

TEST(LoadClipFromFiles, OnlyOneTowerIsRefused) {
  const auto clip = random_clip();
  auto files = checkpoint_files(clip, Naming::kHuggingFace, preprocessing_of(clip));
  std::erase_if(files.tensors, [](const auto& item) { return !item.first.starts_with("vision_model."); });
  EXPECT_THAT(complaint_about_files(files), HasSubstr("text_model.embeddings.token_embedding.weight"));
}

TEST(LoadClipFromFiles, WhatIsNoClipWithTwoTransformersIsRefusedNamingWhatItIs) {
  const std::vector<std::pair<std::string, std::string>> others = {
      {"visual.layer1.0.conv1.weight", "ResNet"},
      {"visual.trunk.blocks.0.norm1.weight", "timm"},
      {"visual.blocks.0.attn.q_proj.weight", "EVA-CLIP"},
      {"text_decoder.resblocks.0.ln_1.weight", "CoCa"},
      {"text.transformer.embeddings.word_embeddings.weight", "AutoModel"},
      {"text.transformer.encoder.layer.0.output.dense.weight", "AutoModel"},
      {"text_model.embeddings.word_embeddings.weight", "BERT"},
      {"text_model.roberta.embeddings.word_embeddings.weight", "RoBERTa"},
      {"vision_model.head.probe", "SigLIP"},
      {"logit_bias", "SigLIP"},
      {"visual_encoder.cls_token", "BLIP"},
      {"qformer.encoder.layer.0.output.dense.weight", "BLIP-2"},
      {"language_model.model.embed_tokens.weight", "language model"},
      {"base_model.model.x.lora_A.weight", "--adapter"}};
  for (const auto& [name, what] : others) {
    auto files = bare_files();
    files.tensors[name] = at::zeros({1});
    EXPECT_THAT(complaint_about_files(files),
                AllOf(HasSubstr(what), HasSubstr("'" + name + "'"), HasSubstr("expected")));
  }
}

TEST(LoadClipFromFiles, AFewTensorsThatDescribeAHugeModelAreRefusedBeforeMemoryIsTaken) {
  auto tensors = model::state_dict(random_clip());
  for (int i = 3; i < 4000; ++i) {  // blocks with nothing but the tensor that they are counted by
    tensors["visual.transformer.resblocks." + std::to_string(i) + ".attn.in_proj_weight"] = at::zeros({1, 1});
  }
  EXPECT_THAT(complaint_about_files(bare_files(tensors)),
              AllOf(HasSubstr("parameters"), HasSubstr("damaged")));
}

TEST(LoadClipFromFiles, AWidthThatIsNoMultipleOf64NeedsAConfiguration) {
  auto architecture = tiny_architecture();
  architecture.text.width = 60;
  architecture.text.heads = 6;
  const auto clip = random_clip(architecture);
  EXPECT_THAT(complaint_about_files(bare_files(model::state_dict(clip))),
              AllOf(HasSubstr("60"), HasSubstr("config.json")));
  EXPECT_EQ(model::load_clip(checkpoint_files(clip, Naming::kHuggingFace, preprocessing_of(clip)))
                .clip->architecture(),
            architecture);
}

TEST(Fingerprint, IsTheSameForEveryNamingAndLosslessType) {
  auto clip = random_clip();
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : model::state_dict(clip)) tensor.copy_(tensor.to(at::kBFloat16));
  const auto expected = model::fingerprint(clip);
  for (const auto naming : {Naming::kOpenAi, Naming::kHuggingFace, Naming::kOpenClip}) {
    auto files = checkpoint_files(clip, naming, preprocessing_of(clip));
    EXPECT_EQ(model::fingerprint(model::load_clip(files).clip), expected);
    for (auto& [name, tensor] : files.tensors) tensor = tensor.to(at::kBFloat16);
    EXPECT_EQ(model::fingerprint(model::load_clip(files).clip), expected);
  }
}

TEST(Fingerprint, IsThirtyTwoHexadecimalDigits) {
  EXPECT_THAT(model::fingerprint(random_clip()), ::testing::MatchesRegex("[0-9a-f]{32}"));
}

TEST(Fingerprint, ChangesWithTheSmallestChangeOfAnyWeight) {
  auto clip = random_clip();
  const auto before = model::fingerprint(clip);
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : model::state_dict(clip)) {
    const auto original = tensor.clone();
    auto last = tensor.view(-1)[-1];
    last.copy_(at::nextafter(last, at::full({}, 1e30F)));
    EXPECT_NE(model::fingerprint(clip), before) << name;
    tensor.copy_(original);
  }
  EXPECT_EQ(model::fingerprint(clip), before);
}

}  // namespace
}  // namespace clip_lora::testing
