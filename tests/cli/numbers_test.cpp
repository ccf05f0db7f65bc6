// Numbers that go wrong, and numbers that must not change.
#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "cli/program.hpp"
#include "cli/small_task.hpp"
#include "clip_lora/io/safetensors.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "clip_lora/model/naming.hpp"
#include "support/files.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

class Numbers : public ::testing::Test {
 protected:
  std::vector<std::string> result_files() const {
    std::vector<std::string> names;
    for (const auto& file : fs::directory_iterator(task_.result_folder()))
      names.push_back(file.path().filename());
    return names;
  }
  fs::path result(const std::string& name) const { return task_.result_folder() / name; }

  const SmallTask task_;
  /// After the first update, attention's scores are beyond float32.
  const std::map<std::string, std::string> diverging_ = {{"--lr", "1e20"}};
};

TEST_F(Numbers, ATrainingThatDivergesSaysWhereAndKeepsTheLastAdapter) {
  const Outcome outcome = run_program(task_.arguments(diverging_));
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.errors,
              AllOf(HasSubstr("the training has diverged: the loss is nan at iteration 2 of 4"),
                    HasSubstr("gradient norm nan"), HasSubstr("pictures "), HasSubstr(".png"),
                    HasSubstr(result("lora_weights.last_good.pt").string()), HasSubstr("--lr")));
  EXPECT_THAT(result_files(), UnorderedElementsAre("lora_weights.last_good.pt", "metrics.jsonl"));
  const Outcome inspected = run_program({"inspect", result("lora_weights.last_good.pt").string()});
  EXPECT_EQ(inspected.exit_code, 0) << inspected.errors;

  const Outcome good = run_program(task_.arguments());
  EXPECT_EQ(good.exit_code, 0) << good.errors;
  EXPECT_THAT(result_files(),
              UnorderedElementsAre("lora_weights.pt", "config.json", "results.json", "metrics.jsonl"));
}

TEST_F(Numbers, ATrainingThatDivergesLeavesOlderResultsAsTheyWere) {
  ASSERT_EQ(run_program(task_.arguments()).exit_code, 0);
  std::map<std::string, std::string> before;
  for (const auto& name : result_files()) before[name] = read_bytes(result(name));
  EXPECT_EQ(run_program(task_.arguments(diverging_)).exit_code, 1);
  for (const auto& [name, bytes] : before) EXPECT_EQ(read_bytes(result(name)), bytes) << name;
  EXPECT_EQ(result_files().size(), before.size() + 1) << "the last good adapter stands beside them";
}

TEST_F(Numbers, OfACheckpointThatAreNotFiniteAreRefusedNamingTheTensor) {
  io::Safetensors file = io::read_safetensors(task_.checkpoint());
  for (auto& [name, tensor] : file.tensors) tensor = tensor.clone();  // the file will be written again
  file.tensors.at("visual.proj")[1][1] = std::nan("");
  const fs::path broken = task_ / "broken.safetensors";
  io::write_safetensors(broken, file.tensors, file.metadata);
  const Outcome outcome = run_program(task_.arguments({{"--checkpoint", broken.string()}}));
  EXPECT_EQ(outcome.exit_code, 4);
  EXPECT_THAT(outcome.errors, AllOf(HasSubstr(broken.string()), HasSubstr("visual.proj (1 of 2048 values)")));
}

TEST_F(Numbers, AtTheEndsOfTheirRangesTrain) {
  for (const std::map<std::string, std::string>& extreme :
       {std::map<std::string, std::string>{{"--dropout_rate", "0"}},
        {{"--dropout_rate", "0.99"}},
        {{"--lr", "1e-30"}, {"--min_lr", "0"}},
        {{"--alpha", "1e-30"}},
        {{"--loss", "mpm_nce"}, {"--margin", "2"}, {"--label_smoothing", "0.99"}},
        {{"--precision", "bf16"}, {"--ema", "0.999999"}, {"--grad_clip", "1e-30"}}}) {
    const Outcome outcome = run_program(task_.arguments(extreme));
    ASSERT_EQ(outcome.exit_code, 0) << extreme.begin()->first << ": " << outcome.errors;
    const auto results = nlohmann::json::parse(read_bytes(result("results.json")));
    EXPECT_TRUE(results.at("training").at("loss").is_number()) << extreme.begin()->first;
  }
}

TEST_F(Numbers, ALearningRateOfNothingIsRefused) {
  const Outcome outcome = run_program(task_.arguments({{"--lr", "0"}}));
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.errors, HasSubstr("--lr 0: expected a number above 0"));
}

TEST_F(Numbers, OfPicturesThatAreAllAlikeTrain) {
  const fs::path images = task_ / "data/shapes/images";
  const std::string bytes = read_bytes(task_.test_image());
  for (const auto& file : fs::recursive_directory_iterator(images)) {
    if (file.is_regular_file()) write_bytes(file.path(), bytes);
  }
  for (const char* loss : {"ce", "mpm_nce"}) {
    const Outcome outcome = run_program(task_.arguments({{"--loss", loss}}));
    EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
    EXPECT_EQ(outcome.line("adapted").substr(0, 17), "adapted    6.25 %") << "one of sixteen classes";
  }
}

/// Of as many rows that products sum them in another order with another number of threads, where LibTorch's BLAS is MKL.
constexpr model::ClipArchitecture kOfManyRows = {
    .vision = {.width = 64, .layers = 2, .mlp_width = 256, .heads = 1},
    .text = {.width = 64, .layers = 1, .mlp_width = 256, .heads = 1},
    .patch_size_px = 2,
    .image_size_px = 32,
    .context_length = 77,
    .vocabulary = 49408,
    .embedding = 32};

TEST_F(Numbers, AreTheSameWithAnyNumberOfThreadsIfDeterministic) {
  model::Clip clip(kOfManyRows);
  model::initialise(clip);
  const fs::path checkpoint = task_ / "small.rows.safetensors";
  io::write_safetensors(checkpoint, model::state_dict(clip),
                        model::checkpoint_metadata(kOfManyRows, {.size_px = 32, .resize_px = 32}));
  std::vector<std::string> adapters;
  for (const char* threads : {"1", "2", "3"}) {
    const fs::path folder = task_ / threads;
    std::vector<std::string> words = {std::string("OMP_NUM_THREADS=") + threads, CLIP_LORA_PROGRAM};
    for (const auto& word : task_.arguments({{"--checkpoint", checkpoint.string()},
                                             {"--shots", "2"},
                                             {"--n_iters", "2"},
                                             {"--batch_size", "32"},
                                             {"--save_path", folder.string()},
                                             {"--deterministic", ""}}))
      words.push_back(word);
    const Outcome outcome = run_program(words, "/usr/bin/env");
    ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
    for (const auto& file : fs::recursive_directory_iterator(folder)) {
      if (file.path().filename() == "lora_weights.pt") adapters.push_back(read_bytes(file.path()));
    }
  }
  ASSERT_EQ(adapters.size(), 3U);
  EXPECT_TRUE(adapters[0] == adapters[1]);  // not as text, where they differ
  EXPECT_TRUE(adapters[0] == adapters[2]);
}

}  // namespace
}  // namespace clip_lora::testing
