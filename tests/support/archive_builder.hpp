#pragma once

#include <zlib.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// PyTorch's zip archives and pickles, byte by byte. Sources: PKWARE APPNOTE 6.3; CPython's
// Lib/pickletools.py.
namespace clip_lora::testing {

template <typename Integer>
std::string little_endian(Integer value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}
inline std::string le16(std::uint64_t value) { return little_endian(static_cast<std::uint16_t>(value)); }
inline std::string le32(std::uint64_t value) { return little_endian(static_cast<std::uint32_t>(value)); }

/// One entry; what is not as it should be is set from outside.
struct ZipPart {
  std::string name;
  std::string bytes;  ///< as stored
  std::uint16_t method = 0;
  std::uint16_t flags = 0x800;
  std::int64_t size = -1;      ///< of the file itself; −1: as stored
  std::int64_t local = -1;     ///< where the list says it begins; −1: where it does
  std::string list_name = "";  ///< "": the same in the list as in front of the bytes
  std::optional<std::uint32_t> crc = std::nullopt;
};

inline std::uint32_t zlib_crc(const std::string& bytes) {
  return static_cast<std::uint32_t>(
      ::crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<uInt>(bytes.size())));
}

/// The fields that an entry's header and the list have in common, from the flags to the sizes.
inline std::string zip_fields(const ZipPart& part) {
  const std::uint64_t size = part.size < 0 ? part.bytes.size() : static_cast<std::uint64_t>(part.size);
  return le16(part.flags) + le16(part.method) + le32(0) + le32(part.crc.value_or(zlib_crc(part.bytes))) +
         le32(part.bytes.size()) + le32(size);
}

inline std::string build_zip(const std::vector<ZipPart>& parts, const std::string& comment = "") {
  std::string archive;
  std::string list;
  for (const auto& part : parts) {
    const std::uint64_t local = part.local < 0 ? archive.size() : static_cast<std::uint64_t>(part.local);
    const std::string& name = part.list_name.empty() ? part.name : part.list_name;
    const std::size_t padding = (64 - (archive.size() + 30 + part.name.size() + 4) % 64) % 64;
    archive += "PK\3\4" + le16(20) + zip_fields(part) + le16(part.name.size()) + le16(padding + 4) +
               part.name + "FB" + le16(padding) + std::string(padding, 'Z') + part.bytes;
    list += "PK\1\2" + le16(20) + le16(20) + zip_fields(part) + le16(name.size()) + le16(0) + le16(0) +
            le16(0) + le16(0) + le32(0) + le32(local) + name;
  }
  return archive + list + "PK\5\6" + le16(0) + le16(0) + le16(parts.size()) + le16(parts.size()) +
         le32(list.size()) + le32(archive.size()) + le16(comment.size()) + comment;
}

/// The bytes without a zlib header, as zip archives hold them.
inline std::string deflate(std::string bytes) {
  std::string packed(bytes.size() + 1024, '\0');
  z_stream stream{};
  ::deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  stream.next_in = reinterpret_cast<Bytef*>(bytes.data());
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  ::deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  ::deflateEnd(&stream);
  return packed;
}

/// The entries of what torch.save writes, with the storages "0", "1", and so on.
inline std::vector<ZipPart> torch_parts(const std::string& pickle, const std::vector<std::string>& storages) {
  std::vector<ZipPart> parts = {{"archive/data.pkl", pickle}, {"archive/byteorder", "little"}};
  for (std::size_t i = 0; i < storages.size(); ++i) {
    parts.push_back({"archive/data/" + std::to_string(i), storages[i]});
  }
  parts.push_back({"archive/version", "3\n"});
  return parts;
}

/// Pieces of a pickle; they go together by `+`.
namespace pickle {

inline std::string whole(const std::string& body) { return "\x80\x02" + body + "."; }
inline std::string text(const std::string& value) { return "X" + le32(value.size()) + value; }
inline std::string integer(std::int64_t value) { return "\x8a\x08" + little_endian(value); }
inline std::string global(const std::string& module, const std::string& name) {
  return "c" + module + "\n" + name + "\n";
}
inline std::string tuple(const std::string& items) { return "(" + items + "t"; }

inline std::string integers(const std::vector<std::int64_t>& values) {
  std::string items;
  for (const auto value : values) items += integer(value);
  return tuple(items);
}

inline std::string dict(const std::vector<std::pair<std::string, std::string>>& members) {
  std::string items;
  for (const auto& [key, value] : members) items += text(key) + value;
  return "}(" + items + "u";
}

inline std::string storage(const std::string& key, std::int64_t elements,
                           const std::string& type = "FloatStorage") {
  return tuple(text("storage") + global("torch", type) + text(key) + text("cpu") + integer(elements)) + "Q";
}

inline std::string view(const std::string& of, std::int64_t offset, const std::vector<std::int64_t>& sizes,
                        const std::vector<std::int64_t>& strides) {
  return global("torch._utils", "_rebuild_tensor_v2") +
         tuple(of + integer(offset) + integers(sizes) + integers(strides) + "\x89" +
               global("collections", "OrderedDict") + ")R") +
         "R";
}

/// An instance of a TorchScript class with the attributes of a dictionary.
inline std::string instance(const std::string& name, const std::string& attributes) {
  return global("__torch__", name) + ")\x81" + attributes + "b";
}

}  // namespace pickle
}  // namespace clip_lora::testing
