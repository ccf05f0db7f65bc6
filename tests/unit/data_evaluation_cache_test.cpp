#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstddef>
#include <exception>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/process.hpp"
#include "clip_lora/data/loader.hpp"
#include "clip_lora/io/lease.hpp"
#include "support/files.hpp"
#include "support/numbered_pictures.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;
using clip_lora::testing::read_bytes;
using clip_lora::testing::write_bytes;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

/// The tag of a process of this machine that is no more: this one's number, but another start.
std::string dead_process() {
  const std::string tag = process_tag();
  return tag.substr(0, tag.rfind('.')) + ".1";
}

class EvaluationCache : public clip_lora::testing::NumberedPictures {
 protected:
  EvaluationCache() : cache_(folder_ / "made" / "cache"), expected_(pass_without_cache()) {}

  EvaluationLoader loader(const fs::path& cache_folder) const {
    return EvaluationLoader(items_, preprocessing_,
                            {.batch_size = 3, .workers = 2, .cache_folder = cache_folder});
  }

  /// Seventy entries, the last one of a picture that no other names.
  void make_list_long() {
    for (int i = 0; i < 63; ++i) items_.push_back(items_[static_cast<std::size_t>(i % (kItems - 1))]);
    std::swap(items_[6], items_.back());
  }

  /// The pixels of a whole pass, [N, R, R, 3].
  at::Tensor pass() const { return rest_of(loader(cache_)); }
  at::Tensor pass_without_cache() const { return rest_of(loader({})); }

  static at::Tensor rest_of(EvaluationLoader&& loader) {
    std::vector<at::Tensor> pixels;
    while (const auto batch = loader.next()) pixels.push_back(batch->pixels);
    return at::cat(pixels);
  }

  std::vector<fs::path> files() const {
    if (!fs::exists(cache_)) return {};
    return {fs::directory_iterator(cache_), {}};
  }

  fs::path only_file() const {
    const auto found = files();
    EXPECT_EQ(found.size(), 1U);
    return found.empty() ? fs::path() : found.front();
  }

  /// Replaces a picture by bytes of the same number and time of change, which cannot be decoded: a pass that
  /// goes well has not looked at it.
  void spoil(int i) const {
    const fs::path path = items_[static_cast<std::size_t>(i)].image;
    const auto time = fs::last_write_time(path);
    write_bytes(path, std::string(fs::file_size(path), 'x'));
    fs::last_write_time(path, time);
  }

  /// Changes the file of a first pass by `change`, and expects a second one to decode again and to mend the
  /// file.
  template <typename Change>
  void expect_made_anew_after(const Change& change) {
    pass();
    const fs::path file = only_file();
    const std::string whole = read_bytes(file);
    std::string changed = whole;
    change(changed);
    write_bytes(file, changed);
    EXPECT_TRUE(at::equal(pass(), expected_));
    EXPECT_EQ(only_file(), file);
    EXPECT_EQ(read_bytes(file), whole);
  }

  fs::path cache_;
  at::Tensor expected_;
};

TEST_F(EvaluationCache, GivesTheSamePixelsWithoutLookingAtThePictures) {
  EXPECT_TRUE(at::equal(pass(), expected_));
  EXPECT_EQ(only_file().extension(), ".pixels");
  for (int i = 0; i < kItems; ++i) spoil(i);
  EXPECT_TRUE(at::equal(pass(), expected_));
  EXPECT_TRUE(at::equal(pass(), expected_));
}

TEST_F(EvaluationCache, IsLaidOutAsItsHeaderSays) {
  pass();
  const std::string bytes = read_bytes(only_file());
  const std::size_t views = static_cast<std::size_t>(expected_.numel());
  ASSERT_EQ(bytes.size(), 40 + kItems * 8 + views);
  EXPECT_EQ(bytes.substr(0, 8), "CLIPVIEW");
  const auto pixels = expected_.contiguous();
  EXPECT_EQ(bytes.substr(40 + kItems * 8),
            std::string(reinterpret_cast<const char*>(pixels.const_data_ptr<std::uint8_t>()), views));
}

TEST_F(EvaluationCache, DoesNotKeepLabels) {
  pass();
  for (Item& item : items_) item.label += 10;
  EXPECT_EQ(loader(cache_).next()->labels[0].item<int>(), 10);
  EXPECT_EQ(files().size(), 1U);
}

TEST_F(EvaluationCache, IsMadeAnewIfAPictureHasChanged) {
  pass();
  const fs::path path = items_[2].image;
  image::write_png(path, picture(6));
  fs::last_write_time(path, fs::last_write_time(path) + std::chrono::nanoseconds(1));
  const auto expected = pass_without_cache();
  EXPECT_FALSE(at::equal(expected, expected_));
  EXPECT_TRUE(at::equal(pass(), expected));
  EXPECT_EQ(files().size(), 1U);
}

TEST_F(EvaluationCache, KnowsListsAndPreprocessingsApart) {
  pass();
  preprocessing_.interpolation = image::Interpolation::kNearest;
  EXPECT_TRUE(at::equal(pass(), pass_without_cache()));
  EXPECT_EQ(files().size(), 2U);
  std::swap(items_[0], items_[1]);
  EXPECT_TRUE(at::equal(pass(), pass_without_cache()));
  EXPECT_EQ(files().size(), 3U);
  items_.pop_back();
  EXPECT_TRUE(at::equal(pass(), pass_without_cache()));
  EXPECT_EQ(files().size(), 4U);
  preprocessing_.border_px = 2;
  EXPECT_TRUE(at::equal(pass(), pass_without_cache()));
  EXPECT_EQ(files().size(), 5U);
}

TEST_F(EvaluationCache, IsMadeAnewIfAViewOrAChecksumIsDamaged) {
  for (const std::size_t from_the_end :
       {1U, 3U * 8 * 8 * 3, 7U * 8 * 8 * 3 + 20}) {  // two pixels and a checksum
    expect_made_anew_after([=](std::string& bytes) { bytes[bytes.size() - from_the_end] ^= 1; });
  }
}

// Of a short list every view is looked at before the file is used, of a long one only some.
TEST_F(EvaluationCache, OfALongListIsMendedWhereAViewIsDamaged) {
  make_list_long();
  expected_ = pass_without_cache();
  for (const std::size_t from_the_end : {1U, 50U * 8 * 8 * 3, 70U * 8 * 8 * 3 + 20}) {
    expect_made_anew_after([=](std::string& bytes) { bytes[bytes.size() - from_the_end] ^= 1; });
  }
}

TEST_F(EvaluationCache, OfALongListIsMendedWhereAPictureHasChanged) {
  make_list_long();
  pass();
  const std::string before = read_bytes(only_file());
  image::write_png(items_[69].image, picture(1));
  const auto expected = pass_without_cache();
  EXPECT_TRUE(at::equal(pass(), expected));
  EXPECT_NE(read_bytes(only_file()), before);
  for (std::size_t i = 0; i < kItems; ++i) spoil(static_cast<int>(i));
  EXPECT_TRUE(at::equal(pass(), expected));
}

TEST_F(EvaluationCache, DoesNotPassOnWhatACallerWritesToItsPixels) {
  pass();
  loader(cache_).next()->pixels.zero_();
  EXPECT_TRUE(at::equal(pass(), expected_));
}

TEST_F(EvaluationCache, PixelsOutliveTheLoader) {
  pass();
  const auto first = loader(cache_).next()->pixels;
  EXPECT_TRUE(at::equal(first, expected_.slice(0, 0, 3)));
}

TEST_F(EvaluationCache, IsMadeAnewIfItIsTruncated) {
  expect_made_anew_after([](std::string& bytes) { bytes.pop_back(); });
  expect_made_anew_after([](std::string& bytes) { bytes.resize(10); });
  expect_made_anew_after([](std::string& bytes) { bytes.clear(); });
}

TEST_F(EvaluationCache, IsMadeAnewIfItIsTooLong) {
  expect_made_anew_after([](std::string& bytes) { bytes += '\0'; });
}

TEST_F(EvaluationCache, IsMadeAnewIfItsHeaderIsAnothers) {
  // Magic, version, size, number of views, key.
  for (const std::size_t offset : {0U, 8U, 12U, 16U, 24U, 39U}) {
    expect_made_anew_after([offset](std::string& bytes) { bytes[offset] ^= 1; });
  }
}

TEST_F(EvaluationCache, LeavesNothingBehindAfterAnInterruptedPass) {
  {
    auto interrupted = loader(cache_);
    interrupted.next();
  }
  EXPECT_TRUE(files().empty());
  EXPECT_TRUE(at::equal(pass(), expected_));
}

TEST_F(EvaluationCache, LeavesNothingBehindIfAPictureCannotBeRead) {
  spoil(4);
  {
    auto failing = loader(cache_);
    failing.next();
    EXPECT_THROW(failing.next(), DataError);
    failing.next();  // the last batch: whoever goes on has not seen all views all the same
  }
  EXPECT_TRUE(files().empty());
}

TEST_F(EvaluationCache, MayBeMadeByTwoAtOnce) {
  auto one = loader(cache_);
  auto other = loader(cache_);
  const auto first = one.next()->pixels;
  EXPECT_TRUE(at::equal(rest_of(std::move(other)), expected_));
  EXPECT_TRUE(at::equal(pass(), expected_));  // a third reads what the second has made
  EXPECT_TRUE(at::equal(at::cat({first, rest_of(std::move(one))}), expected_));
  for (int i = 0; i < kItems; ++i) spoil(i);
  EXPECT_TRUE(at::equal(pass(), expected_));
  EXPECT_EQ(files().size(), 1U);
}

TEST_F(EvaluationCache, MayBeMadeByTwoProcessesAtOnce) {
  int begun[2];
  ASSERT_EQ(::pipe(begun), 0);
  const pid_t other = ::fork();
  ASSERT_GE(other, 0);
  if (other == 0) {
    try {
      ::close(begun[1]);
      char ignored = 0;
      const bool is_end = ::read(begun[0], &ignored, 1) == 0;
      ::_exit(is_end && at::equal(pass(), expected_) ? 0 : 1);
    } catch (const std::exception&) {
      ::_exit(2);
    }
  }
  auto one = loader(cache_);
  const auto first = one.next()->pixels;
  EXPECT_EQ(files().size(), 1U);  // begun
  ::close(begun[0]);
  ::close(begun[1]);
  int status = -1;
  EXPECT_EQ(::waitpid(other, &status, 0), other);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(at::equal(at::cat({first, rest_of(std::move(one))}), expected_));
  for (int i = 0; i < kItems; ++i) spoil(i);
  EXPECT_TRUE(at::equal(pass(), expected_));
  EXPECT_EQ(files().size(), 1U);
}

TEST_F(EvaluationCache, RemovesWhatAKilledProcessLeftBehind) {
  pass();
  const fs::path file = only_file();
  fs::remove(file);
  const auto write_of_age = [](const std::string& path, std::chrono::minutes age) {
    write_bytes(path, "views");
    fs::last_write_time(path, fs::file_time_type::clock::now() - age);
  };
  const std::string of_another = (cache_ / "0123.pixels.tmp-1-0").string();
  write_of_age(file.string() + ".tmp-1-0", std::chrono::minutes(61));
  write_of_age(file.string() + ".tmp-1-1", std::chrono::minutes(59));
  write_of_age(of_another, std::chrono::minutes(61));
  EXPECT_TRUE(at::equal(pass(), expected_));
  EXPECT_THAT(files(), UnorderedElementsAre(file, file.string() + ".tmp-1-1", of_another));
}

TEST_F(EvaluationCache, RemovesTheLeaseOfAMakerThatWasKilledWhenItWasDone) {
  pass();
  const fs::path file = only_file();
  write_bytes(file.string() + ".1.json", R"({"process": ")" + dead_process() + R"("})");
  write_bytes(file.string() + ".tmp-" + dead_process() + "-0", "views that were being mended");
  EXPECT_TRUE(at::equal(pass(), expected_));
  EXPECT_THAT(files(), UnorderedElementsAre(file));
}

TEST_F(EvaluationCache, LeavesTheLeaseOfAProcessThatLives) {
  pass();
  const fs::path file = only_file();
  const auto lease = io::LeaseSeeker(file, {}).try_acquire();
  EXPECT_TRUE(at::equal(pass(), expected_));
  EXPECT_TRUE(lease->is_held());
}

TEST_F(EvaluationCache, RemovesWhatAKilledProcessOfAnotherMachineLeftOnceItIsAlone) {
  pass();
  const fs::path file = only_file();
  fs::remove(file);
  write_bytes(file.string() + ".tmp-0123456789abcdef.17.1-0", "views");  // written just now
  const std::string of_another = (cache_ / "0123.pixels.tmp-0123456789abcdef.17.1-1").string();
  write_bytes(of_another, "views");
  rest_of(EvaluationLoader(items_, preprocessing_,
                           {.batch_size = 3, .workers = 2, .cache_folder = cache_, .wait_for_cache = true}));
  EXPECT_THAT(files(), UnorderedElementsAre(file, of_another));
}

TEST_F(EvaluationCache, WarnsOfAFileThatCannotBeMapped) {
  pass();
  const fs::path file = only_file();
  fs::remove(file);
  fs::create_directory(file);
  ::testing::internal::CaptureStderr();
  EXPECT_TRUE(at::equal(pass(), expected_));
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              AllOf(HasSubstr(file.string()), HasSubstr("not a regular file")));
}

TEST_F(EvaluationCache, MayBeMadeByManyThreads) {
  std::vector<at::Tensor> pixels(4);
  {
    std::vector<std::jthread> threads;
    for (auto& result : pixels) threads.emplace_back([&] { result = pass(); });
  }
  for (const auto& result : pixels) EXPECT_TRUE(at::equal(result, expected_));
  EXPECT_EQ(files().size(), 1U);
}

TEST_F(EvaluationCache, WarnsOnceOfAFolderThatCannotBeMade) {
  cache_ = folder_ / "0.png" / "cache";
  ::testing::internal::CaptureStderr();
  EXPECT_TRUE(at::equal(pass(), expected_));
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr(cache_.string()));
  ::testing::internal::CaptureStderr();
  EXPECT_TRUE(at::equal(pass(), expected_));
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

TEST_F(EvaluationCache, IsReadFromAFolderThatCannotBeWrittenButNotMadeThere) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write everywhere";
  pass();
  fs::permissions(cache_, fs::perms::owner_read | fs::perms::owner_exec);
  EXPECT_TRUE(at::equal(pass(), expected_));
  items_.pop_back();
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(pass().size(0), kItems - 1);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr(cache_.string()));
  fs::permissions(cache_, fs::perms::owner_all);
  EXPECT_EQ(files().size(), 1U);
}

TEST_F(EvaluationCache, GoesOnWithoutItWhenTheDiskIsFull) {
  // A limit on the size of files fails as a full disk does, in the middle of the views.
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit = before;
  limit.rlim_cur = 1000;
  ::testing::internal::CaptureStderr();
  ::setrlimit(RLIMIT_FSIZE, &limit);
  const auto pixels = pass();
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr(cache_.string()));
  EXPECT_TRUE(at::equal(pixels, expected_));
  EXPECT_TRUE(files().empty());
  EXPECT_TRUE(at::equal(pass(), expected_));
  EXPECT_EQ(files().size(), 1U);
}

}  // namespace
}  // namespace clip_lora::data
