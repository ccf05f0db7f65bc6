#include <gtest/gtest.h>
#include <torch/torch.h>

#include "clip_lora/engine/training_step.hpp"
#include "clip_lora/lora/lora_adapter.hpp"
#include "clip_lora/ops/attention.hpp"
#include "clip_lora/ops/elementwise.hpp"
#include "golden/compute_cases.hpp"
#include "support/golden.hpp"
#include "support/tiny_model.hpp"

namespace clip_lora::testing {
namespace {

/// The options that a golden's A's and B's were made with.
struct Variant {
  std::string file;
  lora::LoraOptions options;
};

std::vector<Variant> variants() {
  std::vector<Variant> all;
  for (int i = 0; i < 6; ++i)
    all.push_back({"lora_variant" + std::to_string(i) + ".safetensors", without_dropout()});
  all[1].options.encoder = lora::Encoder::kVision;
  all[2].options.encoder = lora::Encoder::kText;
  // The reference's half-bottom is a table for 12 blocks, of which this model has the first three: all.
  all[3].options.projections = {.q = true, .k = false, .v = true, .o = false};
  all[4].options.projections = {.q = false, .k = false, .v = false, .o = true};
  all[5].options.projections = {.q = true, .k = true, .v = true, .o = true};
  all[5].options.rank = 4;
  all[5].options.alpha = 2.0;
  return all;
}

at::Tensor cosine_of(model::Clip& clip, const at::Tensor& images, const model::Prompts& prompts) {
  const at::NoGradGuard no_grad;
  return ops::l2_normalise(clip->encode_image(images))
      .matmul(ops::l2_normalise(clip->encode_text(prompts)).t());
}

class LoraGolden : public GoldenTest {
 protected:
  static lora::LoraAdapter adapter_of(const Variant& variant, const model::Clip& clip) {
    lora::LoraAdapter adapter(clip, variant.options);
    assign(adapter, below(golden_tensors(variant.file), "param/"));
    return adapter;
  }
  at::Tensor images() const { return on_device(golden_tensors("tiny_forward.safetensors").at("images")); }
  at::Tensor targets() const { return on_device(golden_tensors("tiny_forward.safetensors").at("targets")); }
};

TEST_P(LoraGolden, AdaptedCosinesReproduceTheReference) {
  auto clip = tiny_clip();
  for (const auto& variant : variants()) {
    const auto adapter = adapter_of(variant, clip);
    adapter.attach(clip);
    const auto golden = golden_tensors(variant.file).at("cosine");
    EXPECT_TRUE(matches(cosine_of(clip, images(), tiny_prompts()), golden, kHalfFeatures)) << variant.file;
    lora::detach(clip);
  }
}

TEST_P(LoraGolden, MergedCosinesReproduceTheReference) {
  auto clip = tiny_clip();
  for (const auto& variant : variants()) {
    const auto adapter = adapter_of(variant, clip);
    const lora::MergedScope merged(clip, adapter);
    const auto golden = golden_tensors(variant.file).at("cosine_eval_merged");
    EXPECT_TRUE(matches(cosine_of(clip, images(), tiny_prompts()), golden, kHalfFeatures)) << variant.file;
  }
}

TEST_P(LoraGolden, LossesAndGradientsReproduceTheReference) {
  auto clip = tiny_clip();
  for (const auto& variant : variants()) {
    const auto golden = golden_tensors(variant.file);
    const auto adapter = adapter_of(variant, clip);
    engine::TrainingStep step(clip, adapter, tiny_prompts(), {});
    for (int i = 0; i < 3; ++i) {  // on CUDA as it comes, captured and replayed
      const auto loss = step.compute_gradients(images(), targets());
      EXPECT_TRUE(matches(loss.view({1}), golden.at("loss"), kHalfFeatures)) << variant.file << " loss";
    }
    const auto gradients = below(golden, "grad/");
    for (const auto& [name, tensor] : adapter.state_dict()) {
      ASSERT_TRUE(tensor.grad().defined()) << variant.file << " " << name;
      EXPECT_TRUE(matches(tensor.grad() / step.loss_scale(), gradients.at(name), kHalfGradients))
          << variant.file << " " << name;
    }
    EXPECT_EQ(adapter.state_dict().size(), gradients.size()) << variant.file;
  }
}

TEST_P(LoraGolden, AttentionWithGivenDropoutMasksReproducesTheReference) {
  const at::NoGradGuard no_grad;
  const auto golden = golden_tensors("attention_dropout.safetensors");
  const auto joined = [&](const std::string& kind) {
    return on_device(
        at::cat({golden.at("q_proj." + kind), golden.at("k_proj." + kind), golden.at("v_proj." + kind)}));
  };
  const lora::LoraOptions defaults;  // rank 2, alpha 1, dropout 0.25: the golden's
  const auto update = [&](const std::string& name) {
    const auto on = [&](const std::string& matrix) {
      return golden.at(name + "." + matrix).to(GetParam().device);
    };
    return ops::LowRank{on("w_lora_A"), on("w_lora_B"), defaults.scaling(), defaults.dropout};
  };
  // The golden is [L, B, D].
  const auto keep = [&](const std::string& name) {
    return on_device(golden.at("keep_mask/" + name).transpose(0, 1));
  };
  const auto y =
      ops::attention(on_device(golden.at("x_LND").transpose(0, 1)),
                     {joined("weight"), joined("bias"), on_device(golden.at("proj.weight")),
                      on_device(golden.at("proj.bias"))},
                     {update("q_proj"), update("k_proj"), update("v_proj"), std::nullopt},
                     {keep("q_proj"), keep("k_proj"), keep("v_proj"), {}}, /*heads=*/2, /*causal=*/false);
  EXPECT_TRUE(matches(y.transpose(0, 1), golden.at("y_LND"), kHalfFeatures));
}

INSTANTIATE_TEST_SUITE_P(, LoraGolden, ::testing::ValuesIn(compute_cases()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace clip_lora::testing
