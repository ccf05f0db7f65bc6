#include <gmock/gmock.h>

#include "cli/program.hpp"
#include "support/files.hpp"
#include "support/temporary_folder.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// "abc" repeated 1,000 times, and what coreutils' sha256sum says of it.
std::string content() {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "abc";
  return text;
}
constexpr const char* kSum = "328de8f1895f8bb09f6e6b4c2012ef2b2a6f067cd002794b750aa040a6f6d8bd";

/// scripts/get_checkpoint.sh, with a local file in the place of OpenAI's.
class GetCheckpoint : public ::testing::Test {
 protected:
  GetCheckpoint() { write_bytes(folder_ / "source", content()); }

  void SetUp() override {  // a user without root may have none
    if (run_program({"-c", "command -v curl"}, "/bin/sh").exit_code != 0)
      GTEST_SKIP() << "curl is not installed";
  }

  Outcome fetch(std::vector<std::string> more = {}, const std::string& name = "ViT-B/16") const {
    std::vector<std::string> arguments = {name, "--out", out().string(), "--url",
                                          "file://" + (folder_ / "source").string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_program(arguments, CLIP_LORA_SOURCE_DIR "/scripts/get_checkpoint.sh");
  }

  fs::path out() const { return folder_ / "out"; }

  TemporaryFolder folder_;
};

TEST_F(GetCheckpoint, FetchesAFileOfTheRightSumUnderOpenAisName) {
  const Outcome outcome = fetch({"--sha256", kSum}, "ViT-L/14@336px");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_EQ(read_bytes(out() / "ViT-L-14-336px.pt"), content());
  EXPECT_FALSE(fs::exists(out() / "ViT-L-14-336px.pt.part"));
}

TEST_F(GetCheckpoint, AWrongSumLeavesNothingBehind) {
  const Outcome outcome = fetch();  // the published sum, which this file cannot have
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.errors, HasSubstr(std::string("has SHA-256 ") + kSum));
  EXPECT_THAT(outcome.errors, HasSubstr("expected 5806e77cd80f8b59"));
  EXPECT_TRUE(fs::is_empty(out()));
}

TEST_F(GetCheckpoint, ADownloadGoesOnWhereItStopped) {
  fs::create_directories(out());
  write_bytes(out() / "ViT-B-16.pt.part", content().substr(0, 1234));
  // What comes before is kept as it is: with other bytes there, the sum would be wrong.
  write_bytes(folder_ / "source", std::string(1234, 'x') + content().substr(1234));
  const Outcome outcome = fetch({"--sha256", kSum});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_EQ(read_bytes(out() / "ViT-B-16.pt"), content());
}

TEST_F(GetCheckpoint, AFileThatIsThereIsNotFetchedAgain) {
  ASSERT_EQ(fetch({"--sha256", kSum}).exit_code, 0);
  fs::remove(folder_ / "source");
  EXPECT_EQ(fetch({"--sha256", kSum}).exit_code, 0);
}

TEST_F(GetCheckpoint, AFileOfAnotherSumIsNotTouched) {
  fs::create_directories(out());
  write_bytes(out() / "ViT-B-16.pt", "mine");
  const Outcome outcome = fetch({"--sha256", kSum});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.errors, HasSubstr("remove it to fetch it again"));
  EXPECT_EQ(read_bytes(out() / "ViT-B-16.pt"), "mine");
}

TEST_F(GetCheckpoint, AMissingSourceIsNamed) {
  fs::remove(folder_ / "source");
  const Outcome outcome = fetch();
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.errors, HasSubstr((folder_ / "source").string()));
}

TEST_F(GetCheckpoint, UsageErrorsAreToldAndFetchNothing) {
  for (const auto& [arguments, complaint] : std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{}, "name is missing"},
           {{"RN50"}, "unknown checkpoint 'RN50'"},
           {{"--outt", "x"}, "unknown flag '--outt'"}}) {
    const Outcome outcome = run_program(arguments, CLIP_LORA_SOURCE_DIR "/scripts/get_checkpoint.sh");
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_THAT(outcome.errors, HasSubstr(complaint));
  }
}

}  // namespace
}  // namespace clip_lora::testing
