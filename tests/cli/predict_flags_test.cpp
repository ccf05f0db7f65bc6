#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "cli/program.hpp"
#include "support/files.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

TEST(PredictFlags, WhatGoesWithSortingOrCannotBeIsRefused) {
  const auto refusal = [](const std::vector<std::string>& flags) {
    std::vector<std::string> words = {"predict", "a.png", "--class_names", "names.txt"};
    words.insert(words.end(), flags.begin(), flags.end());
    const Outcome outcome = run_program(words);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.errors;
    return outcome.errors;
  };
  EXPECT_THAT(refusal({"--mode", "move"}), HasSubstr("--sort_into"));
  EXPECT_THAT(refusal({"--threshold", "0.5"}), HasSubstr("--sort_into"));
  EXPECT_THAT(refusal({"--threshold", "50"}), HasSubstr("0 to 1"));
  EXPECT_THAT(refusal({"--format", "jsn"}), HasSubstr("jsonl"));
  EXPECT_THAT(refusal({"--top_k", "0"}), HasSubstr("at least 1"));
  EXPECT_THAT(refusal({"--exif", "turn"}), HasSubstr("ignore"));
  EXPECT_THAT(refusal({"--null"}), HasSubstr("'-'"));
  EXPECT_THAT(run_program({"predict", "a.png"}).errors, HasSubstr("--adapter"));
}

TEST(PredictFlags, AnOutputThatCannotBeWrittenIsToldBeforeAModelIsLoaded) {
  const TemporaryFolder folder;
  write_bytes(folder / "file", "");
  const auto refusal = [&](const fs::path& out) {
    const Outcome outcome = run_program({"predict", "a.png", "--class_names", "names.txt", "--checkpoint",
                                         "missing.pt", "--force", "--out", out.string()});
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_THAT(outcome.errors, HasSubstr("cannot write '" + out.string() + "'"));
    return outcome.errors;
  };
  EXPECT_THAT(refusal(folder / "file/out.csv"), HasSubstr("Not a directory"));
  EXPECT_THAT(refusal(folder.path()), HasSubstr("it is a folder"));
}

TEST(PredictFlags, EveryOptionIsAKeyOfAConfiguration) {
  const TemporaryFolder folder;
  const Outcome defaults = run_program({"predict", "a.png", "--print_config"});
  ASSERT_EQ(defaults.exit_code, 0) << defaults.errors;
  json config = json::parse(defaults.output);
  EXPECT_EQ(config["top_k"], 5);
  config["template"] = {"one {}", "two {}"};
  config["threshold"] = 0.25;
  write_bytes(folder / "config.json", config.dump());
  const Outcome read = run_program(
      {"predict", "--config", (folder / "config.json").string(), "--print_config", "--", "--a picture.png"});
  ASSERT_EQ(read.exit_code, 0) << read.errors;
  EXPECT_EQ(json::parse(read.output), config);
}

}  // namespace
}  // namespace clip_lora::testing
