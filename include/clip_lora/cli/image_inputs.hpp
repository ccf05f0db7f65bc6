#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace clip_lora::cli {

/// Whether there is a name now.
enum class NextName {
  kThere,
  kNotYet,  ///< the list on standard input has not come any further
  kEnd
};

/// A list of names as it comes through a file or pipe.
class NameList {
 public:
  /// `separator` ends each name: '\n' (less a '\r' before it), or '\0'. The last one may lack it, and empty
  /// names are passed over.
  NameList(int file_descriptor, char separator) : file_(file_descriptor), separator_(separator) {}

  /// Waits up to `patience`, or until a signal comes, for more to read. Throws DataError for what cannot be
  /// read, and for a name that is longer than any can be.
  NextName next(std::string& name, std::chrono::milliseconds patience);

 private:
  bool take(std::string& name);
  bool wait(std::chrono::milliseconds patience) const;
  void read_more();

  int file_;
  char separator_;
  std::string buffer_;     // what has been read
  std::size_t begin_ = 0;  // of it, what has not been taken
  bool ended_ = false;
};

/// The pictures that the words of a command line name, in their order: files (whatever they are), the
/// pictures at any depth in folders, what a pattern such as 'photos/*.jpg' matches, and for `-` the names on
/// standard input. A file that several words name comes once; the list on standard input is taken as it is,
/// line by line.
class ImageInputs {
 public:
  /// `null_separated`: the names on standard input end in NUL instead of a line break. What lies in a folder
  /// of `excluded` below a folder that a word names is passed over. Throws DataError for words that name
  /// nothing, all of them at once (ten and a count), and ConfigError for a second `-`. Folders without a
  /// picture are warned of.
  ImageInputs(const std::vector<std::string>& words, bool null_separated,
              const std::vector<std::filesystem::path>& excluded = {});

  /// The next name. Waits up to `patience` for standard input. Throws as NameList.
  NextName next(std::string& name, std::chrono::milliseconds patience);

  /// How many there are; nothing if standard input is still to say so.
  std::optional<std::int64_t> count() const;

 private:
  std::vector<std::string> names_;
  std::size_t next_ = 0;
  std::optional<NameList> list_;
  std::size_t list_at_ = 0;  // names that come before the list
};

}  // namespace clip_lora::cli
