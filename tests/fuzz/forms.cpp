#include "forms.hpp"

#include <cstdint>
#include <cstring>

#include "support/archive_builder.hpp"

namespace clip_lora::fuzz {

std::string safetensors_file(std::string_view input) {
  if (!input.starts_with('{')) return std::string(input);
  const std::uint64_t length = input.rfind('}') + 1;  // 0 without any
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  return bytes.append(input);
}

std::string torch_archive(std::string_view input) {
  return input.starts_with('\x80') ? unchecked_archive(std::string(input), input.ends_with('s'))
                                   : std::string(input);
}

std::string unchecked_archive(const std::string& pickle, bool is_torchscript) {
  static const std::vector<std::string> storages = {std::string(16, '\1'), std::string(24, '\2'),
                                                    std::string(1024, '\0'), std::string(1536, '\0')};
  std::vector<testing::ZipPart> parts = testing::torch_parts(pickle, storages);
  if (is_torchscript) parts.push_back({"archive/constants.pkl", "x"});
  for (testing::ZipPart& part : parts) part.crc = 0;
  return testing::build_zip(parts);
}

}  // namespace clip_lora::fuzz
