#pragma once

#include <gmock/gmock.h>
#include <torch/torch.h>

#include <memory>
#include <string>
#include <vector>

#include "clip_lora/engine/training_step.hpp"
#include "clip_lora/lora/method.hpp"
#include "support/close.hpp"
#include "support/tiny_model.hpp"

namespace clip_lora::testing {

using engine::Loss;

inline constexpr std::int64_t kSeed = 5;
inline const std::vector<std::int64_t> kClassEnds = {9, 3, 12, 1, 7, 9};
inline const std::vector<std::int64_t> kTextEnds = {4, 11, 2, 6};  // one for each image

inline model::ClipArchitecture short_architecture() {
  auto architecture = tiny_architecture();
  architecture.context_length = 16;
  return architecture;
}

/// A model and a batch, drawn anew for each test.
struct Setting {
  model::Clip clip = random_clip(short_architecture());
  model::Prompts classes = model::make_prompts(random_prompt_rows(short_architecture(), kClassEnds));
  model::Prompts texts = model::make_prompts(random_prompt_rows(short_architecture(), kTextEnds));
  at::Tensor images = random_images(short_architecture(), 4);
  at::Tensor labels = at::tensor({2, 0, 2, 5}, at::kLong);
};

inline engine::TrainingStepOptions step_options(Loss loss) {
  engine::TrainingStepOptions options;
  options.loss = loss;
  options.logit_scale = 10.0;  // little enough that no softmax is certain
  options.margin = 0.1;
  options.label_smoothing = 0.05;
  options.total_iterations = 40;
  options.dropout_seed = kSeed;
  options.batch_size = 4;
  return options;
}

/// The prompts that a step is made with.
inline model::Prompts fixed_prompts(const Setting& setting, Loss loss) {
  return loss == Loss::kContrastive ? model::Prompts() : setting.classes;
}

inline double compute(engine::TrainingStep& step, const Setting& setting, Loss loss) {
  return (loss == Loss::kContrastive ? step.compute_gradients(setting.images, setting.labels, setting.texts)
                                     : step.compute_gradients(setting.images, setting.labels))
      .item<double>();
}

inline double run(engine::TrainingStep& step, const Setting& setting, Loss loss) {
  return (loss == Loss::kContrastive ? step.run(setting.images, setting.labels, setting.texts)
                                     : step.run(setting.images, setting.labels))
      .item<double>();
}

struct Gradients {
  double loss;
  std::vector<at::Tensor> gradients;  // of parameters()
};

inline std::vector<at::Tensor> gradients_of(const lora::Adapter& adapter) {
  std::vector<at::Tensor> gradients;
  for (const auto& parameter : adapter.parameters()) gradients.push_back(parameter.grad().clone());
  return gradients;
}

inline Gradients gradients_with(const Setting& setting, const lora::Adapter& adapter,
                                const engine::TrainingStepOptions& options) {
  engine::TrainingStep step(setting.clip, adapter, fixed_prompts(setting, options.loss), options);
  const double loss = compute(step, setting, options.loss);
  return {loss, gradients_of(adapter)};
}

/// All gradients of one value, R-Adapter's s, as one vector: each is a sum of which hardly anything may be
/// left.
inline at::Tensor of_single_values(const Gradients& result) {
  std::vector<at::Tensor> values = {at::zeros({1})};
  for (const auto& gradient : result.gradients) {
    if (gradient.numel() == 1) values.push_back(gradient.to(at::kFloat));
  }
  return at::cat(values);
}

inline void expect_close(const Gradients& actual, const Gradients& expected, double tolerance) {
  EXPECT_NEAR(actual.loss, expected.loss, tolerance * expected.loss);
  ASSERT_EQ(actual.gradients.size(), expected.gradients.size());
  for (std::size_t i = 0; i < expected.gradients.size(); ++i) {
    if (expected.gradients[i].numel() == 1) continue;
    EXPECT_TRUE(close_in_norm(actual.gradients[i], expected.gradients[i], tolerance)) << "parameter " << i;
  }
  EXPECT_TRUE(close_in_norm(of_single_values(actual), of_single_values(expected), tolerance)) << "scales";
}

inline lora::AdapterOptions options_of(const std::string& method) {
  lora::AdapterOptions options;
  options.method = method;
  options.lora.dropout = options.r_adapter.drop = 0.0;
  if (method == "lora_xs") options.lora.rank = 16;  // two singular directions could do little
  return options;
}

inline std::string name_of(Loss loss) { return loss == Loss::kContrastive ? "contrastive" : "cross_entropy"; }

inline std::shared_ptr<lora::Adapter> random_adapter(const Setting& setting,
                                                     const lora::AdapterOptions& options) {
  auto adapter = lora::make_adapter(setting.clip, options);
  randomise(*adapter);
  return adapter;
}

/// Whether the gradients agree with differences of the loss in some directions.
inline void expect_the_differences(const Setting& setting, const lora::Adapter& adapter,
                                   const engine::TrainingStepOptions& options) {
  const at::NoGradGuard no_grad;
  engine::TrainingStep step(setting.clip, adapter, fixed_prompts(setting, options.loss), options);
  const io::StateDict start = step.state();  // of the dropping too
  compute(step, setting, options.loss);
  const auto gradients = gradients_of(adapter);
  const auto parameters = adapter.parameters();
  for (int attempt = 0; attempt < 3; ++attempt) {
    // Near the gradient's own: in most others hardly anything changes. Every tensor has an equal part.
    std::vector<at::Tensor> direction;
    double expected = 0.0;
    for (const auto& gradient : gradients) {
      const double norm = gradient.norm().item<double>();  // 0 behind what is dropped
      direction.push_back(gradient * at::rand_like(gradient) * (norm > 0.0 ? 2.0 / norm : 0.0));
      expected += (direction.back() * gradient).sum().item<double>();
    }
    const double step_size = 1e-2 / expected;  // the loss changes by that, its rounding is a ten-thousandth
    const auto loss_at = [&](double distance) {
      step.load_state(start);
      for (std::size_t i = 0; i < parameters.size(); ++i)
        at::Tensor(parameters[i]).add_(direction[i], distance);
      return compute(step, setting, options.loss);
    };
    const double difference = (loss_at(step_size) - loss_at(-step_size)) / (2.0 * step_size);
    EXPECT_NEAR(difference, expected, 5e-3 * expected);
  }
}

}  // namespace clip_lora::testing
