#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "cli/program.hpp"
#include "cli/small_task.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "support/files.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

json inspected(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "inspect");
  arguments.emplace_back("--json");
  const Outcome outcome = run_program(arguments);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
  return json::parse(outcome.output);
}

TEST(Inspect, ACheckpointsReportSaysWhatItIs) {
  const SmallTask task;
  const json report = inspected({task.checkpoint().string()});
  EXPECT_EQ(report["kind"], "checkpoint");
  EXPECT_EQ(report["container"], "safetensors");
  EXPECT_EQ(report["architecture"]["vision"]["width"], 64);
  EXPECT_EQ(report["architecture"]["vision"]["activation"], "quick_gelu");
  EXPECT_EQ(report["architecture"]["image_size_px"], 32);
  EXPECT_EQ(report["activation_source"], "the file's metadata");
  EXPECT_EQ(report["dtypes"].size(), 1U);
  EXPECT_EQ(report["dtypes"]["float32"], report["parameters"]);
  EXPECT_EQ(report["preprocessing"]["size"], 32);
  EXPECT_EQ(report["fingerprint"],
            model::fingerprint(model::load_clip(io::read_checkpoint_files(task.checkpoint())).clip));
  EXPECT_EQ(report["warnings"], json::array());
}

/// A task whose adapter was trained in the text tower alone, and its other forms.
class InspectAdapter : public ::testing::Test {
 protected:
  InspectAdapter() {
    const Outcome trained =
        run_program(task_.arguments({{"--encoder", "text"}, {"--params", "q v"}, {"--r", "3"}}));
    EXPECT_EQ(trained.exit_code, 0) << trained.errors;
  }
  fs::path adapter() const { return task_.result_folder() / "lora_weights.pt"; }
  fs::path as(const std::string& format) const {
    fs::path out = task_ / (format + (format == "safetensors" ? "_adapter.safetensors" : "_adapter"));
    const Outcome outcome = run_program({"export", "--checkpoint", task_.checkpoint().string(), "--adapter",
                                         adapter().string(), "--to", format, "--out", out.string()});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
    return out;
  }

  SmallTask task_;
};

void expect_described(const json& report, const std::string& format) {
  EXPECT_EQ(report["kind"], "adapter");
  EXPECT_EQ(report["format"], format);
  EXPECT_EQ(report["ranks"], json({3}));
  EXPECT_EQ(report["parameters"], 2 * 2 * 3 * 64) << "two projections, A and B";
  ASSERT_EQ(report["blocks"].size(), 1U);
  const json& projections = *report["blocks"].begin();
  ASSERT_EQ(projections.size(), 2U);
  for (const auto& projection : projections) EXPECT_EQ(projection, json({{"rank", 3}, {"non_zero", true}}));
  EXPECT_EQ(report["context"]["dataset"], "shapes");
  EXPECT_EQ(report["context"]["class_names"].size(), 16U);
  EXPECT_EQ(report["fits"], true);
  EXPECT_EQ(report["rank"], "3");
  EXPECT_EQ(report["encoder"], "text");
  EXPECT_EQ(report["params"], "q v");
}

TEST_F(InspectAdapter, EveryFormatIsDescribedAlike) {
  const std::vector<std::string> fit = {"--checkpoint", task_.checkpoint().string()};
  const auto report = [&](const fs::path& path) { return inspected({path.string(), fit[0], fit[1]}); };
  const json authors = report(adapter());
  expect_described(authors, "authors");
  EXPECT_EQ(authors["settings"]["encoder"], "text");
  const json peft = report(as("peft"));
  expect_described(peft, "peft");
  EXPECT_EQ(peft["settings"]["r"], 3);
  expect_described(report(as("safetensors")), "safetensors");
}

TEST_F(InspectAdapter, ItSaysWhyAnAdapterDoesNotFitACheckpoint) {
  const SmallTask other;
  const json report = inspected({adapter().string(), "--checkpoint", other.checkpoint().string()});
  EXPECT_EQ(report["fits"], false);
  EXPECT_THAT(report["why_not"].get<std::string>(), HasSubstr(adapter().string()));
}

TEST_F(InspectAdapter, TheTextReportHasALinePerBlock) {
  const Outcome outcome = run_program({"inspect", adapter().string()});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_EQ(outcome.line("kind"), "kind  adapter");
  EXPECT_EQ(outcome.line("  layer_0"), "  layer_0   q_proj r3  v_proj r3");
}

TEST(InspectBadInput, WhatIsNotThereOrNeitherKindIsRefused) {
  const SmallTask task;
  const std::string missing = (task / "missing.pt").string();
  const std::string text = (task / "notes.txt").string();
  write_bytes(text, "neither weights nor an adapter");
  for (const auto& path : {missing, text, (task / "data").string()}) {
    const Outcome outcome = run_program({"inspect", path});
    EXPECT_EQ(outcome.exit_code, 4) << outcome.errors;
    EXPECT_THAT(outcome.errors, HasSubstr(path));
    EXPECT_EQ(outcome.output, "");
  }
}

TEST(InspectBadInput, UsageErrorsAreTold) {
  EXPECT_EQ(run_program({"inspect"}).exit_code, 2);
  EXPECT_THAT(run_program({"inspect"}).errors, HasSubstr("PATH"));
  const Outcome outcome = run_program({"inspect", "a", "--jsn"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.errors, HasSubstr("did you mean '--json'"));
}

}  // namespace
}  // namespace clip_lora::testing
