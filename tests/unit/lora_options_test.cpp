#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/lora/options.hpp"
#include "support/throws.hpp"

namespace clip_lora::testing {
namespace {

using lora::blocks_at;
using lora::Position;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// begin … end − 1.
std::vector<std::int64_t> range(std::int64_t begin, std::int64_t end) {
  std::vector<std::int64_t> numbers;
  for (auto i = begin; i < end; ++i) numbers.push_back(i);
  return numbers;
}

std::vector<std::int64_t> joined(std::int64_t depth, const std::vector<Position>& positions) {
  std::vector<std::int64_t> all;
  for (const auto position : positions) {
    for (const auto block : blocks_at(position, depth)) all.push_back(block);
  }
  return all;
}

TEST(BlocksAt, EqualTheReferencesTablesAtDepth12) {
  EXPECT_EQ(blocks_at(Position::kAll, 12), range(0, 12));
  EXPECT_EQ(blocks_at(Position::kBottom, 12), range(0, 4));
  EXPECT_EQ(blocks_at(Position::kMiddle, 12), range(4, 8));
  EXPECT_EQ(blocks_at(Position::kUp, 12), range(8, 12));
  EXPECT_EQ(blocks_at(Position::kHalfBottom, 12), range(0, 6));
  EXPECT_EQ(blocks_at(Position::kHalfUp, 12), range(6, 12));
  EXPECT_EQ(blocks_at(Position::kTop3, 12), range(9, 12));
}

TEST(BlocksAt, DivideADepthOf24InTheSameWay) {
  EXPECT_EQ(blocks_at(Position::kAll, 24), range(0, 24));
  EXPECT_EQ(blocks_at(Position::kBottom, 24), range(0, 8));
  EXPECT_EQ(blocks_at(Position::kMiddle, 24), range(8, 16));
  EXPECT_EQ(blocks_at(Position::kUp, 24), range(16, 24));
  EXPECT_EQ(blocks_at(Position::kHalfBottom, 24), range(0, 12));
  EXPECT_EQ(blocks_at(Position::kHalfUp, 24), range(12, 24));
  EXPECT_EQ(blocks_at(Position::kTop3, 24), range(21, 24));
}

TEST(BlocksAt, GiveTheRemainderToTheUpperPart) {
  EXPECT_EQ(blocks_at(Position::kBottom, 8), range(0, 2));
  EXPECT_EQ(blocks_at(Position::kMiddle, 8), range(2, 4));
  EXPECT_EQ(blocks_at(Position::kUp, 8), range(4, 8));
  EXPECT_EQ(blocks_at(Position::kHalfBottom, 7), range(0, 3));
  EXPECT_EQ(blocks_at(Position::kHalfUp, 7), range(3, 7));
  EXPECT_EQ(blocks_at(Position::kTop3, 2), range(0, 2));
}

TEST(BlocksAt, ThirdsAndHalvesCoverEveryBlockOnceInOrder) {
  for (std::int64_t depth = 1; depth <= 48; ++depth) {
    EXPECT_EQ(joined(depth, {Position::kBottom, Position::kMiddle, Position::kUp}), range(0, depth));
    EXPECT_EQ(joined(depth, {Position::kHalfBottom, Position::kHalfUp}), range(0, depth));
    EXPECT_EQ(blocks_at(Position::kAll, depth), range(0, depth));
    EXPECT_EQ(blocks_at(Position::kTop3, depth), range(std::max<std::int64_t>(0, depth - 3), depth));
  }
}

TEST(LoraNames, OfTheCommandLineGoThereAndBack) {
  for (const std::string name : {"both", "text", "vision"})
    EXPECT_EQ(to_string(lora::parse_encoder(name)), name);
  for (const std::string name : {"all", "bottom", "mid", "up", "half-up", "half-bottom", "top3"}) {
    EXPECT_EQ(to_string(lora::parse_position(name)), name);
  }
  EXPECT_THAT(lora::projection_names(lora::parse_projections({"v", "q"})), ElementsAre("q", "v"));
  EXPECT_THAT(lora::projection_names(lora::parse_projections({"o", "k", "q", "v"})),
              ElementsAre("q", "k", "v", "o"));
}

TEST(LoraNames, UnknownOnesAreRefusedWithTheNearest) {
  EXPECT_THAT(message_of<ConfigError>([] { lora::parse_encoder("visoin"); }), HasSubstr("vision"));
  EXPECT_THAT(message_of<ConfigError>([] { lora::parse_position("half_up"); }), HasSubstr("half-up"));
  EXPECT_THAT(message_of<ConfigError>([] {
                lora::parse_projections({"q", "x"});
              }),
              AllOf(HasSubstr("x"), HasSubstr("o")));
}

TEST(LoraOptions, HaveThePapersDefaults) {
  const lora::LoraOptions options;
  EXPECT_EQ(options.rank, 2);
  EXPECT_EQ(options.alpha, 1.0);
  EXPECT_EQ(options.dropout, 0.25);
  EXPECT_THAT(lora::projection_names(options.projections), ElementsAre("q", "k", "v"));
  EXPECT_EQ(options.position, Position::kAll);
  EXPECT_EQ(options.encoder, lora::Encoder::kBoth);
  EXPECT_NO_THROW(options.validate());
}

TEST(LoraOptions, ScaleByAlphaOverTheRootOfTheRank) {
  lora::LoraOptions options;
  EXPECT_DOUBLE_EQ(options.scaling(), 1.0 / std::sqrt(2.0));
  options.rank = 16;
  options.alpha = 2.0;
  EXPECT_DOUBLE_EQ(options.scaling(), 0.5);
}

TEST(LoraOptions, RefuseWhatIsOutOfRangeNamingIt) {
  const auto complaint = [](const auto& change) {
    lora::LoraOptions options;
    change(options);
    return message_of<ConfigError>([&] { options.validate(); });
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const std::int64_t rank : {0, -1}) {
    EXPECT_THAT(complaint([&](auto& options) { options.rank = rank; }), HasSubstr(std::to_string(rank)));
  }
  for (const double alpha : {0.0, -1.0, nan, std::numeric_limits<double>::infinity()}) {
    EXPECT_THAT(complaint([&](auto& options) { options.alpha = alpha; }), HasSubstr("alpha"));
  }
  for (const double dropout : {-0.1, 1.0, 1.5, nan}) {
    EXPECT_THAT(complaint([&](auto& options) { options.dropout = dropout; }), HasSubstr("dropout"));
  }
  EXPECT_THAT(complaint([](auto& options) {
                options.projections = {false, false, false, false};
              }),
              HasSubstr("params"));
}

}  // namespace
}  // namespace clip_lora::testing
