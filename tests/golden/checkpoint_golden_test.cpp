#include <gmock/gmock.h>
#include <torch/torch.h>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "support/close.hpp"
#include "support/golden.hpp"
#include "support/throws.hpp"

namespace clip_lora::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

model::LoadedClip loaded(const std::string& name) {
  return model::load_clip(io::read_checkpoint_files(golden_file(name)));
}

TEST(CheckpointGolden, ATorchScriptArchiveGivesTheFeaturesOfTheSameWeightsInSafetensors) {
  CLIP_LORA_NEEDS_TEST_DATA();
  const at::NoGradGuard no_grad;
  auto archive = loaded("tiny_clip_jit.pt");
  auto safetensors = loaded("tiny_clip.safetensors");
  EXPECT_EQ(archive.clip->architecture(), safetensors.clip->architecture());
  EXPECT_EQ(model::fingerprint(archive.clip), model::fingerprint(safetensors.clip));
  const auto images = golden_tensors("tiny_forward.safetensors").at("images");
  EXPECT_TRUE(identical(archive.clip->encode_image(images), safetensors.clip->encode_image(images)));
}

TEST(CheckpointGolden, OpenAisArchiveSaysItsActivationAndABareFileDoesNot) {
  CLIP_LORA_NEEDS_TEST_DATA();
  EXPECT_THAT(loaded("tiny_clip_jit.pt").warnings, IsEmpty());
  EXPECT_EQ(loaded("tiny_clip.safetensors").warnings.size(), 1U);
}

TEST(CheckpointGolden, AStateDictWithoutTheEmbeddingIsRefusedNamingIt) {
  CLIP_LORA_NEEDS_TEST_DATA();
  const auto message = message_of<CheckpointError>([] { loaded("plain_state_dict_no_embedding.pt"); });
  EXPECT_THAT(message, AllOf(HasSubstr("plain_state_dict_no_embedding.pt"),
                             HasSubstr("'token_embedding.weight' is missing")));
}

}  // namespace
}  // namespace clip_lora::testing
