#include "clip_lora/lora/summary.hpp"
#include "unit/lora_files.hpp"

namespace clip_lora::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::string complaint(const lora::LoraAdapter& adapter, const lora::LoraOptions& options) {
  return message_of<CheckpointError>(
      [&] { lora::require_same_options(adapter, of_lora(options), "weights.pt"); });
}

TEST(AdapterSummary, OfAnAdapterMadeOfOptionsIsThoseOptions) {
  lora::LoraOptions options;
  options.rank = 4;
  options.alpha = 0.3;
  options.position = lora::Position::kMiddle;
  options.projections = {.q = false, .k = true, .v = false, .o = true};
  const auto summary = lora::summarise(lora::LoraAdapter(random_clip(), options));
  EXPECT_EQ(summary.rank, "4");
  EXPECT_EQ(summary.alpha, "0.3");
  EXPECT_EQ(summary.encoder, "both");
  EXPECT_EQ(summary.params, "k o");
  EXPECT_EQ(summary.position, "mid");
  ASSERT_TRUE(summary.options.has_value());
  EXPECT_EQ(summary.options->alpha, 0.3);
}

TEST(AdapterSummary, OfOptionsIsThatOfAnAdapterMadeOfThem) {
  lora::LoraOptions options;
  options.rank = 4;
  options.alpha = 2.0;
  options.rank_stabilised = false;
  options.encoder = lora::Encoder::kVision;
  options.projections.o = true;
  const auto expected = lora::summarise(lora::LoraAdapter(random_clip(), options));
  const auto summary = lora::summarise(options);
  EXPECT_EQ(summary.rank, expected.rank);
  EXPECT_EQ(summary.alpha, expected.alpha);
  EXPECT_EQ(summary.encoder, expected.encoder);
  EXPECT_EQ(summary.params, expected.params);
  EXPECT_EQ(summary.position, expected.position);
  ASSERT_TRUE(summary.options.has_value());
  EXPECT_EQ(summary.options->scaling(), options.scaling());
}

TEST(AdapterSummary, OfAnAdapterThatNoOptionsMakeSaysHowItDiffers) {
  const auto summary = lora::summarise(irregular_adapter(random_clip()));
  EXPECT_EQ(summary.rank, "2 to 5");
  EXPECT_THAT(summary.alpha, HasSubstr(" to "));
  EXPECT_EQ(summary.params, "q k v o (not all in each block)");
  EXPECT_EQ(summary.position, "blocks 0 3 of text, 1 of vision");
  EXPECT_FALSE(summary.options.has_value());
}

TEST(RequireSameOptions, NamesEverySettingThatDiffersWithBothValues) {
  const lora::LoraAdapter adapter(random_clip(), {});
  lora::LoraOptions options;
  options.rank = 4;
  options.alpha = 3.0;
  options.encoder = lora::Encoder::kText;
  options.projections.o = true;
  options.position = lora::Position::kUp;
  EXPECT_THAT(complaint(adapter, options),
              AllOf(HasSubstr("weights.pt"), HasSubstr("--r 2, this run has --r 4"),
                    HasSubstr("--alpha 1, this run has --alpha 3"),
                    HasSubstr("--encoder both, this run has --encoder text"),
                    HasSubstr("--params q k v, this run has --params q k v o"),
                    HasSubstr("--position all, this run has --position up")));
  EXPECT_THAT(complaint(irregular_adapter(random_clip()), {}),
              AllOf(HasSubstr("--r 2 to 5"), HasSubstr("--position blocks 0 3 of text"),
                    HasSubstr("hint: no flags can say"), HasSubstr("--adapter")));
  EXPECT_THAT(complaint(adapter, options), Not(HasSubstr("hint")));
}

TEST(RequireSameOptions, ComparesOnlyTheFlagsThatAreNamed) {
  const lora::LoraAdapter adapter = irregular_adapter(random_clip());
  EXPECT_NO_THROW(lora::require_same_options(adapter, {}, "", std::set<std::string>{"encoder", "lr"}));
  EXPECT_THROW(lora::require_same_options(adapter, {}, "", std::set<std::string>{"encoder", "r"}),
               CheckpointError);
}

TEST(RequireSameOptions, ComparesWhatSettingsDoNotHowTheyAreSaid) {
  lora::LoraOptions options;
  options.encoder = lora::Encoder::kVision;
  options.rank = 4;
  options.alpha = 2.0;
  const lora::LoraAdapter adapter(random_clip(), options);
  options.dropout = 0.0;
  options.rank_stabilised = false;
  options.alpha = 4.0;  // 4 / 4 is 2 / √4
  EXPECT_NO_THROW(lora::require_same_options(adapter, of_lora(options), ""));
}

TEST(AlphaOf, IsTheDecimalThatGivesTheScaling) {
  for (const bool stabilised : {false, true}) {
    for (std::int64_t rank = 1; rank <= 64; ++rank) {
      for (const double alpha : {1.0, 16.0, 0.1, 3.3, 1e-3, 12345.678}) {
        EXPECT_EQ(lora::alpha_of(lora::update_scaling(alpha, rank, stabilised), rank, stabilised), alpha)
            << rank;
      }
    }
  }
}

TEST(AdapterDropout, IsThatOfEveryUpdateOnceSet) {
  lora::LoraAdapter adapter(random_clip(), {});
  lora::LoraOptions options;
  options.dropout = 0.5;
  adapter.set_training_options(of_lora(options));
  EXPECT_EQ(adapter.lora_options().dropout, 0.5);
  for (const auto& block : adapter.blocks()) EXPECT_EQ(block.lora.v->dropout, 0.5);
  options.dropout = 1.0;
  EXPECT_THROW(adapter.set_training_options(of_lora(options)), ConfigError);
}

}  // namespace
}  // namespace clip_lora::testing
