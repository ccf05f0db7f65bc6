#include <gmock/gmock.h>

#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "clip_lora/cli/option_table.hpp"
#include "clip_lora/cli/run_options.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/lora/method.hpp"
#include "support/files.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"

namespace clip_lora::testing {
namespace {

using cli::OptionTable;
using cli::RunOptions;
using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Options as a command line makes them.
RunOptions parsed(const std::vector<std::string>& arguments) {
  RunOptions options;
  OptionTable table("clip_lora", "");
  cli::bind(table, options);
  EXPECT_TRUE(table.parse(arguments));
  return options;
}

json as_json(RunOptions options) {
  OptionTable table("clip_lora", "");
  cli::bind(table, options);
  return json(table.to_json());
}

std::string parse_error(const std::vector<std::string>& arguments) {
  return message_of<ConfigError>([&] { parsed(arguments); });
}

/// A configuration file for the time of a test.
class ConfigFile {
 public:
  explicit ConfigFile(const std::string& text) { write_bytes(path(), text); }
  explicit ConfigFile(const json& config) : ConfigFile(config.dump()) {}
  std::string path() const { return (folder_ / "config.json").string(); }

 private:
  TemporaryFolder folder_;
};

std::string config_error(const std::string& text) {
  return parse_error({"--config", ConfigFile(text).path()});
}

const RunOptions kUntouched;

/// No option's default.
const json kOtherValues = {{"dataset", "eurosat"},
                           {"root_path", "elsewhere"},
                           {"shots", 3},
                           {"seed", -7},
                           {"test_fraction", 0.25},
                           {"val_fraction", 0.125},
                           {"split_seed", 9},
                           {"class_names", "names.json"},
                           {"allow_missing", true},
                           {"skip_missing", true},
                           {"template", {"a bad photo of a {}.", "a {}."}},
                           {"templates", "templates.txt"},
                           {"train_templates", "all"},
                           {"protocol", "base_to_new"},
                           {"zero_shot_templates", "dataset"},
                           {"exif", "apply"},
                           {"resize_mode", "squash"},
                           {"image_memory", 1.5},
                           {"workers", 3},
                           {"cache_dir", "cache"},
                           {"backbone", "ViT-L/14"},
                           {"checkpoint", "b.safetensors"},
                           {"activation", "gelu"},
                           {"method", "r_adapter"},
                           {"adapter_rank", 5},
                           {"adapter_init_scale", 0.25},
                           {"adapter_drop", 0.375},
                           {"adapter_drop_unit", "module"},
                           {"eval_scale", {0.25, 0.75}},
                           {"min_lr", 0.0625},
                           {"warmup", 14},
                           {"weight_decay", 0.5},
                           {"grad_clip", 2.0},
                           {"ema", 0.875},
                           {"loss", "mpm_nce"},
                           {"margin", 0.3125},
                           {"label_smoothing", 0.4375},
                           {"augment", "open_clip"},
                           {"encoder", "vision"},
                           {"position", "half-up"},
                           {"params", {"q", "o"}},
                           {"r", 8},
                           {"alpha", 0.5},
                           {"dropout_rate", 0.125},
                           {"lr", 0.25},
                           {"n_iters", 11},
                           {"epochs", 6},
                           {"batch_size", 5},
                           {"class_weights", "balanced"},
                           {"eval_every", 10},
                           {"select", "best"},
                           {"adapter", "a.pt"},
                           {"save_path", "out"},
                           {"filename", "adapter"},
                           {"eval_only", true},
                           {"save_predictions", true},
                           {"variant", "r8"},
                           {"checkpoint_every", 12},
                           {"resume", true},
                           {"log_every", 13},
                           {"tensorboard", true},
                           {"device", "cuda:1"},
                           {"precision", "bf16"},
                           {"tf32", true},
                           {"deterministic", true},
                           {"verbose", true},
                           {"quiet", true}};

/// The flag and its word on a command line, for an array once for each word.
std::vector<std::string> as_arguments(const std::string& key, const json& value) {
  std::vector<std::string> words;
  for (const auto& word : value.is_array() ? value : json::array({value})) {
    words.push_back("--" + key);
    if (!word.is_boolean()) words.push_back(word.is_string() ? word.get<std::string>() : word.dump());
  }
  return words;
}

std::vector<std::string> all_other_values_as_arguments() {
  std::vector<std::string> arguments;
  for (const auto& [key, value] : kOtherValues.items()) {
    const auto words = as_arguments(key, value);
    arguments.insert(arguments.end(), words.begin(), words.end());
  }
  return arguments;
}

void expect_in_fields(const RunOptions& options) {
  EXPECT_EQ(options.data.dataset, "eurosat");
  EXPECT_EQ(options.data.root_path, "elsewhere");
  EXPECT_EQ(options.data.shots, 3);
  EXPECT_EQ(options.data.seed, -7);
  EXPECT_EQ(options.data.split.test_fraction, 0.25);
  EXPECT_EQ(options.data.split.val_fraction, 0.125);
  EXPECT_EQ(options.data.split.seed, 9);
  EXPECT_EQ(options.data.class_names, "names.json");
  EXPECT_TRUE(options.data.allow_missing);
  EXPECT_THAT(options.prompts.templates, ElementsAre("a bad photo of a {}.", "a {}."));
  EXPECT_EQ(options.prompts.templates_file, "templates.txt");
  EXPECT_EQ(options.prompts.train_templates, "all");
  EXPECT_EQ(options.prompts.zero_shot_templates, "dataset");
  EXPECT_EQ(options.images.exif, "apply");
  EXPECT_EQ(options.images.resize_mode, "squash");
  EXPECT_EQ(options.images.memory_gib, 1.5);
  EXPECT_EQ(options.images.workers, 3);
  EXPECT_EQ(options.images.cache_folder, "cache");
  EXPECT_EQ(options.model.backbone, "ViT-L/14");
  EXPECT_EQ(options.model.checkpoint, "b.safetensors");
  EXPECT_EQ(options.model.activation, "gelu");
  EXPECT_EQ(options.adapter.lora.encoder, lora::Encoder::kVision);
  EXPECT_EQ(options.adapter.lora.position, lora::Position::kHalfUp);
  EXPECT_EQ(options.adapter.lora.projections,
            (lora::Projections{.q = true, .k = false, .v = false, .o = true}));
  EXPECT_EQ(options.adapter.lora.rank, 8);
  EXPECT_EQ(options.adapter.lora.alpha, 0.5);
  EXPECT_EQ(options.adapter.lora.dropout, 0.125);
  EXPECT_TRUE(options.data.skip_missing);
  EXPECT_EQ(options.data.protocol, "base_to_new");
  EXPECT_EQ(options.adapter.method, "r_adapter");
  EXPECT_EQ(options.adapter.r_adapter.rank, 5);
  EXPECT_EQ(options.adapter.r_adapter.initial_scale, 0.25);
  EXPECT_EQ(options.adapter.r_adapter.drop, 0.375);
  EXPECT_EQ(options.adapter.r_adapter.drop_unit, lora::DropUnit::kModule);
  EXPECT_THAT(options.eval_scales, ElementsAre(0.25, 0.75));
  EXPECT_EQ(options.training.optimiser.final_learning_rate, 0.0625);
  EXPECT_EQ(options.training.optimiser.warmup_iterations, 14);
  EXPECT_EQ(options.training.optimiser.weight_decay, 0.5);
  EXPECT_EQ(options.training.optimiser.largest_gradient_norm, 2.0);
  EXPECT_EQ(options.training.optimiser.average_decay, 0.875);
  EXPECT_EQ(options.training.loss, "mpm_nce");
  EXPECT_EQ(options.training.margin, 0.3125);
  EXPECT_EQ(options.training.label_smoothing, 0.4375);
  EXPECT_EQ(options.training.augment, "open_clip");
  EXPECT_EQ(options.training.optimiser.learning_rate, 0.25);
  EXPECT_EQ(options.training.iterations_per_shot, 11);
  EXPECT_EQ(options.training.epochs, 6);
  EXPECT_EQ(options.training.batch_size, 5);
  EXPECT_EQ(options.training.class_weights, "balanced");
  EXPECT_EQ(options.training.eval_every, 10);
  EXPECT_EQ(options.training.select, "best");
  EXPECT_EQ(options.output.adapter, "a.pt");
  EXPECT_EQ(options.output.save_path, "out");
  EXPECT_EQ(options.output.filename, "adapter");
  EXPECT_TRUE(options.output.eval_only);
  EXPECT_TRUE(options.output.save_predictions);
  EXPECT_EQ(options.output.variant, "r8");
  EXPECT_EQ(options.output.checkpoint_every, 12);
  EXPECT_TRUE(options.output.resume);
  EXPECT_EQ(options.output.log_every, 13);
  EXPECT_TRUE(options.output.tensorboard);
  EXPECT_EQ(options.compute.device, "cuda:1");
  EXPECT_EQ(options.compute.precision, "bf16");
  EXPECT_TRUE(options.compute.tf32);
  EXPECT_TRUE(options.compute.deterministic);
  EXPECT_TRUE(options.compute.verbose);
  EXPECT_TRUE(options.compute.quiet);
}

TEST(RunOptions, EveryFlagReachesItsField) { expect_in_fields(parsed(all_other_values_as_arguments())); }

TEST(RunOptions, EveryJsonKeyReachesItsField) {
  expect_in_fields(parsed({"--config", ConfigFile(kOtherValues).path()}));
}

TEST(RunOptions, EveryFlagAndEveryKeyChangesItsOwnValueAlone) {
  const json defaults = as_json(kUntouched);
  ASSERT_EQ(defaults.size(), kOtherValues.size()) << "an option is missing in this test";
  for (const auto& [key, value] : kOtherValues.items()) {
    json expected = defaults;
    ASSERT_NE(expected.at(key), value);
    if (key == "method") expected.update(json(lora::find_method(value).defaults));  // a method brings its own
    expected[key] = value;
    EXPECT_EQ(as_json(parsed(as_arguments(key, value))), expected) << key;
    EXPECT_EQ(as_json(parsed({"--config", ConfigFile(json{{key, value}}).path()})), expected) << key;
  }
}

TEST(RunOptions, FlagsWinOverTheConfigurationFileWhereverTheyStand) {
  const ConfigFile config(json{{"shots", 8}, {"params", {"o"}}, {"r", 16}});
  for (const auto& arguments :
       {std::vector<std::string>{"--config", config.path(), "--shots", "2", "--params", "q", "k"},
        std::vector<std::string>{"--params", "q", "k", "--shots", "2", "--config", config.path()}}) {
    const RunOptions options = parsed(arguments);
    EXPECT_EQ(options.data.shots, 2);
    EXPECT_THAT(lora::projection_names(options.adapter.lora.projections), ElementsAre("q", "k"));
    EXPECT_EQ(options.adapter.lora.rank, 16);
  }
}

TEST(RunOptions, AFlagSetToItsDefaultStillWinsOverTheConfigurationFile) {
  EXPECT_EQ(parsed({"--config", ConfigFile(json{{"shots", 8}}).path(), "--shots", "16"}).data.shots, 16);
}

TEST(RunOptions, TheTableKnowsWhatWasWrittenOut) {
  const ConfigFile config(json{{"shots", 8}, {"r", 16}});
  RunOptions options;
  OptionTable table("clip_lora", "");
  cli::bind(table, options);
  EXPECT_TRUE(table.parse({"--config", config.path(), "--shots", "2", "--alpha", "1"}));
  EXPECT_THAT(table.given(), ElementsAre("alpha", "r", "shots"));
}

TEST(RunOptions, ShotsAndEpochsAreNumbersOrAWord) {
  for (const auto& options :
       {parsed({"--shots", "all", "--epochs", "auto"}),
        parsed({"--config", ConfigFile(json{{"shots", "all"}, {"epochs", "auto"}}).path()})}) {
    EXPECT_FALSE(options.data.shots);
    EXPECT_FALSE(options.training.epochs);
    EXPECT_EQ(as_json(options)["shots"], "all");
    EXPECT_EQ(as_json(options)["epochs"], "auto");
  }
  EXPECT_EQ(parse_error({"--shots", "some"}), "--shots 'some': expected an integer or 'all'");
}

TEST(RunOptions, ListsMayBeRepeated) {
  EXPECT_THAT(
      lora::projection_names(parsed({"--params", "q", "k", "--params", "o"}).adapter.lora.projections),
      ElementsAre("q", "k", "o"));
}

TEST(RunOptions, AMethodBringsDefaultsThatWhatIsGivenReplaces) {
  const RunOptions plain = parsed({"--method", "r_adapter"});
  EXPECT_EQ(plain.training.loss, "mpm_nce");
  EXPECT_EQ(plain.training.optimiser.learning_rate, 5e-4);
  EXPECT_EQ(plain.prompts.templates_file, "imagenet");
  EXPECT_EQ(parsed({"--method", "r_adapter", "--lr", "0.0002"}).training.optimiser.learning_rate, 2e-4);
  EXPECT_EQ(parsed({"--config", ConfigFile(json{{"method", "r_adapter"}, {"lr", 0.125}}).path()})
                .training.optimiser.learning_rate,
            0.125);
  EXPECT_EQ(parsed({"--method", "r_adapter", "--template", "a {}."}).prompts.templates_file, "");
  EXPECT_FALSE(parsed({"--method", "r_adapter", "--n_iters", "500"}).training.epochs);
  const RunOptions by_classes = parsed({"--method", "r_adapter", "--loss", "ce", "--dataset", "eurosat"});
  EXPECT_EQ(by_classes.training.margin, 0.0);
  EXPECT_EQ(by_classes.prompts.train_templates, "first");
  EXPECT_NO_THROW(by_classes.validate());
}

TEST(RunOptions, WithAllShotsEpochsSetTheLength) {
  RunOptions options;
  options.data.shots.reset();
  EXPECT_EQ(options.iterations(320), 20 * 10) << "20 epochs of batches of 32";
  EXPECT_EQ(options.iterations(321), 20 * 11) << "the last batch of an epoch may be smaller";
  options.training.epochs = 3;
  EXPECT_EQ(options.iterations(1), 3);
  EXPECT_THAT(message_of<ConfigError>([&] { options.iterations(std::int64_t{1} << 50); }),
              HasSubstr("--epochs 3"));
  EXPECT_EQ(kUntouched.iterations(160), 500 * 16) << "otherwise the shots do";
}

TEST(RunOptions, UnknownFlagsAndWordsAreRefused) {
  EXPECT_EQ(parse_error({"--bach_size", "4"}),
            "unknown flag '--bach_size' (hint: did you mean '--batch_size'?)");
  EXPECT_EQ(parse_error({"--bach_size=4"}),
            "unknown flag '--bach_size' (hint: did you mean '--batch_size'?)");
  EXPECT_EQ(parse_error({"--zzzzzzzzzz"}), "unknown flag '--zzzzzzzzzz'");
  EXPECT_THAT(parse_error({"--shots", "4", "5"}), HasSubstr("'5'"));
}

TEST(RunOptions, ValuesOfAnotherTypeOnTheCommandLineAreRefused) {
  EXPECT_THAT(parse_error({"--shots", "four"}), HasSubstr("--shots"));
  EXPECT_THAT(parse_error({"--shots", "1.5"}), HasSubstr("--shots"));
  EXPECT_THAT(parse_error({"--shots"}), HasSubstr("--shots"));
  EXPECT_THAT(parse_error({"--lr", "fast"}), HasSubstr("--lr"));
  EXPECT_THAT(parse_error({"--encoder", "txt"}), HasSubstr("did you mean 'text'"));
  EXPECT_THAT(parse_error({"--position", "midd"}), HasSubstr("did you mean 'mid'"));
  EXPECT_THAT(parse_error({"--params", "qkv"}), HasSubstr("separate them by spaces"));
}

TEST(RunOptions, NumbersAreDecimalAndFitOrAreRefused) {
  EXPECT_EQ(parsed({"--n_iters", "010"}).training.iterations_per_shot, 10);
  EXPECT_EQ(parsed({"--seed", "-9223372036854775808"}).data.seed, std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(parsed({"--lr", "5e-05"}).training.optimiser.learning_rate, 5e-5);
  for (const std::string word :
       {"99999999999999999999", "-99999999999999999999", "0x10", "1.5", "4x", "four"})
    EXPECT_EQ(parse_error({"--seed", word}), "--seed '" + word + "': expected an integer");
  for (const std::string word : {"1e999", "0x1p3", "fast", "1,5"})
    EXPECT_EQ(parse_error({"--lr", word}), "--lr '" + word + "': expected a number");
  EXPECT_EQ(parse_error({"--shots", "99999999999999999999"}),
            "--shots '99999999999999999999': expected an integer or 'all'");
  for (const char* number : {"99999999999999999999", "-99999999999999999999", "18446744073709551615", "1.0"})
    EXPECT_THAT(config_error(R"({"seed": )" + std::string(number) + "}"), HasSubstr("key 'seed': expected"));
  EXPECT_THAT(config_error(R"({"lr": 1e999})"), HasSubstr("number overflow"));
}

TEST(RunOptions, FlagsWithoutAValueTakeTrueAndFalseAlone) {
  EXPECT_TRUE(parsed({"--quiet"}).compute.quiet);
  EXPECT_TRUE(parsed({"--quiet=true"}).compute.quiet);
  const ConfigFile config(json{{"quiet", true}});
  EXPECT_FALSE(parsed({"--config", config.path(), "--quiet=false"}).compute.quiet);
  EXPECT_EQ(parse_error({"--quiet=3"}), "--quiet '3': expected true or false");
}

TEST(RunOptions, NoBackboneIsNamedUnlessItIsGiven) {
  EXPECT_EQ(as_json(kUntouched)["backbone"], "");
  EXPECT_EQ(parsed({"--backbone", "ViT-B/16"}).model.backbone, "ViT-B/16");
}

TEST(RunOptions, UnknownJsonKeysAreRefusedWithTheFileAndTheNearestName) {
  const ConfigFile config(json{{"shot", 4}});
  EXPECT_EQ(parse_error({"--config", config.path()}),
            "configuration file '" + config.path() + "': unknown key 'shot' (hint: did you mean 'shots'?)");
}

TEST(RunOptions, JsonValuesOfAnotherTypeAreRefusedByKey) {
  for (const char* text :
       {R"({"shots": "4"})", R"({"shots": 4.5})", R"({"shots": true})", R"({"shots": null})",
        R"({"shots": 18446744073709551615})", R"({"shots": 1e30})"}) {
    EXPECT_THAT(config_error(text), HasSubstr("key 'shots': expected an integer or 'all', got")) << text;
  }
  EXPECT_THAT(config_error(R"({"seed": "4"})"), HasSubstr("key 'seed': expected a value of type INTEGER"));
  EXPECT_THAT(config_error(R"({"template": 3})"), HasSubstr("expected an array of strings"));
  EXPECT_THAT(config_error(R"({"lr": "1e-3"})"), HasSubstr("key 'lr': expected a value of type NUMBER"));
  EXPECT_THAT(config_error(R"({"dataset": 3})"), HasSubstr("key 'dataset': expected a value of type TEXT"));
  EXPECT_THAT(config_error(R"({"eval_only": 1})"), HasSubstr("key 'eval_only': expected true or false"));
  EXPECT_THAT(config_error(R"({"params": "q"})"), HasSubstr("key 'params': expected an array of strings"));
  EXPECT_THAT(config_error(R"({"params": [1]})"), HasSubstr("key 'params': expected an array of strings"));
  EXPECT_THAT(config_error(R"({"encoder": ["both"]})"), HasSubstr("key 'encoder': expected a string"));
  EXPECT_THAT(config_error(R"({"encoder": "bth"})"), HasSubstr("did you mean 'both'"));
}

TEST(RunOptions, AConfigurationFileThatIsNoJsonObjectIsRefused) {
  EXPECT_THAT(config_error("[1]"), HasSubstr("it is a JSON array, expected an object"));
  EXPECT_THAT(config_error("{\"shots\": "), HasSubstr("parse error"));
  EXPECT_THAT(config_error(""), HasSubstr("parse error"));
  EXPECT_THAT(config_error("{\"lr\": " + std::string(100'000, '[') + std::string(100'000, ']') + "}"),
              HasSubstr("nested deeper than 64"));
  EXPECT_THAT(config_error(R"({"lr": 1, "lr": 2})"), HasSubstr("'lr' is there twice"));
  EXPECT_THAT(parse_error({"--config", "missing.json"}), HasSubstr("configuration file 'missing.json'"));
  EXPECT_THAT(parse_error({"--config", "/"}), HasSubstr("configuration file '/'"));
}

TEST(RunOptions, IntegersInJsonAreNumbersToo) {
  EXPECT_EQ(parsed({"--config", ConfigFile(json{{"alpha", 2}}).path()}).adapter.lora.alpha, 2.0);
}

TEST(RunOptions, ResultsAreFiledByBackboneDatasetShotsAndSeed) {
  RunOptions options;
  options.output.save_path = "out";
  options.data.shots = 4;
  options.model.backbone = "ViT-B/16";
  EXPECT_EQ(options.result_folder("eurosat"), "out/vitb16/eurosat/4shots/seed1");
  options.model.backbone = "ViT-L/14@336px";
  options.data.shots.reset();
  EXPECT_EQ(options.result_folder("photos"), "out/vitl14@336px/photos/allshots/seed1");
}

TEST(Configs, EveryShippedFileLoadsAndIsValid) {
  int files = 0;
  for (const auto& file : std::filesystem::directory_iterator(CLIP_LORA_SOURCE_DIR "/configs")) {
    if (file.is_directory() || file.path().filename() == "published.json") continue;  // sweeps; figures
    RunOptions options;
    OptionTable table("clip_lora", "");
    cli::bind(table, options);
    ASSERT_TRUE(table.parse({"--config", file.path().string()}));
    options.given = table.given();
    if (options.data.dataset.empty()) options.data.dataset = "eurosat";
    EXPECT_NO_THROW(options.validate()) << file.path();
    ++files;
  }
  EXPECT_GE(files, 1);
}

TEST(Configs, ThePapersSettingsAreTheDefaults) {
  EXPECT_EQ(as_json(parsed({"--config", CLIP_LORA_SOURCE_DIR "/configs/paper.json"})), as_json(kUntouched));
}

}  // namespace
}  // namespace clip_lora::testing
