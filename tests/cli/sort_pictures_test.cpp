#include "clip_lora/cli/sort_pictures.hpp"

#include <gmock/gmock.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <iterator>

#include "clip_lora/core/errors.hpp"
#include "support/files.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using cli::class_folder_names;
using cli::place_picture;
using cli::Placement;
using cli::SortMode;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

TEST(ClassFolderNames, OrdinaryNamesStayAsTheyAre) {
  EXPECT_THAT(class_folder_names({"annual crop land", "Lied f\xC3\xBCr Elise", "a+b (c)"}),
              ElementsAre("annual crop land", "Lied f\xC3\xBCr Elise", "a+b (c)"));
}

TEST(ClassFolderNames, NoNameLeadsOutOfTheFolderOrIsHidden) {
  EXPECT_THAT(class_folder_names({"a/b", "..", ".", ".net", "", std::string("a\0b", 3), "x\ny"}),
              ElementsAre("a_b", "_.", "_", "_net", "_-2", "a_b-2", "x_y"));
}

TEST(ClassFolderNames, ClassesOfOneNameShareAFolderAndOthersDoNot) {
  EXPECT_THAT(class_folder_names({"missile", "a/b", "missile", "a_b"}),
              ElementsAre("missile", "a_b", "missile", "a_b-2"));
}

TEST(ClassFolderNames, LongNamesAreCutBetweenCharacters) {
  std::string name;
  for (int i = 0; i < 200; ++i) name += "\xC3\xA9";
  EXPECT_EQ(class_folder_names({"x" + name})[0], "x" + name.substr(0, 198));
}

/// Folders "in" and "out".
class Placing : public ::testing::Test {
 protected:
  fs::path picture(const std::string& name, const std::string& bytes) const {
    fs::path path = folder_ / "in" / name;
    fs::create_directories(path.parent_path());
    write_bytes(path, bytes);
    return path;
  }
  fs::path out() const { return folder_ / "out"; }
  std::vector<std::string> names_in_out() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(out())) names.push_back(entry.path().filename());
    return names;
  }

  TemporaryFolder folder_;
};

class PlacingByEveryMode : public Placing, public ::testing::WithParamInterface<SortMode> {};

TEST_P(PlacingByEveryMode, ThePictureIsThereWholeAndAloneUnderItsName) {
  const fs::path original = picture("a b\n\xC3\xA9.jpg", "pixels");
  EXPECT_EQ(place_picture(original, out(), GetParam()), Placement::kPlaced);
  EXPECT_THAT(names_in_out(), ElementsAre("a b\n\xC3\xA9.jpg"));
  EXPECT_EQ(read_bytes(out() / original.filename()), "pixels");
  EXPECT_EQ(fs::exists(original), GetParam() != SortMode::kMove);
  EXPECT_EQ(fs::is_symlink(out() / original.filename()), GetParam() == SortMode::kLink);
}

TEST_P(PlacingByEveryMode, AnotherPictureOfTheNameGetsANumberAndNothingIsReplaced) {
  const fs::path other = picture("y/a.tar.jpg", "two");
  const fs::path third = picture("z/a.tar.jpg", "three");
  place_picture(picture("x/a.tar.jpg", "one"), out(), GetParam());
  EXPECT_EQ(place_picture(other, out(), GetParam()), Placement::kRenamed);
  EXPECT_EQ(place_picture(third, out(), GetParam()), Placement::kRenamed);
  EXPECT_EQ(read_bytes(out() / "a.tar.jpg"), "one");
  EXPECT_EQ(read_bytes(out() / "a.tar-2.jpg"), "two");
  EXPECT_EQ(read_bytes(out() / "a.tar-3.jpg"), "three");
  EXPECT_THAT(names_in_out(), UnorderedElementsAre("a.tar.jpg", "a.tar-2.jpg", "a.tar-3.jpg"));
}

TEST_P(PlacingByEveryMode, APictureThatIsThereAlreadyIsLeftAlone) {
  place_picture(picture("x/a.jpg", "one"), out(), GetParam());
  place_picture(picture("y/a.jpg", "two"), out(), GetParam());
  const fs::path again = picture("z/a.jpg", "two");
  EXPECT_EQ(place_picture(again, out(), GetParam()), Placement::kAlreadyThere);
  EXPECT_TRUE(fs::exists(again));
  EXPECT_THAT(names_in_out(), UnorderedElementsAre("a.jpg", "a-2.jpg"));
}

TEST_P(PlacingByEveryMode, APictureInItsPlaceStaysThere) {
  const fs::path original = picture("a.jpg", "one");
  fs::create_directory_symlink(folder_ / "in", folder_ / "same");
  EXPECT_EQ(place_picture(original, folder_ / "same", GetParam()), Placement::kAlreadyThere);
  EXPECT_EQ(read_bytes(original), "one");
}

TEST_P(PlacingByEveryMode, APictureThatIsGoneIsADataError) {
  const fs::path gone = folder_ / "gone.jpg";
  EXPECT_THAT(message_of<DataError>([&] { place_picture(gone, out(), GetParam()); }),
              HasSubstr(gone.string()));
  EXPECT_TRUE(names_in_out().empty());
}

TEST_P(PlacingByEveryMode, TheLongestNameHasRoomForANumber) {
  const std::string name = std::string(251, 'n') + ".jpg";
  place_picture(picture("x/" + name, "one"), out(), GetParam());
  place_picture(picture("y/" + name, "two"), out(), GetParam());
  EXPECT_EQ(read_bytes(out() / (std::string(249, 'n') + "-2.jpg")), "two");
}

TEST_P(PlacingByEveryMode, AFolderThatIsAFileIsAConfigError) {
  write_bytes(out(), "");
  EXPECT_THAT(message_of<ConfigError>([&] { place_picture(picture("a.jpg", "one"), out(), GetParam()); }),
              HasSubstr(out().string()));
}

std::string mode_name(const ::testing::TestParamInfo<SortMode>& test) {
  const std::vector<std::string> names = {"Copy", "Link", "Move"};
  return names[static_cast<std::size_t>(test.param)];
}
INSTANTIATE_TEST_SUITE_P(Modes, PlacingByEveryMode,
                         ::testing::Values(SortMode::kCopy, SortMode::kLink, SortMode::kMove), mode_name);

TEST_F(Placing, LinksLeadToThePictureFromAnywhere) {
  const fs::path original = picture("a.jpg", "one");
  const fs::path relative = fs::relative(original);
  place_picture(relative, out(), SortMode::kLink);
  EXPECT_TRUE(fs::read_symlink(out() / "a.jpg").is_absolute());
  EXPECT_TRUE(fs::equivalent(out() / "a.jpg", original));
}

TEST_F(Placing, AMovedLinkStillLeadsToItsFile) {
  const fs::path original = picture("deep/a.jpg", "one");
  fs::create_symlink("deep/a.jpg", folder_ / "in" / "link.jpg");
  EXPECT_EQ(place_picture(folder_ / "in" / "link.jpg", out(), SortMode::kMove), Placement::kPlaced);
  EXPECT_EQ(read_bytes(out() / "link.jpg"), "one");
  EXPECT_FALSE(fs::is_symlink(folder_ / "in" / "link.jpg"));
  EXPECT_TRUE(fs::exists(original));
}

TEST_F(Placing, AMoveToAnotherFileSystemIsACopyAndARemoval) {
  struct stat here {
  }, there{};
  const fs::path memory = "/dev/shm";  // in memory, where there is one
  if (::stat(folder_.path().c_str(), &here) != 0 || ::stat(memory.c_str(), &there) != 0 ||
      here.st_dev == there.st_dev) {
    GTEST_SKIP() << "there is no second file system at " << memory;
  }
  std::string pattern = (memory / "clip_lora_test_XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) GTEST_SKIP() << memory << " cannot be written";
  const fs::path original = picture("a.jpg", "pixels");
  EXPECT_EQ(place_picture(original, pattern, SortMode::kMove), Placement::kPlaced);
  EXPECT_EQ(read_bytes(fs::path(pattern) / "a.jpg"), "pixels");
  EXPECT_FALSE(fs::exists(original));
  EXPECT_EQ(std::distance(fs::directory_iterator(pattern), fs::directory_iterator()), 1);
  fs::remove_all(pattern);
}

/// Without root's rights, which no permission stops.
struct AsNobody {
  AsNobody() {
    if (::geteuid() == 0) {
      EXPECT_EQ(::seteuid(65534), 0);
    }
  }
  ~AsNobody() { EXPECT_EQ(::seteuid(::getuid()), 0); }
};

TEST_F(Placing, WhatCannotBeMovedIsADataErrorAndAFolderThatCannotBeWrittenAConfigError) {
  const fs::path original = picture("a.jpg", "one");
  fs::create_directories(out());
  fs::permissions(folder_.path(), fs::perms::all);
  fs::permissions(out(), fs::perms::all);
  const auto readable =
      fs::perms::owner_read | fs::perms::owner_exec | fs::perms::others_read | fs::perms::others_exec;
  fs::permissions(folder_ / "in", readable);
  {
    const AsNobody nobody;
    EXPECT_THAT(message_of<DataError>([&] { place_picture(original, out(), SortMode::kMove); }),
                HasSubstr("Permission denied"));
  }
  fs::permissions(original, fs::perms::none);
  {
    const AsNobody nobody;
    EXPECT_THAT(message_of<DataError>([&] { place_picture(original, out(), SortMode::kCopy); }),
                HasSubstr("Permission denied"));
  }
  EXPECT_TRUE(names_in_out().empty());
  fs::permissions(original, fs::perms::all);
  fs::permissions(folder_ / "in", fs::perms::all);
  fs::permissions(out(), readable);
  {
    const AsNobody nobody;
    for (const SortMode mode : {SortMode::kCopy, SortMode::kLink, SortMode::kMove}) {
      EXPECT_THAT(message_of<ConfigError>([&] { place_picture(original, out(), mode); }),
                  HasSubstr("Permission denied"));
    }
  }
  fs::permissions(out(), fs::perms::all);
}

TEST_F(Placing, DoubtfulPicturesGoToAFolderOfTheirOwn) {
  cli::PictureSorter sorter(out(), {"cat", "dog"}, SortMode::kCopy, 0.5);
  sorter.sort(picture("a.jpg", "one"), 0, 0.5);
  sorter.sort(picture("b.jpg", "two"), 1, 0.49);
  EXPECT_TRUE(fs::exists(out() / "cat/a.jpg"));
  EXPECT_TRUE(fs::exists(out() / "unsure/b.jpg"));
  EXPECT_EQ(sorter.placed(), 2);
  EXPECT_EQ(sorter.unsure(), 1);
}

TEST_F(Placing, AClassCalledAsTheDoubtfulOnesIsRefusedWhereThereAreAny) {
  const std::vector<std::string> names = {"sure", "unsure"};
  EXPECT_THAT(message_of<ConfigError>([&] { cli::PictureSorter(out(), names, SortMode::kCopy, 0.5); }),
              HasSubstr("unsure"));
  EXPECT_NO_THROW(cli::PictureSorter(out(), names, SortMode::kCopy, 0.0));
}

}  // namespace
}  // namespace clip_lora::testing
