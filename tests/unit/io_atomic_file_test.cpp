#include <gmock/gmock.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/process.hpp"
#include "clip_lora/io/atomic_file.hpp"
#include "support/files.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::ptrdiff_t entries_of(const fs::path& folder) {
  return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
}

TEST(WriteAtomically, WritesTheBytesIntoFoldersThatItMakes) {
  const TemporaryFolder folder;
  const auto path = folder / "a" / "b" / "file";
  const std::string bytes("\0one\n", 5);
  io::write_atomically(path, bytes);
  EXPECT_EQ(read_bytes(path), bytes);
  EXPECT_EQ(entries_of(path.parent_path()), 1);
}

TEST(WriteAtomically, ReplacesAnOlderFileOnlyWhenTheNewOneIsWhole) {
  const TemporaryFolder folder;
  io::write_atomically(folder / "file", "old");
  io::write_atomically(folder / "file", [&](const fs::path& temporary) {
    write_bytes(temporary, "new");
    EXPECT_EQ(temporary.parent_path(), folder.path());
    EXPECT_EQ(read_bytes(folder / "file"), "old");
  });
  EXPECT_EQ(read_bytes(folder / "file"), "new");
  EXPECT_EQ(entries_of(folder.path()), 1);
}

TEST(WriteAtomically, LeavesNothingBehindAndTheOldFileWholeWhenTheWriterThrows) {
  const TemporaryFolder folder;
  io::write_atomically(folder / "file", "old");
  const auto failing = [](const fs::path& temporary) {
    write_bytes(temporary, "half of the new");
    throw std::runtime_error("out of ideas");
  };
  EXPECT_EQ(message_of<std::runtime_error>([&] { io::write_atomically(folder / "file", failing); }),
            "out of ideas");
  EXPECT_EQ(read_bytes(folder / "file"), "old");
  EXPECT_EQ(entries_of(folder.path()), 1);
}

TEST(WriteAtomically, APathThatCannotBeIsAConfigErrorThatNamesIt) {
  const TemporaryFolder folder;
  write_bytes(folder / "file", "");
  const auto path = folder / "file" / "below";
  EXPECT_THAT(message_of<ConfigError>([&] { io::write_atomically(path, "x"); }),
              HasSubstr((folder / "file").string()));
  fs::create_directory(folder / "taken");
  EXPECT_THAT(message_of<ConfigError>([&] { io::write_atomically(folder / "taken", "x"); }),
              HasSubstr("taken"));
  EXPECT_EQ(entries_of(folder.path()), 2);
}

TEST(RemoveTemporaries, TakesThoseOfTheDeadAndNeverALiveProcesss) {
  const TemporaryFolder folder;
  const fs::path live = io::temporary_name(folder / "live");
  const std::string tag = process_tag();
  const fs::path dead = (folder / "dead").string() + ".tmp-" + tag.substr(0, tag.rfind('.')) + ".1-0";
  const fs::path far = (folder / "far").string() + ".tmp-0123456789abcdef.1.1-0";
  for (const auto& path : {live, dead, far, folder / "results.json"}) write_bytes(path, "half");

  io::remove_temporaries(folder.path(), io::Abandoned::kOfTheDead);
  EXPECT_TRUE(fs::exists(live));
  EXPECT_FALSE(fs::exists(dead));
  EXPECT_TRUE(fs::exists(far)) << "nothing is known of another machine's processes";

  io::remove_temporaries(folder.path(), io::Abandoned::kOfAllButLive);
  EXPECT_TRUE(fs::exists(live));
  EXPECT_FALSE(fs::exists(far));
  EXPECT_TRUE(fs::exists(folder / "results.json"));
}

TEST(WriteNewFile, DoesNotReplaceAFile) {
  const TemporaryFolder folder;
  io::write_new_file(folder / "file", "one");
  EXPECT_THAT(message_of<ConfigError>([&] { io::write_new_file(folder / "file", "two"); }),
              HasSubstr("file"));
  EXPECT_EQ(read_bytes(folder / "file"), "one");
}

TEST(RequireWritable, MakesTheFolderAndLeavesItEmpty) {
  const TemporaryFolder folder;
  io::require_writable(folder / "a" / "b");
  EXPECT_TRUE(fs::is_empty(folder / "a" / "b"));
}

TEST(RequireWritable, RemovesTheProbeOfOneThatWasKilledAtIt) {
  const TemporaryFolder folder;
  const fs::path live = io::temporary_name(folder / "probe");
  const std::string tag = process_tag();
  const fs::path dead = (folder / "probe").string() + ".tmp-" + tag.substr(0, tag.rfind('.')) + ".1-0";
  for (const auto& path : {live, dead}) write_bytes(path, "");
  io::require_writable(folder.path());
  EXPECT_TRUE(fs::exists(live));
  EXPECT_FALSE(fs::exists(dead));
}

TEST(RequireWritable, RefusesAFolderThatCannotBeMadeOrWritten) {
  const TemporaryFolder folder;
  write_bytes(folder / "file", "");
  EXPECT_THAT(message_of<ConfigError>([&] { io::require_writable(folder / "file" / "below"); }),
              HasSubstr("file"));
  if (::geteuid() == 0) GTEST_SKIP() << "the superuser may write anywhere";
  fs::create_directory(folder / "closed");
  fs::permissions(folder / "closed", fs::perms::owner_read | fs::perms::owner_exec);
  EXPECT_THAT(message_of<ConfigError>([&] { io::require_writable(folder / "closed"); }), HasSubstr("closed"));
}

}  // namespace
}  // namespace clip_lora::testing
