// libFuzzer's entry to the target that CLIP_LORA_FUZZ_TARGET names. `<fuzzer> --seeds FOLDER` writes its
// first inputs.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>

#include "targets.hpp"

namespace {

constexpr const auto& kTarget = clip_lora::fuzz::CLIP_LORA_FUZZ_TARGET;

void write_seeds(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  std::size_t number = 0;
  for (const std::string& seed : kTarget.seeds()) {
    std::ofstream file(folder / (std::string("seed") + std::to_string(number++)), std::ios::binary);
    file.write(seed.data(), static_cast<std::streamsize>(seed.size()));
    if (!file.flush()) throw std::runtime_error("cannot write to '" + folder.string() + "'");
  }
  std::cout << number << " seeds in '" << folder.string() << "'\n";
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* count, char*** arguments) {
  if (*count == 3 && std::strcmp((*arguments)[1], "--seeds") == 0) {
    write_seeds((*arguments)[2]);
    std::exit(0);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  kTarget.run({reinterpret_cast<const char*>(bytes), size});
  return 0;
}
