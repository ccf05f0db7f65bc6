#include "clip_lora/io/event_file.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <string_view>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/process.hpp"

namespace clip_lora::io {
namespace {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "records are little-endian");

constexpr std::string_view kNameBegin = "events.out.tfevents.";

/// The remainders of Castagnoli's polynomial for each byte.
constexpr std::array<std::uint32_t, 256> crc32c_table() {
  constexpr std::uint32_t kPolynomial = 0x82F63B78;  // its bits reversed
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t remainder = byte;
    for (int bit = 0; bit < 8; ++bit) remainder = (remainder >> 1) ^ ((remainder & 1) != 0 ? kPolynomial : 0);
    table[byte] = remainder;
  }
  return table;
}

/// CRC-32C, rotated and shifted as the format wants it.
std::uint32_t masked_crc32c(std::string_view bytes) {
  static constexpr std::array<std::uint32_t, 256> kTable = crc32c_table();
  std::uint32_t crc = 0xFFFFFFFF;
  for (const char byte : bytes) crc = (crc >> 8) ^ kTable[(crc ^ static_cast<unsigned char>(byte)) & 0xFF];
  return std::rotr(~crc, 15) + 0xA282EAD8;
}

template <typename T>
std::string bytes_of(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

// Protocol buffers: a field is its number and kind, then the value.
enum FieldKind : std::uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>((value & 0x7F) | 0x80);
  return bytes + static_cast<char>(value);
}

std::string field(std::uint64_t number, FieldKind kind, const std::string& value) {
  return varint(number << 3 | kind) + (kind == kBytes ? varint(value.size()) : "") + value;
}

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

/// Event { wall_time = 1; step = 2; }, to which the content is appended.
std::string event_of(std::int64_t step, const std::string& content) {
  return field(1, kFixed64, bytes_of(now_seconds())) +
         field(2, kVarint, varint(static_cast<std::uint64_t>(step))) + content;
}

/// Event.file_version
std::string file_version() { return field(3, kBytes, "brain.Event:2"); }

/// Event.session_log { status = START }: readers forget what they know of this step and later ones.
std::string session_start() { return field(7, kBytes, field(1, kVarint, varint(1))); }

/// Event.summary.value { tag = 1; simple_value = 2; }, once for each.
std::string summary(const std::vector<std::pair<std::string, double>>& scalars) {
  std::string values;
  for (const auto& [tag, value] : scalars) {
    values +=
        field(1, kBytes, field(1, kBytes, tag) + field(2, kFixed32, bytes_of(static_cast<float>(value))));
  }
  return field(5, kBytes, values);
}

/// Seconds since 1970 for a name that sorts behind all that are in `folder`: readers go by the names.
std::int64_t next_stamp(const fs::path& folder) {
  auto stamp = static_cast<std::int64_t>(now_seconds());
  for (const auto& file : fs::directory_iterator(folder)) {
    const std::string name = file.path().filename();
    if (!name.starts_with(kNameBegin)) continue;
    std::int64_t taken = 0;
    std::from_chars(name.data() + kNameBegin.size(), name.data() + name.size(), taken);
    stamp = std::max(stamp, taken + 1);
  }
  return stamp;
}

[[noreturn]] void throw_not_writable(const fs::path& path, const std::string& reason) {
  throw ConfigError("cannot write '" + path.string() + "': " + reason);
}

}  // namespace

EventFile::EventFile(const fs::path& folder, std::int64_t first_step) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw_not_writable(folder, error.message());
  path_ = folder / (std::string(kNameBegin) + std::to_string(next_stamp(folder)) + "." + host_name() + "." +
                    std::to_string(::getpid()));
  file_.open(path_, std::ios::binary);
  write_record(event_of(0, file_version()));
  write_record(event_of(first_step, session_start()));
}

void EventFile::add(std::int64_t step, const std::vector<std::pair<std::string, double>>& scalars) {
  write_record(event_of(step, summary(scalars)));
}

void EventFile::write_record(const std::string& event) {
  errno = 0;
  const std::string length = bytes_of(static_cast<std::uint64_t>(event.size()));
  file_ << length << bytes_of(masked_crc32c(length)) << event << bytes_of(masked_crc32c(event));
  if (!file_.flush()) throw_not_writable(path_, errno != 0 ? std::strerror(errno) : "unknown reason");
}

}  // namespace clip_lora::io
