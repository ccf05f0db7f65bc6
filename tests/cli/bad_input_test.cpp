#include <gmock/gmock.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "cli/program.hpp"
#include "cli/small_task.hpp"
#include "clip_lora/io/safetensors.hpp"
#include "support/files.hpp"

namespace clip_lora::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

/// The error stream of a run that must fail with `exit_code` before it computes anything and saves nothing.
std::string refusal(const SmallTask& task, const std::map<std::string, std::string>& changes, int exit_code) {
  const Outcome outcome = run_program(task.arguments(changes));
  EXPECT_EQ(outcome.exit_code, exit_code) << outcome.errors;
  EXPECT_THAT(outcome.errors, StartsWith("clip_lora: "));
  EXPECT_EQ(outcome.line("zero-shot"), "");
  EXPECT_FALSE(std::filesystem::exists(task.result_folder() / "lora_weights.pt"));
  return outcome.errors;
}

/// The same for an error of one line.
std::string one_line(const SmallTask& task, const std::map<std::string, std::string>& changes,
                     int exit_code) {
  std::string errors = refusal(task, changes, exit_code);
  EXPECT_EQ(std::count(errors.begin(), errors.end(), '\n'), 1) << errors;
  return errors;
}

void truncate_to_half(const std::filesystem::path& file) {
  std::filesystem::resize_file(file, std::filesystem::file_size(file) / 2);
}

TEST(Program, WithoutArgumentsPrintsHelp) {
  const Outcome outcome = run_program({});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.output, HasSubstr("--dataset"));
  for (const char* command : {"datasets", "demo", "embed", "export", "inspect", "predict", "split"}) {
    EXPECT_THAT(outcome.output, HasSubstr("clip_lora " + std::string(command) + " "));
  }
  EXPECT_EQ(outcome.errors, "");
}

TEST(Program, OffersTheNearestCommandForAnUnknownOne) {
  const Outcome outcome = run_program({"dema"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_EQ(
      outcome.errors,
      "clip_lora: unknown command 'dema': expected compare, datasets, demo, embed, export, inspect, predict, "
      "report, split, sweep or flags (hint: did you mean 'demo'?)\n");
}

TEST(Program, OffersTheNearestFlagForAnUnknownOne) {
  const Outcome outcome = run_program({"--shot", "4"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_EQ(outcome.errors, "clip_lora: unknown flag '--shot' (hint: did you mean '--shots'?)\n");
}

TEST(BadInput, AnUnknownDataSetIsRefusedWithTheNearestName) {
  const SmallTask task;
  const std::string errors = one_line(task, {{"--dataset", "eurosatt"}}, 2);
  EXPECT_THAT(errors, HasSubstr("--dataset 'eurosatt': there is no such folder, .csv or .json file"));
  EXPECT_THAT(errors, HasSubstr("did you mean 'eurosat'"));
}

TEST(BadInput, APathToNoDataIsBadDataHoweverItIsWritten) {
  const SmallTask task;
  for (const std::string path : {"./nothere", "nothere/", "nothere.csv", "nothere.json"})
    EXPECT_THAT(one_line(task, {{"--dataset", path}}, 3), HasSubstr("'" + path + "': there is no such"));
}

TEST(BadInput, AMissingDataFolderListsEveryFolderTried) {
  const SmallTask task;
  const std::string errors = one_line(task, {{"--dataset", "caltech101"}}, 3);
  EXPECT_THAT(errors, HasSubstr((task / "data/caltech-101").string()));
  EXPECT_THAT(errors, HasSubstr((task / "data/Caltech101").string()));
}

TEST(BadInput, ABrokenSplitFileIsNamed) {
  const SmallTask task;
  truncate_to_half(task.split_file());
  EXPECT_THAT(one_line(task, {}, 3), HasSubstr(task.split_file().string()));
}

TEST(BadInput, AMissingImageIsNamed) {
  const SmallTask task;
  std::filesystem::remove(task.test_image());
  EXPECT_THAT(one_line(task, {}, 3), HasSubstr(task.test_image().string()));
}

TEST(BadInput, ATruncatedImageIsNamed) {
  const SmallTask task;
  truncate_to_half(task.test_image());
  const std::string errors = one_line(task, {}, 3);
  EXPECT_THAT(errors, StartsWith("clip_lora: test split: image '" + task.test_image().string() + "'"));
  EXPECT_THAT(errors, HasSubstr("clip_lora datasets --verify"));
}

TEST(BadInput, ATruncatedImageOfTrainingIsNamedWithItsSplit) {
  const SmallTask task;
  const json split = json::parse(read_bytes(task.split_file()));
  for (const auto& [images, name] :
       {std::pair("train", "training images"), std::pair("val", "validation images")}) {
    std::map<std::filesystem::path, std::string> whole;
    for (const auto& entry : split.at(images)) {
      const auto image = task / "data/shapes/images" / entry.at(0).get<std::string>();
      whole[image] = read_bytes(image);
      truncate_to_half(image);
    }
    const Outcome outcome = run_program(task.arguments({{"--eval_every", "1"}}));
    EXPECT_EQ(outcome.exit_code, 3);
    EXPECT_THAT(outcome.errors, HasSubstr(std::string("clip_lora: ") + name + ": image '"));
    for (const auto& [image, bytes] : whole) write_bytes(image, bytes);
  }
}

TEST(BadInput, ABrokenFileOfTemplatesIsFoundBeforeAFolderIsMade) {
  const SmallTask task;
  for (const char* flag : {"--templates", "--zero_shot_templates"}) {
    EXPECT_THAT(one_line(task, {{flag, (task / "none.txt").string()}}, 2), HasSubstr("none.txt"));
    EXPECT_FALSE(std::filesystem::exists(task.save_path()));
  }
}

TEST(BadInput, AMissingCheckpointIsNamed) {
  const SmallTask task;
  const std::string missing = (task / "missing.safetensors").string();
  EXPECT_THAT(one_line(task, {{"--checkpoint", missing}}, 4), HasSubstr(missing));
}

TEST(BadInput, AFolderWithoutACheckpointListsWhatWasLookedForAndHowToFetchIt) {
  const SmallTask task;
  const std::string folder = (task / "data").string();
  const std::string errors = refusal(task, {{"--checkpoint", folder}}, 4);
  EXPECT_THAT(errors, HasSubstr(folder + "/model.safetensors"));
  EXPECT_THAT(errors, HasSubstr(folder + "/ViT-B-16.pt"));
  EXPECT_THAT(errors, HasSubstr("scripts/get_checkpoint.sh ViT-B/16"));
}

TEST(BadInput, AnUnknownActivationIsRefusedWithTheNearestName) {
  const SmallTask task;
  EXPECT_THAT(one_line(task, {{"--activation", "quickgelu"}}, 2), HasSubstr("did you mean 'quick_gelu'"));
}

TEST(BadInput, ATruncatedCheckpointIsNamed) {
  const SmallTask task;
  truncate_to_half(task.checkpoint());
  EXPECT_THAT(one_line(task, {}, 4), HasSubstr(task.checkpoint().string()));
}

TEST(BadInput, ACheckpointsMissingAndUnexpectedKeysAreNamedAtOnce) {
  const SmallTask task;
  io::StateDict tensors = io::read_safetensors(task.checkpoint()).tensors;
  tensors["visual.stray"] = tensors.at("ln_final.weight");
  tensors.erase("visual.ln_post.bias");
  const auto broken = task / "broken.safetensors";
  io::write_safetensors(broken, tensors);
  const std::string errors = refusal(task, {{"--checkpoint", broken.string()}}, 4);
  EXPECT_THAT(errors, HasSubstr(broken.string()));
  EXPECT_THAT(errors, HasSubstr("1 missing: visual.ln_post.bias"));
  EXPECT_THAT(errors, HasSubstr("1 unexpected: visual.stray"));
}

TEST(BadInput, ABackboneThatTheCheckpointDoesNotHoldIsRefused) {
  const SmallTask task;
  EXPECT_THAT(one_line(task, {{"--backbone", "ViT-L/14"}}, 2), HasSubstr("--backbone 'ViT-L/14'"));
}

TEST(BadInput, ARankAboveTheWidthIsRefused) {
  const SmallTask task;
  EXPECT_THAT(one_line(task, {{"--r", "65"}}, 2), HasSubstr("--r 65"));
}

TEST(BadInput, ACudaDeviceThatIsNotThereIsRefused) {  // the program sees no GPU even where there is one
  const SmallTask task;
  EXPECT_THAT(one_line(task, {{"--device", "cuda"}}, 2), HasSubstr("no CUDA device was found"));
}

TEST(BadInput, ASavePathThatCannotBeWrittenIsFoundBeforeTraining) {
  const SmallTask task;
  write_bytes(task / "file", "not a folder");  // permissions would not stop an administrator
  const std::string below_a_file = (task / "file/results").string();
  EXPECT_THAT(one_line(task, {{"--save_path", below_a_file}}, 2), HasSubstr(below_a_file));
}

TEST(BadInput, AFolderForPredictionsThatCannotBeWrittenIsFoundBeforeTheEvaluation) {
  const SmallTask task;
  ASSERT_EQ(run_program(task.arguments({{"--n_iters", "1"}})).exit_code, 0);
  write_bytes(task / "file", "not a folder");
  const Outcome outcome =
      run_program(task.arguments({{"--save_path", (task / "file/results").string()},
                                  {"--adapter", (task.result_folder() / "lora_weights.pt").string()},
                                  {"--eval_only", ""},
                                  {"--save_predictions", ""}}));
  EXPECT_EQ(outcome.exit_code, 2) << outcome.errors;
  EXPECT_THAT(outcome.errors, HasSubstr("file/results"));
  EXPECT_EQ(outcome.line("adapted"), "");
}

}  // namespace
}  // namespace clip_lora::testing
