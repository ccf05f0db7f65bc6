#pragma once

#include <gmock/gmock.h>
#include <torch/torch.h>

#include <string>
#include <vector>

#include "clip_lora/data/loader.hpp"
#include "clip_lora/image/codec.hpp"
#include "clip_lora/image/image.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "clip_lora/text/prompts.hpp"
#include "clip_lora/text/tokenizer.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_model.hpp"

namespace clip_lora::testing {

/// A folder of random pictures of the model's input size, and a model that looks at them and reads English.
class TrainTest : public ::testing::Test {
 protected:
  static constexpr int kSizePx = 24;
  static constexpr int kContext = 16;
  static inline const image::Preprocessing kPreprocessing = {.size_px = kSizePx, .resize_px = kSizePx};
  static inline const std::vector<std::string> kClassNames = {
      "cat", "tree frog", "annual_crop", "kite (bird of prey)", "river", "missile"};

  void SetUp() override {
    torch::manual_seed(1);
    clip_ = random_clip(architecture());
    for (int i = 0; i < 11; ++i) {
      const auto pixels = at::randint(0, 256, {kSizePx, kSizePx, 3}, at::kByte);
      const auto path = folder_ / (std::to_string(i) + ".png");
      const auto* bytes = pixels.const_data_ptr<std::uint8_t>();
      image::write_png(path, {kSizePx, kSizePx, std::vector<std::uint8_t>(bytes, bytes + pixels.numel())});
      items_.push_back({path.string(), i % static_cast<int>(kClassNames.size())});
      pixels_.push_back(pixels);
    }
  }

  /// CLIP's vocabulary, and a context that just holds the prompts: the oracle computes all of it.
  static model::ClipArchitecture architecture() {
    auto architecture = tiny_architecture();
    architecture.vocabulary = text::kVocabularySize;
    architecture.context_length = kContext;
    return architecture;
  }

  /// The pictures as the model sees them at evaluation, [N, 3, R, R], by the formula.
  at::Tensor normalised() const {
    const auto mean = torch::tensor({0.48145466, 0.4578275, 0.40821073}, at::kDouble);
    const auto deviation = torch::tensor({0.26862954, 0.26130258, 0.27577711}, at::kDouble);
    return ((at::stack(pixels_).to(at::kDouble) / 255.0 - mean) / deviation).permute({0, 3, 1, 2});
  }

  static text::ClassPrompts plain_prompts() {
    return text::class_prompts(kClassNames, {std::string(text::kDefaultTemplate)});
  }

  data::EvaluationLoader evaluation_loader() const {
    return {items_, kPreprocessing, {.batch_size = 4, .workers = 1, .cache_folder = {}}};
  }
  data::TrainingLoader training_loader() const {
    return {items_, kPreprocessing, {.batch_size = 4, .seed = 1, .workers = 1}};
  }

  TemporaryFolder folder_;
  std::vector<data::Item> items_;
  std::vector<at::Tensor> pixels_;
  model::Clip clip_{nullptr};
  text::Tokenizer tokenizer_;
};

}  // namespace clip_lora::testing
