#include "zip_archive.hpp"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <optional>
#include <vector>

#include "clip_lora/core/errors.hpp"

namespace clip_lora::io {
namespace {

constexpr std::uint32_t kLocalSignature = 0x04034b50;
constexpr std::uint32_t kDirectorySignature = 0x02014b50;
constexpr std::uint32_t kEndSignature = 0x06054b50;
constexpr std::uint32_t kEnd64Signature = 0x06064b50;
constexpr std::uint32_t kLocatorSignature = 0x07064b50;
constexpr std::uint64_t kLocalBytes = 30;
constexpr std::uint64_t kDirectoryBytes = 46;
constexpr std::uint64_t kEndBytes = 22;
constexpr std::uint64_t kEnd64Bytes = 56;
constexpr std::uint64_t kLocatorBytes = 20;
constexpr std::uint16_t kZip64Field = 1;
constexpr std::uint32_t kElsewhere32 = 0xffffffff;  // the value is in the zip64 record or field
constexpr std::uint16_t kElsewhere16 = 0xffff;

// General purpose flags.
constexpr unsigned kDescriptorFollows = 1U << 3;
constexpr unsigned kAllowedFlags =
    kDescriptorFollows | 1U << 1 | 1U << 2 | 1U << 11;  // deflate's level, UTF-8 names

constexpr std::uint64_t kMostEntries = 100'000;  // one for each storage; the largest CLIP has some 1,400

constexpr std::uint64_t kMostInflation = 1032;  // bytes out of one: 258 of a match of two bits

constexpr std::uint16_t kStored = 0;
constexpr std::uint16_t kDeflated = 8;

std::string hexadecimal(std::uint64_t value) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text;
  do text.insert(text.begin(), kDigits[value % 16]);
  while (value /= 16);
  return "0x" + text;
}

/// The `size` bytes that `packed` unpacks to, or nothing if it does not.
std::optional<std::string> inflated(std::string& packed, std::uint64_t size) {
  constexpr std::uint64_t kMost = std::numeric_limits<uInt>::max();
  if (packed.size() > kMost || size > kMost) return std::nullopt;
  z_stream stream{};
  if (::inflateInit2(&stream, /*windowBits=*/-MAX_WBITS) != Z_OK)
    throw std::bad_alloc();  // negative: no zlib header
  std::string unpacked(size, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = reinterpret_cast<Bytef*>(unpacked.data());
  stream.avail_out = static_cast<uInt>(size);
  const int status = ::inflate(&stream, Z_FINISH);
  ::inflateEnd(&stream);
  if (status != Z_STREAM_END || stream.total_out != size) return std::nullopt;
  return unpacked;
}

std::uint32_t crc_of(std::string_view bytes) {
  return static_cast<std::uint32_t>(::crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

}  // namespace

/// Reads the records of an archive that is whole in memory.
class ZipArchive::Directory {
 public:
  Directory(std::string_view bytes, const std::string& source) : bytes_(bytes), source_(source) {}

  std::map<std::string, ZipEntry> read() {
    const End end = read_end();
    std::uint64_t at = end.directory;
    for (std::uint64_t index = 0; index < end.count; ++index) at = read_entry(at, end);
    if (at != end.begin) {
      fail("its list of files ends at byte " + std::to_string(at) + ", expected " +
           std::to_string(end.begin));
    }
    check_places(end);
    return std::move(entries_);
  }

 private:
  /// What the records at the archive's end say.
  struct End {
    std::uint64_t begin;      // of those records, which is the end of the list of files
    std::uint64_t directory;  // where the list of files begins
    std::uint64_t count;      // files
  };
  /// From an entry's local header to the end of its bytes.
  struct Place {
    std::uint64_t begin;
    std::uint64_t end;
    std::string name;
    bool operator<(const Place& other) const { return begin < other.begin; }
  };
  /// The fields that an entry of the list has in common with its local header.
  struct Header {
    std::uint16_t flags;
    std::uint16_t method;
    std::uint32_t crc;
    std::uint64_t stored;
    std::uint64_t size;
  };

  [[noreturn]] void fail(const std::string& what) const { throw CheckpointError(source_ + what); }

  template <typename Integer>
  Integer read_at(std::uint64_t at) const {
    if (at > bytes_.size() || bytes_.size() - at < sizeof(Integer)) {
      fail("a record at byte " + std::to_string(at) + " leaves the file (hint: the file is truncated)");
    }
    Integer value;
    std::memcpy(&value, bytes_.data() + at, sizeof value);
    return value;
  }
  std::uint16_t u16(std::uint64_t at) const { return read_at<std::uint16_t>(at); }
  std::uint32_t u32(std::uint64_t at) const { return read_at<std::uint32_t>(at); }
  std::uint64_t u64(std::uint64_t at) const { return read_at<std::uint64_t>(at); }

  void require_signature(std::uint64_t at, std::uint32_t expected, const char* what) const {
    const std::uint32_t found = u32(at);
    if (found == expected) return;
    fail(std::string("no ") + what + " at byte " + std::to_string(at) + ": found " + hexadecimal(found) +
         ", expected " + hexadecimal(expected));
  }

  End read_end() const {
    if (bytes_.size() < kEndBytes || u32(bytes_.size() - kEndBytes) != kEndSignature) {
      fail("it does not end as a zip archive does (hint: the file is truncated, or has something appended)");
    }
    const std::uint64_t at = bytes_.size() - kEndBytes;
    if (u16(at + 4) != 0 || u16(at + 6) != 0) fail("it is one of several parts of a zip archive");
    if (u16(at + 20) != 0)
      fail("it has a comment of " + std::to_string(u16(at + 20)) + " bytes, expected none");
    End end{at, u32(at + 16), u16(at + 10)};
    std::uint64_t length = u32(at + 12);
    std::uint64_t count_here = u16(at + 8);
    if (at >= kLocatorBytes && u32(at - kLocatorBytes) == kLocatorSignature) {
      end.begin = zip64_end(at - kLocatorBytes);
      end.count = either(end.count, kElsewhere16, u64(end.begin + 32), "number of files");
      count_here = either(count_here, kElsewhere16, u64(end.begin + 24), "number of files");
      length = either(length, kElsewhere32, u64(end.begin + 40), "length of its list of files");
      end.directory = either(end.directory, kElsewhere32, u64(end.begin + 48), "place of its list of files");
    }
    if (count_here != end.count)
      fail("it says it has " + std::to_string(end.count) + " files and " + std::to_string(count_here));
    if (end.directory > end.begin || end.begin - end.directory != length) {
      fail("its list of files should be " + std::to_string(length) + " bytes at byte " +
           std::to_string(end.directory) + ", but the end record is at byte " + std::to_string(end.begin));
    }
    if (end.count > kMostEntries) {
      fail("it says it has " + std::to_string(end.count) + " files, expected at most " +
           std::to_string(kMostEntries));
    }
    if (end.count > length / kDirectoryBytes) {
      fail("it says it has " + std::to_string(end.count) + " files, but its list of files has " +
           std::to_string(length) + " bytes");
    }
    return end;
  }

  /// Where the zip64 end record is, which the locator at `locator` names and must directly follow.
  std::uint64_t zip64_end(std::uint64_t locator) const {
    if (u32(locator + 4) != 0 || u32(locator + 16) != 1) fail("it is one of several parts of a zip archive");
    const std::uint64_t at = u64(locator + 8);
    if (locator < kEnd64Bytes || at != locator - kEnd64Bytes) {
      fail("its zip64 end record is at byte " + std::to_string(at) + ", expected just before byte " +
           std::to_string(locator));
    }
    require_signature(at, kEnd64Signature, "zip64 end record");
    if (u64(at + 4) != kEnd64Bytes - 12)
      fail("its zip64 end record has " + std::to_string(u64(at + 4)) + " bytes, expected 44");
    if (u32(at + 16) != 0 || u32(at + 20) != 0) fail("it is one of several parts of a zip archive");
    return at;
  }

  /// The zip64 record's value, which the old record's must be equal to or point at.
  std::uint64_t either(std::uint64_t old, std::uint64_t elsewhere, std::uint64_t value,
                       const char* what) const {
    if (old != elsewhere && old != value) {
      fail(std::string("the ") + what + " is " + std::to_string(old) + " in one end record and " +
           std::to_string(value) + " in the other");
    }
    return value;
  }

  /// Reads the entry of the list at `at` and its local header; returns where the next one begins.
  std::uint64_t read_entry(std::uint64_t at, const End& end) {
    if (at > end.begin || end.begin - at < kDirectoryBytes) fail("its list of files is shorter than it says");
    require_signature(at, kDirectorySignature, "entry of the list of files");
    const std::uint64_t name_bytes = u16(at + 28);
    const std::uint64_t extra_bytes = u16(at + 30);
    const std::uint64_t after = at + kDirectoryBytes + name_bytes + extra_bytes;
    if (after > end.begin) fail("its list of files is shorter than it says");
    const std::string name(bytes_.substr(at + kDirectoryBytes, name_bytes));
    if (u16(at + 32) != 0) fail("entry '" + name + "' has a comment");
    if (u16(at + 34) != 0) fail("entry '" + name + "' lies in another part of the archive");

    Header header{u16(at + 8), u16(at + 10), u32(at + 16), u32(at + 20), u32(at + 24)};
    std::uint64_t local = u32(at + 42);
    take_zip64_field(name, at + kDirectoryBytes + name_bytes, after, {&header.size, &header.stored, &local});
    check_header(name, header);
    const std::uint64_t begin = local_end(name, header, local);
    if (begin > end.directory || header.stored > end.directory - begin) {
      fail("entry '" + name + "' has " + std::to_string(header.stored) + " bytes at byte " +
           std::to_string(begin) + ", but the list of files begins at byte " + std::to_string(end.directory));
    }
    const ZipEntry entry{begin, header.stored, header.size, header.crc, header.method == kDeflated};
    if (!entries_.emplace(name, entry).second) fail("entry '" + name + "' is there twice");
    places_.push_back({local, begin + header.stored, name});
    return after;
  }

  /// Replaces those of `values` (in the order of the format) that are marked as lying in the zip64 extra
  /// field.
  void take_zip64_field(const std::string& name, std::uint64_t at, std::uint64_t end,
                        const std::vector<std::uint64_t*>& values) const {
    for (std::uint64_t field = at; field < end;) {
      if (end - field < 4 || end - field - 4 < u16(field + 2))
        fail("entry '" + name + "' has a broken extra field");
      const std::uint64_t field_end = field + 4 + u16(field + 2);
      if (u16(field) == kZip64Field) {
        std::uint64_t value_at = field + 4;
        for (std::uint64_t* value : values) {
          if (*value != kElsewhere32) continue;
          if (field_end - value_at < 8) fail("entry '" + name + "' has a zip64 field that is too short");
          *value = u64(value_at);
          value_at += 8;
        }
        return;
      }
      field = field_end;
    }
    for (const std::uint64_t* value : values) {
      if (*value == kElsewhere32) fail("entry '" + name + "' lacks its zip64 field");
    }
  }

  void check_header(const std::string& name, const Header& header) const {
    if ((header.flags & ~kAllowedFlags) != 0) {
      fail("entry '" + name + "' has flags " + hexadecimal(header.flags) +
           ": it is encrypted, or of an unknown kind");
    }
    if (header.method == kStored && header.stored != header.size) {
      fail("entry '" + name + "' is not compressed, but has " + std::to_string(header.stored) +
           " bytes for a file of " + std::to_string(header.size));
    }
    if (header.method == kStored) return;
    // torch.jit.save compresses its sources, and nothing else.
    if (header.method == kDeflated && name.find("/code/") != std::string::npos) return;
    fail("entry '" + name + "' is compressed (method " + std::to_string(header.method) +
         "), which PyTorch never does " + "(hint: was the file packed again by another program?)");
  }

  /// Checks the local header at `local` against the list's; returns where the entry's bytes begin.
  std::uint64_t local_end(const std::string& name, const Header& header, std::uint64_t local) const {
    if (local > bytes_.size())
      fail("entry '" + name + "' begins at byte " + std::to_string(local) + ", beyond the file's end");
    require_signature(local, kLocalSignature, "header of an entry");
    const std::uint64_t name_bytes = u16(local + 26);
    const std::uint64_t begin = local + kLocalBytes + name_bytes + u16(local + 28);
    if (begin > bytes_.size())
      fail("entry '" + name + "' begins at byte " + std::to_string(begin) + ", beyond the file's end");
    const bool descriptor = (header.flags & kDescriptorFollows) != 0;
    const auto agrees = [&](std::uint64_t value, std::uint64_t listed) {
      return value == listed || value == kElsewhere32 || (descriptor && value == 0);
    };
    if (bytes_.substr(local + kLocalBytes, name_bytes) != name || u16(local + 6) != header.flags ||
        u16(local + 8) != header.method || !agrees(u32(local + 14), header.crc) ||
        !agrees(u32(local + 18), header.stored) || !agrees(u32(local + 22), header.size)) {
      fail("entry '" + name + "' is described otherwise where it begins, at byte " + std::to_string(local));
    }
    return begin;
  }

  /// No entry may lie in another, and none but the first may begin the file.
  void check_places(const End& end) {
    std::sort(places_.begin(), places_.end());
    std::uint64_t covered = 0;
    const std::string* before = nullptr;
    for (const Place& place : places_) {
      if (place.begin < covered) fail("entry '" + place.name + "' overlaps entry '" + *before + "'");
      if (before == nullptr && place.begin != 0) {
        fail("its first entry is at byte " + std::to_string(place.begin) + ", expected 0");
      }
      covered = place.end;
      before = &place.name;
    }
    if (covered > end.directory) fail("entry '" + *before + "' overlaps the list of files");
  }

  std::string_view bytes_;
  const std::string& source_;
  std::map<std::string, ZipEntry> entries_;
  std::vector<Place> places_;
};

ZipArchive::ZipArchive(std::shared_ptr<const MappedFile> file, std::string source)
    : file_(std::move(file)), source_(std::move(source)) {
  entries_ = Directory({file_->bytes(), file_->size()}, source_).read();
  for (const auto& [name, entry] : entries_) has_crcs_ = has_crcs_ || entry.crc != 0;
}

void ZipArchive::fail(const std::string& what) const { throw CheckpointError(source_ + what); }

const ZipEntry& ZipArchive::entry(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) fail("it lacks the entry '" + name + "'");
  return found->second;
}

std::string_view ZipArchive::bytes_of(const ZipEntry& entry) const {
  return {file_->bytes() + entry.begin, entry.stored};
}

void ZipArchive::check_crc(const std::string& name, std::uint32_t expected, std::string_view content) const {
  if (!has_crcs_ || crc_of(content) == expected) return;
  fail("entry '" + name + "' is damaged: its CRC-32 is " + hexadecimal(crc_of(content)) + ", expected " +
       hexadecimal(expected) + " (hint: copy or download the file again)");
}

std::string_view ZipArchive::stored(const std::string& name) const {
  const ZipEntry& found = entry(name);
  if (found.deflated) fail("entry '" + name + "' is compressed, expected its plain bytes");
  return bytes_of(found);
}

std::string ZipArchive::checked(const std::string& name, std::uint64_t limit) const {
  const ZipEntry& found = entry(name);
  std::string content(bytes_of(found));
  if (found.deflated) {
    if (found.size > limit) {
      fail("entry '" + name + "' unpacks to " + std::to_string(found.size) + " bytes, expected at most " +
           std::to_string(limit));
    }
    // More than deflate can do is not worth the memory.
    const bool is_possible = found.size / kMostInflation <= found.stored;
    auto unpacked = is_possible ? inflated(content, found.size) : std::nullopt;
    if (!unpacked) fail("entry '" + name + "' cannot be unpacked: its compressed bytes are damaged");
    content = std::move(*unpacked);
  }
  check_crc(name, found.crc, content);
  return content;
}

void ZipArchive::check_all() const {
  for (const auto& [name, entry] : entries_) {
    if (!entry.deflated) check_crc(name, entry.crc, bytes_of(entry));
  }
}

}  // namespace clip_lora::io
