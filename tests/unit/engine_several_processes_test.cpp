// Several processes, each on its share of the batches, against one on all of them.
#include <gmock/gmock.h>
#include <torch/torch.h>

#include <cmath>
#include <ostream>
#include <sstream>

#include "clip_lora/core/share.hpp"
#include "clip_lora/engine/training_step.hpp"
#include "clip_lora/lora/method.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "support/tiny_model.hpp"
#include "unit/processes.hpp"

namespace clip_lora::testing {
namespace {

using engine::Loss;
using ::testing::Each;

constexpr std::int64_t kIterations = 20;
constexpr double kTolerance = 1e-4;
const std::vector<std::int64_t> kClassEnds = {9, 3, 12, 1, 7, 9};
// No number of processes divides them; of the last one some of four processes have nothing.
const std::vector<std::int64_t> kBatchSizes = {7, 6, 9, 3};

struct Case {
  std::string name;
  std::string method = "lora";
  Loss loss = Loss::kCrossEntropy;
  lora::DropUnit unit = lora::DropUnit::kPosition;
  bool weighted = false;  // the classes
  bool in_parts = false;  // for lack of memory

  friend std::ostream& operator<<(std::ostream& stream, const Case& self) { return stream << self.name; }
};

model::ClipArchitecture short_architecture() {
  auto architecture = tiny_architecture();
  architecture.context_length = 16;
  return architecture;
}

engine::TrainingStepOptions step_options(const Case& test) {
  engine::TrainingStepOptions options;
  options.loss = test.loss;
  options.optimiser.learning_rate = 2e-3;
  options.optimiser.warmup_iterations = 5;
  options.optimiser.largest_gradient_norm = 1.0;
  options.optimiser.average_decay = 0.9;
  options.logit_scale = 10.0;  // little enough that no softmax is certain
  options.margin = 0.1;
  options.label_smoothing = 0.05;
  options.total_iterations = kIterations;
  options.dropout_seed = 5;
  options.batch_size = 9;
  if (test.weighted) options.class_weights = torch::tensor({0.5, 2.0, 1.0, 1.5, 0.1, 3.0}, at::kFloat);
  if (test.in_parts) options.memory_bytes = 1;
  return options;
}

/// Trains by itself or as one of `processes`, on the same model and batches; the loss of each iteration.
std::vector<double> losses_of(const Case& test, engine::ProcessGroup* processes) {
  at::manual_seed(1);
  const auto architecture = short_architecture();
  const model::Clip clip = random_clip(architecture);
  lora::AdapterOptions adapter_options;
  adapter_options.method = test.method;
  adapter_options.r_adapter.drop_unit = test.unit;
  const auto adapter = lora::make_adapter(clip, adapter_options);
  randomise(*adapter);  // so that what is dropped matters from the beginning
  const auto classes = model::make_prompts(random_prompt_rows(architecture, kClassEnds));
  auto options = step_options(test);
  options.processes = processes;
  engine::TrainingStep step(clip, *adapter, test.loss == Loss::kContrastive ? model::Prompts() : classes,
                            options);
  std::vector<double> losses;
  for (std::int64_t i = 0; i < kIterations; ++i) {
    const std::int64_t count = kBatchSizes[static_cast<std::size_t>(i) % kBatchSizes.size()];
    const at::Tensor images = random_images(architecture, count);
    const at::Tensor labels = at::randint(0, std::ssize(kClassEnds), {count}, at::kLong);
    std::vector<std::int64_t> ends;
    for (std::int64_t row = 0; row < count; ++row) ends.push_back(1 + (5 * row + i) % 14);
    const auto texts = model::make_prompts(random_prompt_rows(architecture, ends));
    const Share own =
        processes == nullptr ? Share{0, count} : share_of(count, processes->rank(), processes->size());
    const at::Tensor own_images = images.narrow(0, own.first, own.count);
    const at::Tensor loss =
        test.loss == Loss::kContrastive ? step.run(own_images, labels, texts) : step.run(own_images, labels);
    losses.push_back(loss.item<double>());
  }
  return losses;
}

/// "equal", or the first iteration that is not.
std::string comparison(const std::vector<double>& losses, const std::vector<double>& expected) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (std::abs(losses[i] - expected[i]) <= kTolerance * std::abs(expected[i])) continue;
    std::ostringstream text;
    text << "iteration " << i << ": loss " << losses[i] << ", alone " << expected[i];
    return text.str();
  }
  return "equal";
}

class SeveralProcesses : public ::testing::TestWithParam<std::tuple<int, Case>> {};

TEST_P(SeveralProcesses, HaveTheLossesOfOne) {
  const auto& [size, test] = GetParam();
  const auto results = run_processes(size, [&test = test](engine::ProcessGroup& processes) {
    return comparison(losses_of(test, &processes), losses_of(test, nullptr));
  });
  EXPECT_THAT(results, Each("equal"));
}

INSTANTIATE_TEST_SUITE_P(
    , SeveralProcesses,
    ::testing::Combine(
        ::testing::Values(2, 4),
        ::testing::Values(Case{.name = "lora"}, Case{.name = "lora_weighted", .weighted = true},
                          Case{.name = "lora_pairs", .loss = Loss::kContrastive},
                          Case{.name = "lora_xs", .method = "lora_xs"},
                          Case{.name = "r_adapter", .method = "r_adapter"},
                          Case{.name = "r_adapter_pairs", .method = "r_adapter", .loss = Loss::kContrastive},
                          Case{.name = "r_adapter_pairs_in_parts",
                               .method = "r_adapter",
                               .loss = Loss::kContrastive,
                               .unit = lora::DropUnit::kSample,
                               .in_parts = true})),
    [](const auto& test) {
      return std::get<1>(test.param).name + "_" + std::to_string(std::get<0>(test.param));
    });

TEST(SeveralProcessesOfOneModel, BeginWithTheFirstOnesAdapter) {
  const auto results = run_processes(2, [](engine::ProcessGroup& processes) {
    at::manual_seed(1);
    const auto architecture = short_architecture();
    const model::Clip clip = random_clip(architecture);
    at::manual_seed(static_cast<std::uint64_t>(processes.rank()));
    const auto adapter = lora::make_adapter(clip, {});
    auto options = step_options({.name = ""});
    options.processes = &processes;
    const engine::TrainingStep step(
        clip, *adapter, model::make_prompts(random_prompt_rows(architecture, kClassEnds)), options);
    const at::Tensor own = step.state().at("parameters");
    const at::Tensor all = processes.all_gather(own.unsqueeze(0));
    return std::string(at::equal(all[0], own) ? "equal" : "other");
  });
  EXPECT_THAT(results, Each("equal"));
}

TEST(ShareOf, PartsLieOneBehindTheOtherAndDifferByOneAtMost) {
  for (const std::int64_t total : {0, 1, 3, 7, 12, 100}) {
    for (const std::int64_t parts : {1, 2, 3, 4, 8}) {
      std::int64_t next = 0, largest = 0, smallest = total;
      for (std::int64_t part = 0; part < parts; ++part) {
        const Share share = share_of(total, part, parts);
        EXPECT_EQ(share.first, next);
        next += share.count;
        largest = std::max(largest, share.count);
        smallest = std::min(smallest, share.count);
      }
      EXPECT_EQ(next, total);
      EXPECT_LE(largest - smallest, 1);
      EXPECT_EQ(largest, largest_share(total, parts));
    }
  }
}

}  // namespace
}  // namespace clip_lora::testing
