// The ids that OpenAI's own tokenizer gives.
#include <gmock/gmock.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "clip_lora/text/tokenizer.hpp"
#include "support/test_data.hpp"

namespace clip_lora::text {
namespace {

using Ids = std::vector<std::int64_t>;

nlohmann::json golden() {
  std::ifstream file(clip_lora::testing::test_data() / "golden" / "tokenizer.json");
  return nlohmann::json::parse(file);
}

TEST(TokenizerGolden, AllIdsAreEqual) {
  CLIP_LORA_NEEDS_TEST_DATA();
  const auto reference = golden();
  const auto strings = reference.at("strings").get<std::vector<std::string>>();
  const auto ids = reference.at("ids").get<std::vector<Ids>>();
  ASSERT_EQ(strings.size(), ids.size());
  ASSERT_FALSE(strings.empty());
  const Tokenizer tokenizer;
  for (std::size_t i = 0; i < strings.size(); ++i) {
    EXPECT_EQ(tokenizer.tokenize(strings[i]), ids[i]) << strings[i];
  }
}

TEST(TokenizerGolden, TruncatedIdsAreEqual) {
  CLIP_LORA_NEEDS_TEST_DATA();
  const auto reference = golden();
  const auto text = reference.at("truncated_string").get<std::string>();
  const auto ids = reference.at("truncated_ids").at(0).get<Ids>();
  EXPECT_EQ(Tokenizer().tokenize(text, kContextLength, Overlong::kTruncate), ids);
}

}  // namespace
}  // namespace clip_lora::text
