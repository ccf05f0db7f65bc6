#include "evaluation_cache.hpp"

#define XXH_INLINE_ALL
#include <sys/stat.h>
#include <xxhash.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <mutex>
#include <set>
#include <string_view>
#include <system_error>
#include <thread>
#include <type_traits>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"
#include "clip_lora/core/log.hpp"
#include "clip_lora/io/atomic_file.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;
using Key = std::array<std::uint8_t, 16>;

constexpr std::size_t kSample = 16;  // views that are looked at before a file is used

template <typename Number>
void append(std::string& bytes, Number number) {
  static_assert(std::is_arithmetic_v<Number> || std::is_enum_v<Number>);  // no bytes between fields
  bytes.append(reinterpret_cast<const char*>(&number), sizeof number);
}

void append(std::string& bytes, std::string_view text) {
  append(bytes, text.size());
  bytes += text;
}

void append(std::string& bytes, const image::Preprocessing& preprocessing) {
  // Every field by its position: a new one does not compile until it is listed here.
  const auto& [size_px, resize_px, resize_mode, interpolation, orientation, fill_color, rescale_factor, mean,
               standard_deviation, border_px] = preprocessing;
  append(bytes, size_px);
  append(bytes, resize_px);
  append(bytes, resize_mode);
  append(bytes, interpolation);
  append(bytes, orientation);
  for (const std::uint8_t value : fill_color) append(bytes, value);
  append(bytes, rescale_factor);
  for (const float value : mean) append(bytes, value);
  for (const float value : standard_deviation) append(bytes, value);
  if (border_px != 0) append(bytes, border_px);  // files of before it was a field stay known
}

Key make_key(const std::vector<Item>& items, const image::Preprocessing& preprocessing) {
  std::string bytes;
  append(bytes, CacheHeader{}.version);
  append(bytes, image::kPixelsVersion);
  append(bytes, preprocessing);
  const std::string working_folder = fs::current_path().native() + "/";
  for (const Item& item : items) {
    append(bytes, std::string_view(item.image.starts_with('/') ? item.image : working_folder + item.image));
  }
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes.data(), bytes.size()));
  Key key{};
  std::memcpy(key.data(), canonical.digest, key.size());
  return key;
}

/// A hash of what tells that a file is still the same: its size and the time of its last change.
std::uint64_t stamp_of(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return 0;  // decoding it will fail
  std::string bytes;
  append(bytes, status.st_size);
  append(bytes, status.st_mtim.tv_sec);
  append(bytes, status.st_mtim.tv_nsec);
  return XXH3_64bits(bytes.data(), bytes.size());
}

std::string hexadecimal(const Key& key) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : key) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

void warn_once(const fs::path& folder, const std::string& warning) {
  static std::mutex mutex;
  static std::set<fs::path> warned;
  const std::lock_guard lock(mutex);
  if (warned.insert(folder).second) log_warning(warning);
}

}  // namespace

EvaluationCache::EvaluationCache(const fs::path& folder, const std::vector<Item>& items,
                                 const image::Preprocessing& preprocessing, bool wait)
    : items_(items) {
  header_.size_px = static_cast<std::uint32_t>(preprocessing.size_px);
  header_.count = items.size();
  header_.key = make_key(items, preprocessing);
  path_ = folder / (hexadecimal(header_.key) + ".pixels");
  open_file();
  if (file_) remove_what_the_killed_left();
  if (!file_ && wait) wait_for_turn();
  if (!file_) begin_file();
}

std::size_t EvaluationCache::view_bytes() const { return std::size_t{header_.size_px} * header_.size_px * 3; }

std::size_t EvaluationCache::view_offset(std::size_t item) const {
  return sizeof(CacheHeader) + header_.count * sizeof(std::uint64_t) + item * view_bytes();
}

std::uint64_t EvaluationCache::checksum(std::uint64_t stamp, const std::uint8_t* pixels) const {
  return XXH3_64bits_withSeed(pixels, view_bytes(), stamp);
}

std::uint64_t& EvaluationCache::kept_checksum(std::size_t item) const {
  return reinterpret_cast<std::uint64_t*>(file_->bytes() + sizeof(CacheHeader))[item];
}

void EvaluationCache::open_file() {
  try {
    file_ = std::make_shared<io::MappedFile>(path_);
  } catch (const Error& error) {
    std::error_code ignored;
    if (fs::exists(path_, ignored)) {
      warn_once(path_.parent_path(), std::string(error.what()) + " (the images are decoded again)");
    }
    return;
  }
  const bool has_right_header = file_->size() == view_offset(header_.count) &&
                                std::memcmp(file_->bytes(), &header_, sizeof header_) == 0;
  if (!has_right_header || !is_sample_right()) {
    log_detail("'" + path_.string() + "' is damaged or out of date, and is made anew");
    file_.reset();
    return;
  }
  log_detail("decoded images are read from '" + path_.string() + "'");
}

/// Views spread over the file: when a whole data set was copied anew, all of them are out of date.
bool EvaluationCache::is_sample_right() const {
  const std::size_t sample = std::min(items_.size(), kSample);
  for (std::size_t i = 0; i < sample; ++i) {
    const std::size_t item = i * items_.size() / sample;
    if (checksum(stamp_of(items_[item].image), kept_views(item).get()) != kept_checksum(item)) return false;
  }
  return true;
}

/// Who was killed when the file was there leaves a lease that was not yet gone, or the file as it was being mended.
void EvaluationCache::remove_what_the_killed_left() const {
  try {
    io::remove_temporaries_of(path_);
    io::remove_lease_of_the_dead(path_);
  } catch (const ConfigError&) {  // of a folder that cannot be listed nothing is removed
  }
}

/// Until another process has made the file, or it is this one's turn to make it.
void EvaluationCache::wait_for_turn() {
  constexpr auto kPeriod = std::chrono::milliseconds(200);
  try {
    fs::create_directories(path_.parent_path());
    io::LeaseSeeker seeker(path_, {});
    bool is_told = false;
    while (!(lease_ = seeker.try_acquire())) {
      if (!is_told) log_detail("'" + path_.string() + "' is being made by " + seeker.holder());
      is_told = true;
      std::this_thread::sleep_for(kPeriod);
      if (const int signal = pending_interrupt()) {
        throw Interrupted(signal, "interrupted while another process decoded the images");
      }
    }
  } catch (const ConfigError&) {
    return;  // begin_file() says what is wrong with the folder
  } catch (const fs::filesystem_error&) {
    return;
  }
  open_file();  // another may have made it before
  if (file_) lease_.reset();
}

void EvaluationCache::begin_file() {
  checksums_.resize(header_.count);
  try {
    // Who holds the lease is alone at it: whoever held it before is gone, on whatever machine.
    new_file_.emplace(path_, lease_ ? io::Abandoned::kOfAllButLive : io::Abandoned::kOfTheDead);
  } catch (const ConfigError& error) {
    give_up(error.what());
  }
}

std::shared_ptr<std::uint8_t> EvaluationCache::kept_views(std::size_t item) const {
  if (!file_) return nullptr;
  return {file_, reinterpret_cast<std::uint8_t*>(file_->bytes() + view_offset(item))};
}

void EvaluationCache::fill(std::size_t item, std::uint8_t* pixels, const std::function<void()>& decode) {
  const std::uint64_t stamp =
      stamp_of(items_[item].image);  // before decoding: a change from now on is seen next time
  if (file_ && checksum(stamp, pixels) == kept_checksum(item)) return;
  decode();
  keep(item, pixels, stamp);
}

void EvaluationCache::keep(std::size_t item, const std::uint8_t* pixels, std::uint64_t stamp) {
  if (given_up_) return;
  (file_ ? kept_checksum(item) : checksums_[item]) = checksum(stamp, pixels);
  try {
    if (new_file_) new_file_->write(view_offset(item), pixels, view_bytes());
    ++written_;
  } catch (const ConfigError& error) {
    give_up(error.what());
  }
}

void EvaluationCache::finish() {
  const bool is_new_and_whole = new_file_ && written_ == header_.count;
  const bool is_mended = file_ && written_ > 0;
  if (given_up_ || (!is_new_and_whole && !is_mended)) return;
  try {
    if (is_mended) {
      io::write_atomically(path_, std::string_view(file_->bytes(), file_->size()));
    } else {
      new_file_->write(0, &header_, sizeof header_);
      new_file_->write(sizeof header_, checksums_.data(), checksums_.size() * sizeof(std::uint64_t));
      new_file_->commit();
    }
    log_detail(std::to_string(written_) + " decoded images were added to '" + path_.string() + "'");
  } catch (const ConfigError& error) {
    give_up(error.what());
  }
  new_file_.reset();
  lease_.reset();
}

void EvaluationCache::give_up(const std::string& reason) {
  if (given_up_.exchange(true)) return;
  warn_once(path_.parent_path(), reason + " (the run goes on; later ones decode the images again)");
}

}  // namespace clip_lora::data
