#include <gmock/gmock.h>

#include "clip_lora/io/checkpoint_files.hpp"
#include "clip_lora/io/torch_pickle.hpp"
#include "support/close.hpp"
#include "support/golden.hpp"

namespace clip_lora::testing {
namespace {

TEST(TorchArchive, TorchScriptHoldsTheTensorsOfTheSafetensorsFileBitByBit) {
  CLIP_LORA_NEEDS_TEST_DATA();
  const auto files = io::read_checkpoint_files(golden_file("tiny_clip_jit.pt"));
  EXPECT_EQ(files.container, io::Container::kTorchScript);
  EXPECT_THAT(files.torchscript_code, ::testing::HasSubstr("sigmoid"));
  const auto expected = golden_tensors("tiny_clip.safetensors");
  EXPECT_EQ(files.tensors.size(), expected.size());
  for (const auto& [name, tensor] : expected) {
    ASSERT_TRUE(files.tensors.contains(name)) << name;
    EXPECT_TRUE(identical(files.tensors.at(name), tensor)) << name;
  }
}

TEST(TorchArchive, AStateDictHoldsTheTensorsOfTheSafetensorsFileButTheEmbedding) {
  CLIP_LORA_NEEDS_TEST_DATA();
  const auto files = io::read_checkpoint_files(golden_file("plain_state_dict_no_embedding.pt"));
  EXPECT_EQ(files.container, io::Container::kTorchZip);
  const auto expected = golden_tensors("tiny_clip.safetensors");
  EXPECT_EQ(files.tensors.size() + 1, expected.size());
  EXPECT_FALSE(files.tensors.contains("token_embedding.weight"));
  for (const auto& [name, tensor] : files.tensors) EXPECT_TRUE(identical(tensor, expected.at(name))) << name;
}

TEST(TorchArchive, TheAuthorsAdapterHoldsItsSettings) {
  CLIP_LORA_NEEDS_TEST_DATA();
  const auto root = io::read_torch_archive(golden_file("reference_lora_weights.pt")).root.toGenericDict();
  const auto metadata = root.at("metadata").toGenericDict();
  EXPECT_EQ(metadata.at("r").toInt(), 2);
  EXPECT_EQ(metadata.at("encoder").toStringRef(), "both");
  const auto query =
      root.at("weights").toGenericDict().at("layer_0").toGenericDict().at("q_proj").toGenericDict();
  EXPECT_EQ(query.at("w_lora_A").toTensor().sizes(), (at::IntArrayRef{2, 128}));
}

}  // namespace
}  // namespace clip_lora::testing
