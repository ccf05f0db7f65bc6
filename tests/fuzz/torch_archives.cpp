#include <ATen/ATen.h>

#include "clip_lora/io/checkpoint_files.hpp"
#include "clip_lora/io/torch_pickle.hpp"
#include "forms.hpp"
#include "support/archive_builder.hpp"
#include "support/files.hpp"
#include "targets.hpp"

namespace clip_lora::fuzz {
namespace {

using namespace testing::pickle;

void run(std::string_view input) {
  const auto path = scratch_file("x.pt", torch_archive(input));
  read_whatever_it_is([&] {
    const io::CheckpointFiles files = io::read_checkpoint_files(path);
    for (const auto& [name, tensor] : files.tensors) {
      if (tensor.numel() > 0) tensor.flatten()[-1].item();
    }
  });
  read_whatever_it_is([&] {
    const io::TorchArchive archive = io::read_torch_archive(path);
    if (archive.root.isGenericDict()) io::nested_tensors(archive.root.toGenericDict(), "x: ");
  });
}

std::string members() {
  return dict({{"bias", view(storage("0", 8, "HalfStorage"), 0, {3}, {1})},
               {"weight", view(storage("1", 6), 0, {2, 3}, {3, 1})}});
}

std::vector<std::string> seeds() {
  const std::string nested = dict({{"epoch", integer(3)}, {"state_dict", dict({{"model", members()}})}});
  const std::string memo = std::string("}q\0(", 4) + text("a") + std::string("q\1K\5h\1h\0t\x94u", 11);
  const std::string adapter =
      dict({{"weights",
             dict({{"layer_0",
                    dict({{"q_proj", dict({{"w_lora_A", view(storage("1", 6), 0, {2, 3}, {3, 1})}})}})}})},
            {"metadata", dict({{"r", integer(2)},
                               {"alpha", "G?\xf0" + std::string(6, '\0')},
                               {"params", "](" + text("q") + "e"}})}});
  std::vector<std::string> pickles = {
      whole(members()),
      whole(nested),
      whole(memo),
      whole(adapter),
      whole(instance("Model", members())),
      whole(dict({{"module.x", view(storage("0", 4), 1, {0, 5}, {5, 1})}})),
      whole(dict({{"x", view(storage("0", 16, "ByteStorage"), 15, {1}, {1})}}))};
  pickles.push_back("\x80\x04\x95" + std::string(8, '\0') + "}\x94\x8c\1a\x94\x85\x94\x86\x87\x8f(\x90" +
                    "N\x88\x89s.");
  std::vector<std::string> all = pickles;
  for (const std::string& pickle : pickles) all.push_back(unchecked_archive(pickle));

  auto script = testing::torch_parts(whole(instance("Model", members())),
                                     {std::string(16, '\1'), std::string(24, '\2')});
  const std::string code = "def forward(self):" + std::string(200, ' ') + "pass\n";
  script.push_back({"archive/constants.pkl", whole(")")});
  script.push_back({"archive/code/__torch__.py", testing::deflate(code), 8});
  for (auto& part : script) part.crc = 0;
  for (const std::int64_t size : {static_cast<std::int64_t>(code.size()), std::int64_t{0x7fffffff}}) {
    script.back().size = size;  // of the second it unpacks to far less
    all.push_back(testing::build_zip(script));
  }

  const auto path = scratch_folder() / "seed.pt";  // as LibTorch writes it: with zip64's records
  io::PickleDict whole_dict = io::new_pickle_dict();
  whole_dict.insert("weight", at::arange(6, at::kFloat));
  io::write_torch_pickle(path, whole_dict);
  all.push_back(testing::read_bytes(path));
  return all;
}

}  // namespace

const Target torch_archives = {"torch_archives", run, seeds};

}  // namespace clip_lora::fuzz
