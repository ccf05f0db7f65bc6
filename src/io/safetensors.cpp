#include "clip_lora/io/safetensors.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/atomic_file.hpp"
#include "clip_lora/io/json_text.hpp"
#include "clip_lora/io/mapped_file.hpp"

namespace clip_lora::io {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

using nlohmann::json;

constexpr std::size_t kLengthBytes = 8;
constexpr std::uint64_t kLargestHeader =
    16'000'000;                        // parsing takes many times as much; a CLIP's has 0.1 million
constexpr std::size_t kMostAxes = 64;  // LibTorch's own for most operations

struct DtypeName {
  const char* name;
  at::ScalarType type;
};

constexpr std::array kDtypes = {DtypeName{"F64", at::kDouble}, DtypeName{"F32", at::kFloat},
                                DtypeName{"F16", at::kHalf},   DtypeName{"BF16", at::kBFloat16},
                                DtypeName{"I64", at::kLong},   DtypeName{"I32", at::kInt},
                                DtypeName{"I16", at::kShort},  DtypeName{"I8", at::kChar},
                                DtypeName{"U8", at::kByte},    DtypeName{"BOOL", at::kBool}};

/// One entry of the header, checked against the file's size.
struct Entry {
  std::string name;
  at::ScalarType dtype;
  std::vector<std::int64_t> shape;
  std::uint64_t begin;  // within the data that follows the header
  std::uint64_t end;
};

/// Reads one file; every complaint names it.
class SafetensorsReader {
 public:
  explicit SafetensorsReader(const std::filesystem::path& path)
      : source_("safetensors file '" + path.string() + "': "), file_(std::make_shared<MappedFile>(path)) {}

  Safetensors read() const {
    const std::uint64_t header_length = read_header_length();
    const json header =
        parse_json_object({file_->bytes() + kLengthBytes, header_length}, source_ + "header: ");
    const std::uint64_t data_size = file_->size() - kLengthBytes - header_length;
    char* data = file_->bytes() + kLengthBytes + header_length;

    Safetensors result;
    std::vector<Entry> entries;
    for (const auto& [name, value] : header.items()) {
      if (name == "__metadata__") {
        result.metadata = read_metadata(value);
      } else {
        entries.push_back(read_entry(name, value, data_size));
      }
    }
    check_coverage(entries, data_size);
    for (const auto& entry : entries) result.tensors[entry.name] = view(entry, data);
    return result;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { throw CheckpointError(source_ + what); }

  std::uint64_t read_header_length() const {
    if (file_->size() < kLengthBytes) {
      fail("the file has " + std::to_string(file_->size()) +
           " bytes, expected at least 8 (hint: is it a whole file?)");
    }
    std::uint64_t length = 0;
    std::memcpy(&length, file_->bytes(), kLengthBytes);
    const std::uint64_t available = file_->size() - kLengthBytes;
    if (length > kLargestHeader || length > available) {
      fail("its header says it is " + std::to_string(length) + " bytes long, but only " +
           std::to_string(available) + " follow (hint: the file is truncated, or no safetensors file)");
    }
    return length;
  }

  std::map<std::string, std::string> read_metadata(const json& value) const {
    std::map<std::string, std::string> metadata;
    if (!value.is_object())
      fail("__metadata__ is a JSON " + std::string(value.type_name()) + ", expected an object");
    for (const auto& [name, text] : value.items()) {
      if (!text.is_string()) fail("__metadata__." + name + " is no string");
      metadata[name] = text.get<std::string>();
    }
    return metadata;
  }

  Entry read_entry(const std::string& name, const json& value, std::uint64_t data_size) const {
    const std::string tensor = "tensor '" + name + "' ";
    if (!value.is_object() || !value.contains("dtype") || !value.contains("shape") ||
        !value.contains("data_offsets")) {
      fail(tensor + "lacks dtype, shape or data_offsets");
    }
    Entry entry{name, read_dtype(tensor, value["dtype"]), {}, 0, 0};
    const std::uint64_t bytes = read_shape(tensor, value["shape"], entry);
    const json& offsets = value["data_offsets"];
    if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
        !offsets[1].is_number_unsigned()) {
      fail(tensor + "has data_offsets " + brief(offsets) + ", expected two non-negative integers");
    }
    entry.begin = offsets[0].get<std::uint64_t>();
    entry.end = offsets[1].get<std::uint64_t>();
    if (entry.begin > entry.end || entry.end > data_size) {
      fail(tensor + "lies at bytes " + std::to_string(entry.begin) + " to " + std::to_string(entry.end) +
           ", but the file holds " + std::to_string(data_size) +
           " bytes of data (hint: the file is truncated)");
    }
    if (entry.end - entry.begin != bytes) {
      fail(tensor + "has " + std::to_string(entry.end - entry.begin) + " bytes, expected " +
           std::to_string(bytes) + " for its shape " + brief(value["shape"]));
    }
    return entry;
  }

  at::ScalarType read_dtype(const std::string& tensor, const json& value) const {
    for (const auto& dtype : kDtypes) {
      if (value == dtype.name) return dtype.type;
    }
    fail(tensor + "has dtype " + brief(value) + ", expected one of F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL");
  }

  /// Fills entry.shape and returns the tensor's size in bytes.
  std::uint64_t read_shape(const std::string& tensor, const json& shape, Entry& entry) const {
    std::uint64_t bytes = c10::elementSize(entry.dtype);
    std::uint64_t extent = bytes;  // of the axes that are not empty, which LibTorch's strides must hold
    bool valid = shape.is_array() && shape.size() <= kMostAxes;
    for (std::size_t axis = 0; valid && axis < shape.size(); ++axis) {
      valid = shape[axis].is_number_unsigned();
      const std::uint64_t length = valid ? shape[axis].get<std::uint64_t>() : 0;
      valid = valid && (length == 0 || extent <= file_->size() / length);
      if (valid) {
        entry.shape.push_back(static_cast<std::int64_t>(length));
        if (length > 0) extent *= length;
        bytes *= length;
      }
    }
    if (!valid)
      fail(tensor + "has shape " + brief(shape) + ", expected non-negative integers that fit into the file");
    return bytes;
  }

  /// The format allows no holes and no overlaps.
  void check_coverage(std::vector<Entry>& entries, std::uint64_t data_size) const {
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    std::uint64_t covered = 0;
    for (const auto& entry : entries) {
      if (entry.begin != covered) {
        fail("tensor '" + entry.name + "' begins at byte " + std::to_string(entry.begin) + ", expected " +
             std::to_string(covered) + " (tensors overlap or leave a hole)");
      }
      covered = entry.end;
    }
    if (covered != data_size) {
      fail("its tensors end at byte " + std::to_string(covered) + ", but it holds " +
           std::to_string(data_size) + " bytes of data");
    }
  }

  at::Tensor view(const Entry& entry, char* data) const {
    const auto options = at::TensorOptions().dtype(entry.dtype);
    char* begin = data + entry.begin;
    if (reinterpret_cast<std::uintptr_t>(begin) % c10::elementSize(entry.dtype) != 0) {
      at::Tensor copy = at::empty(entry.shape, options);
      if (copy.numel() > 0) std::memcpy(copy.data_ptr(), begin, entry.end - entry.begin);
      return copy;
    }
    return at::from_blob(
        begin, entry.shape, [keep = file_](void*) {}, options);
  }

  std::string source_;
  std::shared_ptr<MappedFile> file_;
};

const char* dtype_name(at::ScalarType type) {
  for (const auto& dtype : kDtypes) {
    if (dtype.type == type) return dtype.name;
  }
  TORCH_CHECK(false, "safetensors has no dtype for ", type);
}

}  // namespace

Safetensors read_safetensors(const std::filesystem::path& path) { return SafetensorsReader(path).read(); }

void write_safetensors(const std::filesystem::path& path, const StateDict& tensors,
                       const std::map<std::string, std::string>& metadata) {
  json header = json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    header[name] = {{"dtype", dtype_name(tensor.scalar_type())},
                    {"shape", tensor.sizes().vec()},
                    {"data_offsets", {offset, offset + tensor.nbytes()}}};
    offset += tensor.nbytes();
  }
  std::string text = header.dump(-1, ' ', false, json::error_handler_t::replace);
  text.append((kLengthBytes - text.size() % kLengthBytes) % kLengthBytes, ' ');  // data aligned to 8 bytes
  const std::uint64_t length = text.size();

  write_atomically(path, [&](const std::filesystem::path& temporary) {
    errno = 0;
    std::ofstream file(temporary, std::ios::binary);
    file.write(reinterpret_cast<const char*>(&length), kLengthBytes);
    file.write(text.data(), static_cast<std::streamsize>(text.size()));
    for (const auto& [name, tensor] : tensors) {
      const at::Tensor whole = tensor.detach().to(at::kCPU).contiguous();
      file.write(static_cast<const char*>(whole.data_ptr()), static_cast<std::streamsize>(whole.nbytes()));
    }
    file.close();
    if (!file) {
      throw ConfigError("cannot write '" + path.string() +
                        "': " + (errno != 0 ? std::strerror(errno) : "unknown reason"));
    }
  });
}

}  // namespace clip_lora::io
