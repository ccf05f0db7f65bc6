// Flags that have no part in what a run does are refused by name, and left out where settings are written.
#include "flag_parts.hpp"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <set>

#include "clip_lora/cli/option_table.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/lora/method.hpp"
#include "command_line.hpp"
#include "support/throws.hpp"

namespace clip_lora::testing {
namespace {

using cli::OptionTable;
using cli::RunOptions;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

/// The options of a configuration, as a run has them.
RunOptions read(const json& config) {
  RunOptions options;
  OptionTable table("clip_lora", "");
  cli::bind(table, options);
  table.read(config, "");
  table.apply_further_defaults();
  options.given = table.given();
  if (options.data.dataset.empty()) options.data.dataset = "eurosat";
  return options;
}

std::string complaint(const json& config) {
  return message_of<ConfigError>([&] { read(config).validate(); });
}

/// Every option of a run by its name, as it is by default.
json all_options() {
  RunOptions options;
  OptionTable table("clip_lora", "");
  cli::bind(table, options);
  return table.to_json();
}

std::set<std::string> flags_of_methods() {
  std::set<std::string> flags;
  for (const auto& method : lora::methods()) flags.insert(method.flags.begin(), method.flags.end());
  return flags;
}

TEST(FlagParts, AMethodTakesItsOwnFlagsAloneEvenWithTheirDefaults) {
  const json defaults = all_options();
  for (const auto& method : lora::methods()) {
    const std::set<std::string> own(method.flags.begin(), method.flags.end());
    for (const auto& flag : flags_of_methods()) {
      const json config = {{"method", method.name}, {flag, defaults.at(flag)}};
      if (own.contains(flag)) {
        EXPECT_NO_THROW(read(config).validate()) << method.name << " --" << flag;
      } else {
        EXPECT_THAT(complaint(config), HasSubstr("--" + flag + " has no part in --method " + method.name));
      }
    }
  }
}

TEST(FlagParts, AMessageSaysWhoTakesTheFlagAndWhatTheMethodTakes) {
  EXPECT_EQ(complaint({{"adapter_rank", 4}}),
            "--adapter_rank has no part in --method lora (hint: r_adapter takes it; lora takes --encoder "
            "--position --params --r --alpha --dropout_rate)");
  EXPECT_THAT(complaint({{"method", "r_adapter"}, {"r", 4}}), HasSubstr("(hint: lora, lora_xs take it; "));
}

TEST(FlagParts, ALossTakesItsOwnFlagsAlone) {
  EXPECT_EQ(complaint({{"margin", 0.1}}),
            "--margin has no part in --loss ce (hint: mpm_nce takes it; ce takes --class_weights)");
  EXPECT_THAT(complaint({{"label_smoothing", 0.0}}), HasSubstr("--label_smoothing has no part in --loss ce"));
  EXPECT_THAT(complaint({{"method", "r_adapter"}, {"class_weights", "balanced"}}),
              HasSubstr("--class_weights has no part in --loss mpm_nce"));
  EXPECT_NO_THROW(read({{"loss", "mpm_nce"}, {"margin", 0.1}, {"label_smoothing", 0.1}}).validate());
  EXPECT_NO_THROW(read({{"method", "r_adapter"}, {"loss", "ce"}, {"class_weights", "balanced"}}).validate());
}

TEST(FlagParts, WhereNothingIsTrainedNoFlagOfTrainingIsTaken) {
  const json defaults = all_options();
  for (const char* flag :
       {"lr", "ema", "loss", "batch_size", "epochs", "train_templates", "eval_scale", "resume"}) {
    EXPECT_THAT(
        complaint({{"method", "zero_shot"}, {flag, defaults.at(flag)}}),
        HasSubstr("--" + std::string(flag) + " has no part in --method zero_shot: nothing is trained"));
  }
  EXPECT_NO_THROW(
      read({{"method", "zero_shot"}, {"shots", 4}, {"seed", 2}, {"template", "a {}."}}).validate());
}

TEST(FlagParts, CaptionsTakeNoFlagOfClasses) {
  const json defaults = all_options();
  for (const char* flag : {"template", "templates", "train_templates", "zero_shot_templates", "class_names",
                           "class_weights", "eval_every", "save_predictions"}) {
    EXPECT_THAT(complaint({{"protocol", "retrieval"}, {"dataset", "coco"}, {flag, defaults.at(flag)}}),
                HasSubstr("--" + std::string(flag) + " has no part in --protocol retrieval"));
  }
}

TEST(FlagParts, NameOptionsThatThereAre) {
  const json options = all_options();
  for (const auto& method : lora::methods()) {
    for (const char* protocol : {"all", cli::kRetrieval}) {
      RunOptions run;
      run.adapter.method = method.name;
      run.data.protocol = protocol;
      for (const auto& [flag, why] : cli::flags_without_part(run))
        EXPECT_TRUE(options.contains(flag)) << flag;
    }
  }
}

/// What a run may be, with every option that goes with it left as it is by default.
std::vector<json> kinds_of_runs() {
  std::vector<json> kinds;
  for (const auto& method : lora::methods()) {
    for (const char* protocol : {"all", "base_to_new", cli::kRetrieval})
      kinds.push_back({{"method", method.name},
                       {"protocol", protocol},
                       {"dataset", protocol == std::string("retrieval") ? "coco" : "eurosat"}});
    if (!method.is_trained) continue;
    for (const auto& loss : cli::loss_names())
      kinds.push_back({{"method", method.name}, {"loss", loss}, {"dataset", "eurosat"}});
  }
  return kinds;
}

TEST(FlagParts, TheConfigurationOfEveryKindOfRunLoadsAgain) {
  for (const json& kind : kinds_of_runs()) {
    const RunOptions options = read(kind);
    const json config = cli::settings_of(options);
    const RunOptions again = read(config);
    EXPECT_NO_THROW(again.validate()) << kind;
    EXPECT_EQ(json(cli::settings_of(again)), config) << kind;
  }
}

TEST(FlagParts, TheCommandOfARunHasNoFlagWithoutAPart) {
  const std::string line =
      cli::command_line(read({{"method", "r_adapter"}, {"loss", "ce"}, {"dataset", "eurosat"}}));
  EXPECT_THAT(line, AllOf(HasSubstr("--method r_adapter"), HasSubstr("--loss ce")));
  for (const char* flag : {"--margin", "--label_smoothing"})
    EXPECT_THAT(line, ::testing::Not(HasSubstr(flag)));
}

}  // namespace
}  // namespace clip_lora::testing
