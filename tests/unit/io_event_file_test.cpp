#include <gmock/gmock.h>

#include <algorithm>
#include <vector>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/event_file.hpp"
#include "support/files.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

/// The files of a folder in the order of their names, in which readers take them.
std::vector<std::string> files_of(const fs::path& folder) {
  std::vector<std::string> contents;
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(folder)) paths.push_back(entry.path());
  std::ranges::sort(paths);
  for (const auto& path : paths) contents.push_back(read_bytes(path));
  return contents;
}

TEST(EventFile, BeginsWithTheRecordThatEveryReaderLooksFor) {
  const TemporaryFolder folder;
  { const io::EventFile file(folder / "logs", 1); }
  const auto files = files_of(folder / "logs");
  ASSERT_EQ(files.size(), 1U);
  // 26 bytes of event, and the masked CRC-32C of that number, computed with another implementation.
  EXPECT_EQ(files[0].substr(0, 12), from_hex("1a00000000000000129bd82d"));
  EXPECT_EQ(files[0].substr(12 + 11, 15), "\x1a\x0d" + std::string("brain.Event:2"));
}

TEST(EventFile, ComesBehindTheFilesThatAreThere) {
  const TemporaryFolder folder;
  for (std::int64_t first_step = 1; first_step <= 3; ++first_step) {
    io::EventFile file(folder.path(), first_step);
    file.add(first_step, {{"file/" + std::to_string(first_step), 0.5}});
  }
  const auto files = files_of(folder.path());
  ASSERT_EQ(files.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_THAT(files[i], HasSubstr("file/" + std::to_string(i + 1)));
}

TEST(EventFile, NamesAFolderThatCannotBe) {
  const TemporaryFolder folder;
  write_bytes(folder / "file", "");
  EXPECT_THAT(message_of<ConfigError>([&] { io::EventFile(folder / "file" / "below", 1); }),
              HasSubstr((folder / "file").string()));
}

}  // namespace
}  // namespace clip_lora::testing
