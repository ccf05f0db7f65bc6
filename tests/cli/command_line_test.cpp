#include "command_line.hpp"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "clip_lora/cli/option_table.hpp"

namespace clip_lora::testing {
namespace {

using cli::RunOptions;

TEST(ShellQuoted, LeavesPlainWordsAndQuotesTheRest) {
  EXPECT_EQ(cli::shell_quoted("runs/vit-b_16@2.pt"), "runs/vit-b_16@2.pt");
  EXPECT_EQ(cli::shell_quoted("a photo of a {}."), "'a photo of a {}.'");
  EXPECT_EQ(cli::shell_quoted("it's"), "'it'\\''s'");
  EXPECT_EQ(cli::shell_quoted(""), "''");
}

TEST(CommandLine, OfTheDefaultsIsTheProgramAlone) { EXPECT_EQ(cli::command_line(RunOptions()), "clip_lora"); }

TEST(CommandLine, HasEveryKindOfOptionThatWasChanged) {
  RunOptions options;
  options.data.dataset = "eurosat";
  options.data.shots.reset();
  options.prompts.templates = {"a {}.", "the {}"};
  options.adapter.lora.rank = 4;
  options.adapter.lora.projections = lora::parse_projections({"q", "v"});
  options.adapter.lora.dropout = 0.1;
  options.output.save_predictions = true;
  EXPECT_EQ(
      cli::command_line(options),
      "clip_lora --dataset eurosat --shots all --template 'a {}.' --template 'the {}' --params q v --r 4 "
      "--dropout_rate 0.1 --save_predictions");
}

TEST(CommandLine, ReadBackGivesTheSameOptions) {
  RunOptions options;
  options.data.dataset = "dtd";
  options.prompts.templates = {"a {}."};
  options.training.epochs = 3;
  options.training.optimiser.learning_rate = 1.0 / 3.0;
  options.compute.tf32 = true;
  cli::OptionTable table("", "");
  bind(table, options);
  RunOptions untouched, read;
  cli::OptionTable defaults("", ""), again("", "");
  bind(defaults, untouched);
  bind(again, read);
  ASSERT_TRUE(again.parse(table.words(defaults.to_json())));
  EXPECT_EQ(again.to_json(), table.to_json());
}

TEST(CommandLine, SaysWhatTheMethodWouldHaveOtherwise) {
  RunOptions options;
  options.adapter.method = "r_adapter";
  options.training.optimiser.average_decay = 0.9;  // as the method has it
  const std::string line = cli::command_line(options);
  EXPECT_THAT(line, ::testing::HasSubstr("--method r_adapter"));
  EXPECT_THAT(line, ::testing::HasSubstr("--loss ce")) << "the general default is not the method's";
  EXPECT_THAT(line, ::testing::Not(::testing::HasSubstr("--ema")));
}

}  // namespace
}  // namespace clip_lora::testing
