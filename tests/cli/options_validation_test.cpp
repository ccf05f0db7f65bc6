#include <gmock/gmock.h>

#include <cstdint>
#include <functional>
#include <limits>

#include "clip_lora/cli/run_options.hpp"
#include "clip_lora/core/errors.hpp"
#include "support/throws.hpp"

namespace clip_lora::testing {
namespace {

using cli::RunOptions;
using ::testing::HasSubstr;

RunOptions valid_options() {
  RunOptions options;
  options.data.dataset = "eurosat";
  options.model.checkpoint = "some.safetensors";
  return options;
}

/// The complaint about options that `spoil` made invalid.
std::string complaint(const std::function<void(RunOptions&)>& spoil) {
  RunOptions options = valid_options();
  spoil(options);
  return message_of<ConfigError>([&] { options.validate(); });
}

TEST(RunOptions, ValidationNamesTheFlagTheValueAndWhatIsAllowed) {
  EXPECT_NO_THROW(valid_options().validate());
  EXPECT_EQ(complaint([](RunOptions& o) { o.data.shots = 0; }), "--shots 0: expected at least 1, or 'all'");
  EXPECT_EQ(complaint([](RunOptions& o) { o.training.batch_size = 0; }),
            "--batch_size 0: expected at least 1");
  EXPECT_EQ(complaint([](RunOptions& o) { o.training.iterations_per_shot = 0; }),
            "--n_iters 0: expected at least 1");
  EXPECT_EQ(complaint([](RunOptions& o) { o.training.optimiser.learning_rate = 0; }),
            "--lr 0: expected a number above 0");
  EXPECT_EQ(complaint([](RunOptions& o) { o.adapter.lora.rank = 0; }), "--r 0: expected at least 1");
  EXPECT_THAT(complaint([](RunOptions& o) { o.adapter.lora.alpha = 0; }), HasSubstr("--alpha 0"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.adapter.lora.dropout = 1; }), HasSubstr("--dropout_rate 1"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.adapter.lora.projections = lora::parse_projections({}); }),
              HasSubstr("--params"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.data.dataset = ""; }), HasSubstr("--dataset is missing"));
  EXPECT_EQ(complaint([](RunOptions& o) { o.model.activation = "quickgelu"; }),
            "--activation 'quickgelu': expected quick_gelu, gelu (hint: did you mean 'quick_gelu'?)");
  EXPECT_THAT(complaint([](RunOptions& o) { o.output.eval_only = true; }),
              HasSubstr("--eval_only needs --adapter, or --save_path"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.output.filename = "a/b"; }), HasSubstr("--filename 'a/b'"));
  EXPECT_EQ(complaint([](RunOptions& o) { o.compute.verbose = o.compute.quiet = true; }),
            "--verbose and --quiet exclude each other");
}

TEST(RunOptions, ValidationRefusesWordsThatAreNoChoiceWithTheNearestOne) {
  EXPECT_EQ(complaint([](RunOptions& o) { o.images.exif = "aply"; }),
            "--exif 'aply': expected auto, apply, ignore (hint: did you mean 'apply'?)");
  EXPECT_EQ(complaint([](RunOptions& o) { o.images.resize_mode = "squish"; }),
            "--resize_mode 'squish': expected shortest, longest, squash (hint: did you mean 'squash'?)");
  EXPECT_THAT(complaint([](RunOptions& o) { o.prompts.train_templates = "al"; }),
              HasSubstr("--train_templates 'al'"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.training.class_weights = "balance"; }),
              HasSubstr("did you mean 'balanced'"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.training.select = "first"; }), HasSubstr("--select 'first'"));
}

TEST(RunOptions, ValidationRefusesNumbersOutOfRange) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(complaint([](RunOptions& o) { o.images.memory_gib = -1; }), HasSubstr("--image_memory -1"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.images.memory_gib = kNan; }), HasSubstr("--image_memory nan"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.images.workers = -1; }), HasSubstr("--workers -1"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.training.eval_every = -1; }), HasSubstr("--eval_every -1"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.training.margin = -0.1; }), HasSubstr("--margin -0.1"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.training.label_smoothing = 1.0; }),
              HasSubstr("--label_smoothing 1"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.training.optimiser.average_decay = 1.0; }),
              HasSubstr("--ema 1"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.training.optimiser.warmup_iterations = -1; }),
              HasSubstr("--warmup -1"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.training.optimiser.largest_gradient_norm = -1.0; }),
              HasSubstr("--grad_clip -1"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.training.optimiser.weight_decay = kNan; }),
              HasSubstr("--weight_decay"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.training.optimiser.final_learning_rate = 1.0; }),
              HasSubstr("--min_lr 1"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.adapter.r_adapter.rank = -1; }),
              HasSubstr("--adapter_rank -1"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.adapter.r_adapter.drop = 1.0; }),
              HasSubstr("--adapter_drop 1"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.adapter.r_adapter.initial_scale = 0.0; }),
              HasSubstr("--adapter_init_scale 0"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.eval_scales = {0.5, 2.5}; }), HasSubstr("--eval_scale 2.5"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.eval_scales = {}; }), HasSubstr("--eval_scale is empty"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.adapter.method = "lora_sx"; }),
              HasSubstr("did you mean 'lora_xs'?"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.training.augment = "clip"; }),
              HasSubstr("clip_lora, open_clip"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.data.protocol = "base"; }), HasSubstr("--protocol 'base'"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.data.split.test_fraction = 1.5; }),
              HasSubstr("--test_fraction"));
  EXPECT_THAT(complaint([](RunOptions& o) {
                o.data.shots.reset();
                o.training.epochs = 0;
              }),
              HasSubstr("--epochs 0"));
}

TEST(RunOptions, ValidationRefusesOptionsThatDoNotGoTogether) {
  EXPECT_THAT(complaint([](RunOptions& o) {
                o.training.epochs = 20;
                o.training.iterations_per_shot = 7;
              }),
              HasSubstr("--epochs and --n_iters exclude each other"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.prompts.train_templates = "random"; }),
              HasSubstr("--train_templates random is for --loss mpm_nce"));
  const auto of_pairs = [](const std::function<void(RunOptions&)>& change) {
    return complaint([&](RunOptions& o) {
      o.training.loss = "mpm_nce";
      change(o);
    });
  };
  EXPECT_THAT(of_pairs([](RunOptions& o) { o.training.batch_size = 1; }), HasSubstr("--batch_size 1"));
  EXPECT_THAT(of_pairs([](RunOptions& o) { o.prompts.train_templates = "all"; }),
              HasSubstr("--train_templates all"));
  EXPECT_THAT(complaint([](RunOptions& o) {
                o.data.shots.reset();
                o.training.iterations_per_shot = 7;
              }),
              HasSubstr("--n_iters 7"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.training.select = "best"; }),
              HasSubstr("--select best needs --eval_every"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.output.save_predictions = true; }),
              HasSubstr("--save_predictions needs --save_path"));
  EXPECT_EQ(complaint([](RunOptions& o) {
              o.prompts.templates = {"a {}."};
              o.prompts.templates_file = "templates.txt";
            }),
            "--template and --templates exclude each other");
  EXPECT_THAT(complaint([](RunOptions& o) { o.prompts.templates = {"a photo"}; }), HasSubstr("'a photo'"));
  EXPECT_THAT(complaint([](RunOptions& o) {
                o.data.dataset = "photos/";
                o.prompts.zero_shot_templates = "dataset";
              }),
              HasSubstr("--zero_shot_templates dataset: own data have no customary templates"));
}

TEST(RunOptions, ValidationRefusesForABenchmarkWhatIsForOwnData) {
  EXPECT_THAT(complaint([](RunOptions& o) { o.data.class_names = "names.txt"; }),
              HasSubstr("--class_names: 'eurosat' has class names of its own"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.data.split.test_fraction = 0.5; }),
              HasSubstr("--test_fraction"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.data.split.val_fraction = 0.1; }), HasSubstr("--val_fraction"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.data.split.seed = 2; }), HasSubstr("--split_seed"));
}

TEST(RunOptions, ValidationRefusesWhatIsNoFiniteNumberOrTooMany) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(complaint([](RunOptions& o) { o.training.optimiser.learning_rate = kNan; }), HasSubstr("--lr"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.adapter.lora.alpha = kNan; }), HasSubstr("--alpha"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.adapter.lora.dropout = kNan; }), HasSubstr("--dropout_rate"));
  EXPECT_THAT(complaint([](RunOptions& o) { o.data.shots = std::numeric_limits<std::int64_t>::max(); }),
              HasSubstr("--shots"));
}

}  // namespace
}  // namespace clip_lora::testing
