#include <gmock/gmock.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/text/hugging_face_tokenizer.hpp"
#include "clip_lora/text/tokenizer.hpp"
#include "support/files.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"

namespace clip_lora::text {
namespace {

using clip_lora::testing::message_of;
using clip_lora::testing::TemporaryFolder;
using clip_lora::testing::write_bytes;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string complaint_about(const TemporaryFolder& folder) {
  return message_of<CheckpointError>([&] { require_clip_tokenizer(folder.path()); });
}

TEST(HuggingFaceTokenizer, TheVocabularyHasEveryIdOnceAndThePublishedIdsOfWords) {
  const json ids = json::parse(hugging_face_tokenizer_files(77).at("vocab.json"));
  std::set<std::int64_t> seen;
  for (const auto& [token, id] : ids.items()) seen.insert(id.get<std::int64_t>());
  EXPECT_EQ(ids.size(), static_cast<std::size_t>(kVocabularySize));
  EXPECT_EQ(seen.size(), ids.size());
  EXPECT_EQ(*seen.begin(), 0);
  EXPECT_EQ(*seen.rbegin(), kVocabularySize - 1);
  EXPECT_EQ(ids.at("!"), 0);
  EXPECT_EQ(ids.at("a</w>"), 320);
  EXPECT_EQ(ids.at("photo</w>"), 1125);
  EXPECT_EQ(ids.at("<|startoftext|>"), kStartOfText);
  EXPECT_EQ(ids.at("<|endoftext|>"), kEndOfText);
}

TEST(HuggingFaceTokenizer, TheMergesBeginWithAVersionLine) {
  const std::string merges = hugging_face_tokenizer_files(77).at("merges.txt");
  EXPECT_THAT(merges, StartsWith("#version: 0.2\ni n\nt h\n"));
  EXPECT_EQ(std::count(merges.begin(), merges.end(), '\n'), 1 + 48894);
}

TEST(HuggingFaceTokenizer, TheConfigurationNamesTheClassAndTheContext) {
  const auto files = hugging_face_tokenizer_files(64);
  const json configuration = json::parse(files.at("tokenizer_config.json"));
  EXPECT_EQ(configuration.at("tokenizer_class"), "CLIPTokenizer");
  EXPECT_EQ(configuration.at("model_max_length"), 64);
  EXPECT_EQ(json::parse(files.at("special_tokens_map.json")).at("eos_token"), "<|endoftext|>");
}

TEST(RequireClipTokenizer, AcceptsItsOwnFilesInEitherFormAndNone) {
  const TemporaryFolder none, apart, whole;
  const auto files = hugging_face_tokenizer_files(77);
  for (const auto& [name, text] : files) write_bytes(apart / name, text);
  json merges = json::array();
  const std::string lines = files.at("merges.txt");
  for (std::size_t begin = lines.find('\n') + 1; begin < lines.size();) {
    const std::size_t end = lines.find('\n', begin);
    merges.push_back(lines.substr(begin, end - begin));
    begin = end + 1;
  }
  const json tokenizer = {{"model", {{"vocab", json::parse(files.at("vocab.json"))}, {"merges", merges}}}};
  write_bytes(whole / "tokenizer.json", tokenizer.dump());
  EXPECT_NO_THROW(require_clip_tokenizer(none.path()));
  EXPECT_NO_THROW(require_clip_tokenizer(apart.path()));
  EXPECT_NO_THROW(require_clip_tokenizer(whole.path()));
}

TEST(RequireClipTokenizer, NamesTheTokenTheMergeOrTheSizeThatDiffers) {
  const TemporaryFolder folder;
  const auto files = hugging_face_tokenizer_files(77);
  json ids = json::parse(files.at("vocab.json"));
  std::swap(ids["a</w>"], ids["photo</w>"]);
  write_bytes(folder / "vocab.json", ids.dump());
  EXPECT_THAT(complaint_about(folder), AllOf(HasSubstr("vocab.json"), HasSubstr("'a</w>' has the id 1125"),
                                             HasSubstr("CLIP's has the id 320")));
  write_bytes(folder / "vocab.json", files.at("vocab.json"));
  write_bytes(folder / "merges.txt", "#version: 0.2\ni n\nh t\n");
  EXPECT_THAT(complaint_about(folder),
              AllOf(HasSubstr("merges.txt"), HasSubstr("merge 2 is 'h t', CLIP's is 't h'")));
  write_bytes(folder / "vocab.json", "{\"a\": 0}");
  EXPECT_THAT(complaint_about(folder), HasSubstr("1 tokens, expected CLIP's 49408"));
  write_bytes(folder / "vocab.json", "[");
  EXPECT_THAT(complaint_about(folder), HasSubstr("is not JSON"));
  ids["a</w>"] = "deep";
  std::string deep = ids.dump();
  deep.replace(deep.find("\"deep\""), 6, std::string(100'000, '[') + std::string(100'000, ']'));
  write_bytes(folder / "vocab.json", deep);
  EXPECT_THAT(complaint_about(folder), HasSubstr("nested deeper than 64"));
}

TEST(RequireClipTokenizer, RefusesATokenizerFileOfAnotherKind) {
  const TemporaryFolder folder;
  write_bytes(folder / "tokenizer.json", R"({"model": {"type": "Unigram", "vocab": [["a", 0.5]]}})");
  EXPECT_THAT(complaint_about(folder), HasSubstr("0 tokens, expected CLIP's"));
  write_bytes(folder / "tokenizer.json", "7");
  EXPECT_THAT(complaint_about(folder), HasSubstr("0 tokens, expected CLIP's"));
}

}  // namespace
}  // namespace clip_lora::text
