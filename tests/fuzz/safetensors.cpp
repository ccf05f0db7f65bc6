#include "clip_lora/io/safetensors.hpp"

#include <ATen/ATen.h>

#include "forms.hpp"
#include "support/files.hpp"
#include "targets.hpp"

namespace clip_lora::fuzz {
namespace {

void run(std::string_view input) {
  const auto path = scratch_file("x.safetensors", safetensors_file(input));
  read_whatever_it_is([&] {
    const io::Safetensors file = io::read_safetensors(path);
    std::size_t bytes = 0;
    for (const auto& [name, tensor] : file.tensors) bytes += tensor.nbytes();
    require(bytes <= input.size(), "tensors are no larger than their file");
    for (const auto& [name, tensor] : file.tensors) {
      if (tensor.numel() > 0) tensor.view(-1)[-1].item();
    }
  });
}

std::vector<std::string> seeds() {
  const io::StateDict tensors = {{"a", at::arange(6, at::kFloat).view({2, 3})},
                                 {"b.weight", at::ones({3}, at::kHalf)},
                                 {"empty", at::empty({0, 5}, at::kLong)},
                                 {"flag", at::ones({}, at::kBool)}};
  const auto path = scratch_folder() / "seed.safetensors";
  io::write_safetensors(path, tensors, {{"format", "pt"}});
  const std::string whole = testing::read_bytes(path);
  std::vector<std::string> all = {whole, whole.substr(8), whole.substr(0, whole.size() / 2)};
  all.push_back(R"({"x":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})" + std::string(8, '\1'));
  all.push_back(R"({"x":{"dtype":"BF16","shape":[4294967296,4294967296],"data_offsets":[0,0]}})");
  all.push_back(R"({"x":{"dtype":"F64","shape":[0,9223372036854775807],"data_offsets":[0,0]}})");
  all.push_back(R"({"__metadata__":{"a":"b"},"x":)" + std::string(100, '[') + std::string(100, ']') + "}");
  return all;
}

}  // namespace

const Target safetensors = {"safetensors", run, seeds};

}  // namespace clip_lora::fuzz
