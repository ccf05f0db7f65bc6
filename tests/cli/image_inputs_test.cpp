#include "clip_lora/cli/image_inputs.hpp"

#include <gmock/gmock.h>
#include <unistd.h>

#include <array>
#include <cstdio>

#include "clip_lora/core/errors.hpp"
#include "support/files.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using cli::ImageInputs;
using cli::NameList;
using cli::NextName;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

/// A pipe whose writing end can be closed.
class Pipe {
 public:
  Pipe() { EXPECT_EQ(::pipe(ends_.data()), 0); }
  ~Pipe() {
    close();
    ::close(ends_[0]);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;

  int reading_end() const { return ends_[0]; }
  void write(const std::string& bytes) const {
    EXPECT_EQ(::write(ends_[1], bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  void close() {
    if (ends_[1] >= 0) ::close(ends_[1]);
    ends_[1] = -1;
  }

 private:
  std::array<int, 2> ends_{-1, -1};
};

std::vector<std::string> all_names(NameList& list) {
  std::vector<std::string> names;
  for (std::string name; list.next(name, 1s) == NextName::kThere;) names.push_back(name);
  return names;
}

std::vector<std::string> names_of(const std::vector<std::string>& words,
                                  const std::vector<fs::path>& excluded = {}) {
  ImageInputs inputs(words, /*null_separated=*/false, excluded);
  std::vector<std::string> names;
  for (std::string name; inputs.next(name, 0ms) == NextName::kThere;) names.push_back(name);
  EXPECT_EQ(inputs.count(), static_cast<std::int64_t>(names.size()));
  return names;
}

TEST(NameList, LinesAreNamesWhateverTheyHold) {
  Pipe pipe;
  pipe.write("a b.jpg\n\n  c\xC3\xA9.png\r\nlast.gif");
  pipe.close();
  NameList list(pipe.reading_end(), '\n');
  EXPECT_THAT(all_names(list), ElementsAre("a b.jpg", "  c\xC3\xA9.png", "last.gif"));
}

TEST(NameList, NullSeparatedNamesMayHoldLineBreaks) {
  Pipe pipe;
  pipe.write(std::string("a\nb.jpg\0c\r\0", 11));
  pipe.close();
  NameList list(pipe.reading_end(), '\0');
  EXPECT_THAT(all_names(list), ElementsAre("a\nb.jpg", "c\r"));
}

TEST(NameList, HalfANameIsNotHandedOut) {
  Pipe pipe;
  pipe.write("first\nsec");
  NameList list(pipe.reading_end(), '\n');
  std::string name;
  EXPECT_EQ(list.next(name, 10ms), NextName::kThere);
  EXPECT_EQ(name, "first");
  EXPECT_EQ(list.next(name, 10ms), NextName::kNotYet);
  pipe.write("ond\n");
  EXPECT_EQ(list.next(name, 1s), NextName::kThere);
  EXPECT_EQ(name, "second");
  pipe.close();
  EXPECT_EQ(list.next(name, 1s), NextName::kEnd);
}

TEST(NameList, WhatIsNoListIsRefusedBeforeItFillsTheMemory) {
  const TemporaryFolder folder;
  write_bytes(folder / "binary", std::string(1 << 20, 'x'));
  std::FILE* file = std::fopen((folder / "binary").c_str(), "rb");
  NameList list(::fileno(file), '\n');
  std::string name;
  EXPECT_THAT(message_of<DataError>([&] { list.next(name, 1s); }), HasSubstr("one per line"));
  std::fclose(file);
}

/// A folder of empty files; nothing here opens them.
class Inputs : public ::testing::Test {
 protected:
  std::string make(const std::string& name) const {
    const fs::path path = folder_ / name;
    fs::create_directories(path.parent_path());
    write_bytes(path, "");
    return path.string();
  }
  std::string at(const std::string& name) const { return (folder_ / name).string(); }

  TemporaryFolder folder_;
};

TEST_F(Inputs, FilesFoldersAndPatternsComeInTheOrderOfTheWords) {
  const std::string file = make("z/notes.txt");
  const std::string deep = make("photos/2024/b.JPG");
  const std::string shallow = make("photos/a.png");
  make("photos/.hidden.png");
  make("photos/list.csv");
  const std::string first = make("g/1.jpg");
  const std::string second = make("g/2.jpg");
  EXPECT_THAT(names_of({file, at("g/[0-9].jpg"), at("photos")}),
              ElementsAre(file, first, second, shallow, deep));
}

TEST_F(Inputs, AFileThatSeveralWordsNameComesOnce) {
  const std::string file = make("a.png");
  EXPECT_THAT(names_of({file, at("./a.png"), at("*.png"), folder_.path().string()}), ElementsAre(file));
  EXPECT_THAT(names_of({fs::relative(file).string(), file}), ElementsAre(fs::relative(file).string()));
}

TEST_F(Inputs, AFileWhoseNameIsAPatternIsItself) {
  make("a.jpg");
  const std::string file = make("[ab].jpg");
  EXPECT_THAT(names_of({file}), ElementsAre(file));
}

TEST_F(Inputs, WordsThatNameNothingAreAllToldAtOnce) {
  const auto error = message_of<DataError>([&] { names_of({make("a.png"), at("b.png"), at("*.gif")}); });
  EXPECT_THAT(error, HasSubstr(at("b.png")));
  EXPECT_THAT(error, HasSubstr(at("*.gif")));
}

TEST_F(Inputs, AFolderWithoutPicturesIsWarnedOf) {
  make("empty/readme.txt");
  ::testing::internal::CaptureStderr();
  EXPECT_THAT(names_of({at("empty")}), IsEmpty());
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr(at("empty")));
}

TEST_F(Inputs, WhatLiesInAnExcludedFolderBelowIsPassedOver) {
  const std::string outside = make("photos/a.png");
  make("photos/sorted/cat/b.png");
  make("photos/sorted/c.png");
  EXPECT_THAT(names_of({at("photos/")}, {folder_ / "photos/sorted"}), ElementsAre(at("photos/a.png")));
  EXPECT_THAT(names_of({at("photos/sorted/cat")}, {folder_ / "photos/sorted"}),
              ElementsAre(at("photos/sorted/cat/b.png")))
      << "a folder that is asked for by name is an input wherever it lies";
  EXPECT_THAT(names_of({at("photos/sorted")}, {folder_ / "photos"}), Not(IsEmpty()));
}

TEST_F(Inputs, StandardInputCanBeReadOnceOnly) {
  EXPECT_THAT(message_of<ConfigError>([] { ImageInputs({"-", "-"}, false); }), HasSubstr("twice"));
}

}  // namespace
}  // namespace clip_lora::testing
