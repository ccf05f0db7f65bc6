#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/image_folder.hpp"
#include "support/environment.hpp"
#include "support/files.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"

namespace clip_lora::data {
namespace {

using clip_lora::testing::EnvironmentVariable;
using clip_lora::testing::message_of;
using clip_lora::testing::write_bytes;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

namespace fs = std::filesystem;

class ImageFolder : public ::testing::Test {
 protected:
  /// An empty file, with the folders it lies in.
  void add(const std::string& path) const {
    fs::create_directories((folder_ / path).parent_path());
    write_bytes(folder_ / path, "");
  }

  std::vector<std::string> relative(const std::vector<std::string>& images) const {
    std::vector<std::string> result;
    for (const auto& image : images) result.push_back(image.substr(folder_.path().string().size() + 1));
    return result;
  }

  std::vector<std::string> listed(HiddenFiles hidden) const {
    std::vector<std::string> images;
    for (const auto& one_class : list_class_folders(folder_.path(), hidden)) {
      images.insert(images.end(), one_class.images.begin(), one_class.images.end());
    }
    return relative(images);
  }

  std::vector<std::string> class_names(HiddenFiles hidden = HiddenFiles::kKeep) const {
    std::vector<std::string> names;
    for (const auto& one_class : list_class_folders(folder_.path(), hidden)) names.push_back(one_class.name);
    return names;
  }

  clip_lora::testing::TemporaryFolder folder_;
};

TEST_F(ImageFolder, SortsClassesAndPicturesByTheirBytes) {
  for (const std::string path : {"b/2.jpg", "b/10.jpg", "a/x.png", "B/x.png", "é/x.png", "a b/x.png"})
    add(path);
  EXPECT_THAT(class_names(), ElementsAre("B", "a", "a b", "b", "é"));
  EXPECT_THAT(listed(HiddenFiles::kKeep),
              ElementsAre("B/x.png", "a/x.png", "a b/x.png", "b/10.jpg", "b/2.jpg", "é/x.png"));
}

TEST_F(ImageFolder, TakesThePicturesOfFoldersInAClassFolderByFolder) {
  // "a/b c" sorts before "a/b/d": a space comes before a slash.
  for (const std::string path : {"a/b/d/1.jpg", "a/b c/1.jpg", "a/z.jpg", "a/b/1.jpg"}) add(path);
  EXPECT_THAT(listed(HiddenFiles::kKeep), ElementsAre("a/z.jpg", "a/b/1.jpg", "a/b c/1.jpg", "a/b/d/1.jpg"));
}

TEST_F(ImageFolder, TellsPicturesByTheirExtensionInAnyCase) {
  for (const std::string path : {"a/1.JPEG", "a/2.Jpg", "a/3.tiff", "a/4.webp", "a/5.gif", "a/6.txt",
                                 "a/7.jpg.txt", "a/jpg", "a/Thumbs.db", "devkit.tar", "note.jpg"}) {
    add(path);
  }
  EXPECT_THAT(listed(HiddenFiles::kKeep), ElementsAre("a/1.JPEG", "a/2.Jpg", "a/3.tiff", "a/4.webp"));
  EXPECT_THAT(listed(HiddenFiles::kSkip),
              ElementsAre("a/1.JPEG", "a/2.Jpg", "a/3.tiff", "a/4.webp", "a/5.gif"));
}

TEST_F(ImageFolder, KeepsOrSkipsHiddenFilesAndFolders) {
  for (const std::string path : {"a/1.jpg", "a/._1.jpg", "a/.thumbnails/1.jpg", ".cache/1.jpg"}) add(path);
  EXPECT_THAT(listed(HiddenFiles::kKeep),
              ElementsAre(".cache/1.jpg", "a/._1.jpg", "a/1.jpg", "a/.thumbnails/1.jpg"));
  EXPECT_THAT(listed(HiddenFiles::kSkip), ElementsAre("a/1.jpg"));
  EXPECT_THAT(class_names(HiddenFiles::kSkip), ElementsAre("a"));
}

TEST_F(ImageFolder, TakesNamesWithSpacesQuotesNewlinesAndNoUtf8) {
  for (const std::string path : {"a class/my \"photo\" 1.jpg", "new\nline/a\nb.jpg", "猫/\xff.png"})
    add(path);
  EXPECT_THAT(listed(HiddenFiles::kKeep),
              ElementsAre("a class/my \"photo\" 1.jpg", "new\nline/a\nb.jpg", "猫/\xff.png"));
}

TEST_F(ImageFolder, ReturnsAClassWithoutPictures) {
  add("a/1.jpg");
  fs::create_directories(folder_ / "b/inner");
  const auto classes = list_class_folders(folder_.path(), HiddenFiles::kKeep);
  ASSERT_EQ(classes.size(), 2U);
  EXPECT_THAT(classes[1].images, IsEmpty());
}

TEST_F(ImageFolder, FollowsLinksToFoldersAndToFiles) {
  add("elsewhere/1.jpg");
  fs::create_directories(folder_ / "set/b");
  fs::create_directory_symlink(folder_ / "elsewhere", folder_ / "set/a");
  fs::create_symlink(folder_ / "elsewhere/1.jpg", folder_ / "set/b/linked.jpg");
  fs::create_symlink(folder_ / "nowhere", folder_ / "set/b/broken.jpg");  // Python lists it, too
  const auto classes = list_class_folders(folder_ / "set", HiddenFiles::kKeep);
  ASSERT_EQ(classes.size(), 2U);
  EXPECT_THAT(relative(classes[0].images), ElementsAre("set/a/1.jpg"));
  EXPECT_THAT(relative(classes[1].images), ElementsAre("set/b/broken.jpg", "set/b/linked.jpg"));
}

TEST_F(ImageFolder, ListsAFolderThatTwoLinksReachTwice) {
  add("elsewhere/1.jpg");
  fs::create_directories(folder_ / "set/a");
  fs::create_directory_symlink(folder_ / "elsewhere", folder_ / "set/a/x");
  fs::create_directory_symlink(folder_ / "elsewhere", folder_ / "set/a/y");
  EXPECT_THAT(relative(list_images(folder_ / "set", HiddenFiles::kKeep)),
              ElementsAre("set/a/x/1.jpg", "set/a/y/1.jpg"));
}

TEST_F(ImageFolder, RefusesALinkThatLeadsBack) {
  add("a/b/1.jpg");
  fs::create_directory_symlink(folder_ / "a", folder_ / "a/b/back");
  const auto list = [&] { list_class_folders(folder_.path(), HiddenFiles::kKeep); };
  EXPECT_THAT(message_of<DataError>(list), AllOf(HasSubstr((folder_ / "a/b/back").string()),
                                                 HasSubstr("is a link to a folder that it lies in")));
}

TEST_F(ImageFolder, RefusesAClassThatIsALinkToTheFolderOfTheClasses) {
  fs::create_directory_symlink(".", folder_ / "a");
  EXPECT_THROW(list_class_folders(folder_.path(), HiddenFiles::kKeep), DataError);
}

TEST_F(ImageFolder, NamesAFolderThatCannotBeRead) {
  const auto list = [&] { list_images(folder_ / "none", HiddenFiles::kSkip); };
  EXPECT_THAT(message_of<DataError>(list),
              AllOf(HasSubstr((folder_ / "none").string()), HasSubstr("No such file or directory")));
}

TEST(LargeFolder, OfAHundredThousandFilesIsListedInAFewSeconds) {
  // In memory where that can be had: on a disk, making the files takes many times as long as listing them.
  std::optional<EnvironmentVariable> memory;
  if (fs::is_directory("/dev/shm")) memory.emplace("TMPDIR", "/dev/shm");
  const clip_lora::testing::TemporaryFolder folder;
  constexpr int kFiles = 100000;
  for (int i = 0; i < kFiles; ++i) {
    ::close(::open((folder / (std::to_string(i) + ".jpg")).c_str(), O_CREAT | O_WRONLY, 0600));
  }
  const auto start = std::chrono::steady_clock::now();
  const auto images = list_images(folder.path(), HiddenFiles::kKeep);
  const auto elapsed = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(images.size(), static_cast<std::size_t>(kFiles));
  EXPECT_TRUE(std::is_sorted(images.begin(), images.end()));
  // A tenth of a second on an idle machine; what grows with the square of the files would take minutes.
  EXPECT_LT(elapsed, std::chrono::seconds(10));
}

TEST(HasImageExtension, KnowsTorchvisionsAndGif) {
  for (const std::string name : {"a.jpg", "b/a.JPEG", "a.b.png", "a.gif", ".webp"}) {
    EXPECT_TRUE(has_image_extension(name)) << name;
  }
  for (const std::string name : {"a.txt", "a", "jpg", "a.jpg/readme", "a.jpgx"}) {
    EXPECT_FALSE(has_image_extension(name)) << name;
  }
}

}  // namespace
}  // namespace clip_lora::data
