#include "clip_lora/cli/image_inputs.hpp"

#include <glob.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>
#include <system_error>
#include <unordered_set>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/log.hpp"
#include "clip_lora/data/image_folder.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kStandardInput = "-";
constexpr std::size_t kReadBytes = 1 << 16;
constexpr std::size_t kLongestPath = 1 << 16;  // Linux takes 4,096 bytes

/// What a shell's pattern matches, sorted; nothing if nothing does.
std::vector<std::string> matches(const std::string& pattern) {
  glob_t found{};
  const int result = ::glob(pattern.c_str(), 0, nullptr, &found);
  std::vector<std::string> names(found.gl_pathv, found.gl_pathv + (result == 0 ? found.gl_pathc : 0));
  ::globfree(&found);
  return names;
}

/// Tells what lies in one of some folders below another.
class Exclusion {
 public:
  explicit Exclusion(const std::vector<fs::path>& excluded) {
    for (const auto& folder : excluded) excluded_.insert(fs::weakly_canonical(folder));
  }

  /// Whether `picture`, found below `root`, lies in an excluded folder below it.
  bool holds(const fs::path& picture, const fs::path& root) {
    if (excluded_.empty()) return false;
    const fs::path folder = picture.parent_path();
    const auto [verdict, is_new] = verdicts_.try_emplace(folder, false);
    if (is_new) verdict->second = lies_below(fs::weakly_canonical(folder), fs::weakly_canonical(root));
    return verdict->second;
  }

  void begin_root() { verdicts_.clear(); }

 private:
  bool lies_below(fs::path folder, const fs::path& root) const {
    for (; folder != root && folder != folder.parent_path(); folder = folder.parent_path()) {
      if (excluded_.contains(folder)) return true;
    }
    return false;
  }

  std::set<fs::path> excluded_;
  std::map<fs::path, bool> verdicts_;  // by the folder of a picture
};

/// Turns words into names.
class Expansion {
 public:
  Expansion(std::vector<std::string>& names, const std::vector<fs::path>& excluded)
      : names_(names), exclusion_(excluded) {}

  void add(const std::string& word) {
    std::error_code ignored;
    if (fs::exists(fs::symlink_status(word, ignored))) return add_path(word);
    const auto found = matches(word);
    if (found.empty()) absent_.push_back("'" + word + "'");
    for (const auto& path : found) add_path(path);
  }

  void require_all_found() const {
    if (!absent_.empty()) throw DataError("no such file, folder or match: " + join_capped(absent_));
  }

  void warn_of_empty_folders() const {
    if (empty_.empty()) return;
    log_warning("no pictures at any depth in " + join_capped(empty_) +
                " (hint: they are told by their extension, such as .jpg or .png)");
  }

 private:
  void add_path(const std::string& path) {
    std::error_code ignored;
    if (!fs::is_directory(path, ignored)) return add_file(path);
    exclusion_.begin_root();
    const auto pictures = data::list_images(path, data::HiddenFiles::kSkip);
    if (pictures.empty()) empty_.push_back("'" + path + "'");
    for (const auto& picture : pictures) {
      if (!exclusion_.holds(picture, path)) add_file(picture);
    }
  }

  void add_file(const std::string& path) {
    if (seen_.insert(fs::absolute(path).lexically_normal().string()).second) names_.push_back(path);
  }

  std::vector<std::string>& names_;
  Exclusion exclusion_;
  std::unordered_set<std::string> seen_;
  std::vector<std::string> absent_;
  std::vector<std::string> empty_;
};

}  // namespace

NextName NameList::next(std::string& name, std::chrono::milliseconds patience) {
  while (!take(name)) {
    if (ended_) return NextName::kEnd;
    if (!wait(patience)) return NextName::kNotYet;
    read_more();
  }
  return NextName::kThere;
}

/// Takes a whole name out of the buffer, or the rest of it at the end.
bool NameList::take(std::string& name) {
  while (begin_ < buffer_.size()) {
    const std::size_t end = buffer_.find(separator_, begin_);
    if (end == std::string::npos && !ended_) return false;
    name = buffer_.substr(begin_, end - begin_);
    begin_ = end == std::string::npos ? buffer_.size() : end + 1;
    if (separator_ == '\n' && name.ends_with('\r')) name.pop_back();
    if (!name.empty()) return true;
  }
  return false;
}

bool NameList::wait(std::chrono::milliseconds patience) const {
  pollfd poll = {.fd = file_, .events = POLLIN, .revents = 0};
  return ::poll(&poll, 1, static_cast<int>(patience.count())) > 0;
}

void NameList::read_more() {
  buffer_.erase(0, begin_);
  begin_ = 0;
  if (buffer_.size() > kLongestPath) {
    throw DataError(
        "standard input: a name of more than " + std::to_string(kLongestPath) +
        " bytes (hint: expected names of pictures, one per line, or with --null each ended by NUL)");
  }
  const std::size_t before = buffer_.size();
  buffer_.resize(before + kReadBytes);
  const ssize_t bytes = ::read(file_, buffer_.data() + before, kReadBytes);
  const int reason = errno;
  buffer_.resize(before + static_cast<std::size_t>(std::max<ssize_t>(bytes, 0)));
  if (bytes == 0) ended_ = true;
  if (bytes < 0 && reason != EINTR && reason != EAGAIN) {
    throw DataError("standard input cannot be read: " + std::generic_category().message(reason));
  }
}

ImageInputs::ImageInputs(const std::vector<std::string>& words, bool null_separated,
                         const std::vector<fs::path>& excluded) {
  Expansion expansion(names_, excluded);
  for (const auto& word : words) {
    if (word != kStandardInput) {
      expansion.add(word);
      continue;
    }
    if (list_) throw ConfigError("'-' is there twice, but there is one standard input only");
    list_.emplace(STDIN_FILENO, null_separated ? '\0' : '\n');
    list_at_ = names_.size();
  }
  expansion.require_all_found();
  expansion.warn_of_empty_folders();
}

NextName ImageInputs::next(std::string& name, std::chrono::milliseconds patience) {
  if (list_ && next_ == list_at_) {
    const NextName result = list_->next(name, patience);
    if (result != NextName::kEnd) return result;
    list_.reset();
  }
  if (next_ == names_.size()) return NextName::kEnd;
  name = names_[next_++];
  return NextName::kThere;
}

std::optional<std::int64_t> ImageInputs::count() const {
  if (list_) return std::nullopt;
  return static_cast<std::int64_t>(names_.size());
}

}  // namespace clip_lora::cli
