#include "file_kind.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

namespace clip_lora::io {
namespace {

using namespace std::string_view_literals;

constexpr std::size_t kTarMagic = 257;

struct Signature {
  std::string_view bytes;  ///< which the file begins with
  const char* meaning;
};

constexpr std::array kSignatures = {
    Signature{"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"sv,
              "a file of PyTorch's format before 1.6, which is no zip archive (hint: load it in Python and "
              "save it again: torch.save(torch.load(file, weights_only=True), file))"},
    Signature{"\x80"sv, "a bare Python pickle (hint: expected is what torch.save or torch.jit.save writes)"},
    Signature{"version https://git-lfs"sv,
              "a Git LFS pointer, not the file itself (hint: run 'git lfs pull' in its repository)"},
    Signature{"\x1f\x8b"sv, "a gzip archive (hint: unpack it)"},
    Signature{"\xfd\x37zXZ"sv, "an xz archive (hint: unpack it)"},
    Signature{"\x28\xb5\x2f\xfd"sv, "a zstd archive (hint: unpack it)"},
    Signature{"BZh"sv, "a bzip2 archive (hint: unpack it)"},
    Signature{"7z\xbc\xaf"sv, "a 7z archive (hint: unpack it)"},
    Signature{"\x89HDF"sv, "an HDF5 file, such as Keras writes"},
    Signature{"GGUF"sv, "a GGUF file, as llama.cpp reads"},
    Signature{"\x93NUMPY"sv, "a NumPy array"},
    Signature{"\x89PNG"sv, "a picture"},
    Signature{"\xff\xd8\xff"sv, "a picture"},
};

std::string_view bytes_of(const MappedFile& file) { return {file.bytes(), file.size()}; }

/// The first 512 bytes after white space, lower-cased.
std::string beginning_of(std::string_view bytes) {
  const auto begin = std::min(bytes.find_first_not_of(" \t\r\n"), bytes.size());
  std::string text(bytes.substr(begin, 512));
  for (char& letter : text) letter = static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
  return text;
}

bool is_text(std::string_view bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](unsigned char byte) {
    return (byte >= 0x20 && byte < 0x7f) || byte == '\n' || byte == '\r' || byte == '\t';
  });
}

}  // namespace

FileKind kind_of(const MappedFile& file) {
  const std::string_view bytes = bytes_of(file);
  if (bytes.starts_with("PK\3\4"sv) || bytes.starts_with("PK\5\6"sv)) return FileKind::kZip;
  // A header's length is 8 bytes, of which the upper ones are 0 or nonsense, but never text.
  if (bytes.size() > 8 && bytes[8] == '{' && !is_text(bytes.substr(0, 8))) return FileKind::kSafetensors;
  if (beginning_of(bytes).starts_with('{')) return FileKind::kJson;
  return FileKind::kOther;
}

std::string looks_like(const MappedFile& file) {
  const std::string_view bytes = bytes_of(file);
  if (bytes.empty()) return "an empty file (hint: was its download cut off?)";
  for (const auto& signature : kSignatures) {
    if (bytes.starts_with(signature.bytes)) return signature.meaning;
  }
  if (bytes.size() > kTarMagic && bytes.substr(kTarMagic).starts_with("ustar")) {
    return "a tar archive, as PyTorch wrote before 0.1.10 (hint: load it in Python and save it again)";
  }
  if (kind_of(file) == FileKind::kZip) return "a zip archive, as torch.save writes";
  if (kind_of(file) == FileKind::kSafetensors) return "a safetensors file";
  if (kind_of(file) == FileKind::kJson) return "a JSON document (hint: name the folder that it lies in)";
  const std::string text = beginning_of(bytes);
  if (text.starts_with("<!doctype") || text.starts_with("<html") || text.starts_with("<?xml")) {
    return "a web page (hint: its address led to an error or a login; download it again)";
  }
  if (is_text(text)) return "a text file";
  return "a file of an unknown kind";
}

}  // namespace clip_lora::io
