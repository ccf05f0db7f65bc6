#include "targets.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <stdexcept>

#include "support/temporary_folder.hpp"

namespace clip_lora::fuzz {
namespace {

constexpr std::string_view kSeparator = "\n----\n";

}  // namespace

void require(bool holds, const char* what) {
  if (!holds) throw std::logic_error(what);
}

const std::filesystem::path& scratch_folder() {
  static const testing::TemporaryFolder folder;
  return folder.path();
}

std::filesystem::path scratch_file(const std::string& name, std::string_view bytes) {
  std::filesystem::path path = scratch_folder() / name;
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  const bool written = file >= 0 &&
                       ::write(file, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()) &&
                       ::ftruncate(file, static_cast<off_t>(bytes.size())) == 0;
  ::close(file);
  require(written, "the scratch folder cannot be written");
  return path;
}

std::vector<std::string_view> pieces_of(std::string_view input, std::size_t count) {
  std::vector<std::string_view> pieces(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t end = i + 1 < count ? input.find(kSeparator) : std::string_view::npos;
    pieces[i] = input.substr(0, end);
    if (end == std::string_view::npos) break;
    input.remove_prefix(end + kSeparator.size());
  }
  return pieces;
}

std::string joined(const std::vector<std::string>& pieces) {
  std::string text;
  for (std::size_t i = 0; i < pieces.size(); ++i) text.append(i > 0 ? kSeparator : "").append(pieces[i]);
  return text;
}

}  // namespace clip_lora::fuzz
