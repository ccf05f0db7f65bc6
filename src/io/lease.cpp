#include "clip_lora/io/lease.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/process.hpp"
#include "clip_lora/io/atomic_file.hpp"

namespace clip_lora::io {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kLongestFile = 4096;

fs::path file_of(const fs::path& stem, std::uint64_t generation) {
  fs::path file = stem;
  file += "." + std::to_string(generation) + ".json";
  return file;
}

/// The generations that there are, in no order. Throws ConfigError.
std::vector<std::uint64_t> generations(const fs::path& stem) {
  const std::string prefix = stem.filename().string() + ".";
  const std::string ending = ".json";
  std::vector<std::uint64_t> found;
  std::error_code error;
  for (fs::directory_iterator entry(stem.parent_path(), error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (!name.starts_with(prefix) || !name.ends_with(ending) || name.size() <= prefix.size() + ending.size())
      continue;
    const char* const begin = name.data() + prefix.size();
    const char* const stop = name.data() + name.size() - ending.size();
    std::uint64_t number = 0;
    const auto [parsed, wrong] = std::from_chars(begin, stop, number);
    if (wrong == std::errc() && parsed == stop) found.push_back(number);
  }
  if (error) throw ConfigError("cannot read '" + stem.parent_path().string() + "': " + error.message());
  return found;
}

std::uint64_t highest(const std::vector<std::uint64_t>& numbers) {
  std::uint64_t result = 0;
  for (const std::uint64_t number : numbers) result = std::max(result, number);
  return result;
}

/// A file that is open, closed at the end of the scope: NFS asks the server anew when a file is opened, and
/// sends what was written when it is closed.
class OpenFile {
 public:
  OpenFile(const fs::path& path, int flags) : file_(::open(path.c_str(), flags | O_CLOEXEC)), error_(errno) {}
  ~OpenFile() {
    if (file_ >= 0) ::close(file_);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  bool is_open() const { return file_ >= 0; }
  bool is_gone() const { return file_ < 0 && (error_ == ENOENT || error_ == ESTALE); }

  std::optional<std::string> read() const {
    std::string text(kLongestFile, '\0');
    const ssize_t size = ::pread(file_, text.data(), text.size(), 0);
    if (size < 0) return std::nullopt;
    text.resize(static_cast<std::size_t>(size));
    return text;
  }

  /// The new text must be as long as the old one.
  bool overwrite(const std::string& text) const {
    return ::pwrite(file_, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size());
  }

 private:
  int file_;
  int error_;
};

std::optional<std::string> read_file(const fs::path& path) {
  const OpenFile file(path, O_RDONLY);
  return file.is_open() ? file.read() : std::nullopt;
}

/// What a lease's file says. Always of one length for one process.
std::string content_of(const std::string& id, std::uint64_t heartbeat) {
  std::string beats = std::to_string(heartbeat);
  beats.insert(0, 12 - std::min<std::size_t>(12, beats.size()), '0');
  const nlohmann::ordered_json content = {{"id", id},
                                          {"process", process_tag()},
                                          {"host", host_name()},
                                          {"pid", ::getpid()},
                                          {"heartbeat", beats}};
  return content.dump(-1, ' ', true, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

/// Empty values for what is no lease's file.
nlohmann::json parsed(const std::string& content) {
  nlohmann::json value = nlohmann::json::parse(content, nullptr, /*allow_exceptions=*/false);
  return value.is_object() ? value : nlohmann::json::object();
}

std::string text_at(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

/// Whether link() made `name` a second name of `file`. Its own answer may have been lost on the way from the
/// server, which is then asked a second time and says that the name is taken.
bool link_once(const fs::path& file, const fs::path& name) {
  if (::link(file.c_str(), name.c_str()) == 0) return true;
  const int reason = errno;
  struct stat status {};
  if (::stat(file.c_str(), &status) == 0 && status.st_nlink == 2) return true;
  if (reason == EEXIST || reason == ENOENT) return false;  // ENOENT: the file was cleaned away
  throw ConfigError("cannot write '" + name.string() + "': " + std::strerror(reason));
}

}  // namespace

/// The thread that gives signs of life, and what it knows.
class Lease::Holder {
 public:
  Holder(fs::path stem, std::uint64_t generation, std::string id, const LeaseOptions& options)
      : stem_(std::move(stem)),
        generation_(generation),
        id_(std::move(id)),
        options_(options),
        shown_(Clock::now()),
        thread_([this] { beat_until_ended(); }) {}

  ~Holder() {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
    }
    wake_.notify_all();
    thread_.join();
    if (!lost_) ::unlink(file_of(stem_, generation_).c_str());
  }

  bool is_held() {
    const std::lock_guard lock(mutex_);
    beat();
    return !lost_;
  }

  bool was_held() const { return !lost_; }

 private:
  void beat_until_ended() {
    std::unique_lock lock(mutex_);
    while (!wake_.wait_for(lock, options_.heartbeat, [this] { return ended_; })) beat();
  }

  /// Gives a sign of life, unless the lease is lost.
  void beat() {
    if (lost_) return;
    const auto now = Clock::now();
    const OpenFile file(file_of(stem_, generation_), O_RDWR);
    const auto content = file.is_open() ? file.read() : std::nullopt;
    const bool is_anothers = content && text_at(parsed(*content), "id") != id_;
    if (file.is_gone() || is_anothers || is_outnumbered()) {
      lost_ = true;
    } else if (content && file.overwrite(content_of(id_, ++heartbeat_))) {
      shown_ = now;
    }
    if (now - shown_ > options_.timeout) lost_ = true;
  }

  bool is_outnumbered() const {
    try {
      return highest(generations(stem_)) > generation_;
    } catch (const ConfigError&) {
      return false;  // the folder cannot be read now; the timeout decides
    }
  }

  const fs::path stem_;
  const std::uint64_t generation_;
  const std::string id_;
  const LeaseOptions options_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool ended_ = false;
  std::uint64_t heartbeat_ = 0;
  Clock::time_point shown_;  // when the last sign of life was given
  std::atomic<bool> lost_ = false;
  std::thread thread_;  // the last: it looks at the others
};

Lease::Lease(std::unique_ptr<Holder> holder) : holder_(std::move(holder)) {}

Lease::~Lease() = default;

bool Lease::is_held() { return holder_->is_held(); }

bool Lease::was_held() const { return holder_->was_held(); }

LeaseSeeker::LeaseSeeker(const fs::path& stem, const LeaseOptions& options)
    : stem_(fs::absolute(stem)), options_(options) {}

std::unique_ptr<Lease> LeaseSeeker::try_acquire() {
  const std::uint64_t last = highest(generations(stem_));
  if (last == 0) return begin(1);
  const auto content = read_file(file_of(stem_, last));
  if (!content) return nullptr;  // given back just now, or not to be read
  const nlohmann::json fields = parsed(*content);
  holder_ = "a process on " + (text_at(fields, "host").empty() ? "another host" : text_at(fields, "host"));
  if (!is_surely_dead(text_at(fields, "process")) && !is_still(last, *content)) return nullptr;
  return begin(last + 1);
}

bool LeaseSeeker::is_still(std::uint64_t generation, const std::string& content) {
  const auto now = Clock::now();
  if (generation != generation_ || content != content_) {
    generation_ = generation;
    content_ = content;
    still_since_ = now;
  }
  return now - still_since_ >= options_.timeout;
}

std::unique_ptr<Lease> LeaseSeeker::begin(std::uint64_t generation) {
  const fs::path file = file_of(stem_, generation);
  const std::string id = random_id();
  const fs::path complete = temporary_name(file);
  write_new_file(complete, content_of(id, 0));
  bool is_ours = false;
  try {
    is_ours = link_once(complete, file);
  } catch (...) {
    ::unlink(complete.c_str());
    throw;
  }
  ::unlink(complete.c_str());
  if (!is_ours) return nullptr;
  const auto all = generations(stem_);
  if (highest(all) > generation) {  // this process was late
    ::unlink(file.c_str());
    return nullptr;
  }
  for (const std::uint64_t other : all) {
    if (other < generation) ::unlink(file_of(stem_, other).c_str());
  }
  return std::unique_ptr<Lease>(new Lease(std::make_unique<Lease::Holder>(stem_, generation, id, options_)));
}

void remove_lease(const fs::path& stem) {
  const fs::path absolute = fs::absolute(stem);
  for (const std::uint64_t generation : generations(absolute)) {
    ::unlink(file_of(absolute, generation).c_str());
  }
}

void remove_lease_of_the_dead(const fs::path& stem) {
  const fs::path absolute = fs::absolute(stem);
  for (const std::uint64_t generation : generations(absolute)) {
    const fs::path file = file_of(absolute, generation);
    const auto content = read_file(file);
    if (content && is_surely_dead(text_at(parsed(*content), "process"))) ::unlink(file.c_str());
  }
}

}  // namespace clip_lora::io
