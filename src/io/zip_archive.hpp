#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "clip_lora/io/mapped_file.hpp"

namespace clip_lora::io {

/// One file of an archive, its place checked against the archive's size.
struct ZipEntry {
  std::uint64_t begin = 0;   ///< of its bytes as stored, within the archive
  std::uint64_t stored = 0;  ///< bytes as stored
  std::uint64_t size = 0;    ///< bytes of the file itself; equal to `stored` unless it is deflated
  std::uint32_t crc = 0;
  bool deflated = false;
};

/// A zip archive as PyTorch writes them: one disk, no encryption, no comments, nothing before the first
/// entry or after the end record, no overlaps, every name once. Whatever else is there is refused, so that no
/// two programs read a file differently. Source: PKWARE APPNOTE 6.3.
class ZipArchive {
 public:
  /// Reads the list of files. `source` begins the message of each CheckpointError.
  ZipArchive(std::shared_ptr<const MappedFile> file, std::string source);

  const std::map<std::string, ZipEntry>& entries() const { return entries_; }
  bool contains(const std::string& name) const { return entries_.contains(name); }

  /// The bytes of an entry that must be there and stored as it is. Their CRC-32 is not looked at.
  std::string_view stored(const std::string& name) const;
  /// The content of an entry, with its CRC-32 checked. One that is deflated may be up to `limit` bytes.
  std::string checked(const std::string& name, std::uint64_t limit) const;
  /// Checks the CRC-32 of every entry that is stored as it is.
  void check_all() const;

 private:
  class Directory;

  [[noreturn]] void fail(const std::string& what) const;
  const ZipEntry& entry(const std::string& name) const;
  std::string_view bytes_of(const ZipEntry& entry) const;
  void check_crc(const std::string& name, std::uint32_t expected, std::string_view content) const;

  std::shared_ptr<const MappedFile> file_;
  std::string source_;
  std::map<std::string, ZipEntry> entries_;
  bool has_crcs_ = false;  // torch.serialization.set_crc32_options(False) writes 0 for each
};

}  // namespace clip_lora::io
