#include <gtest/gtest.h>
#include <torch/torch.h>

#include "clip_lora/model/checkpoint.hpp"

namespace clip_lora::testing {
namespace {

struct Published {
  std::string name;
  std::int64_t parameters;  ///< of OpenAI's files; of OpenCLIP's for H/14
};

class PublishedModel : public ::testing::TestWithParam<Published> {};

std::int64_t parameters_of(const model::Clip& clip) {
  std::int64_t count = 0;
  for (const auto& [name, tensor] : model::state_dict(clip)) count += tensor.numel();
  return count;
}

TEST_P(PublishedModel, HasThePublishedNumberOfParameters) {
  const model::Clip unset(*model::published_architecture(GetParam().name));  // takes no memory
  EXPECT_EQ(parameters_of(unset), GetParam().parameters);
}

TEST_P(PublishedModel, LoadsAtFullSizeAndEncodes) {
  const auto architecture = *model::published_architecture(GetParam().name);
  io::CheckpointFiles files;
  files.path = "model";
  for (const auto& [name, tensor] : model::state_dict(model::Clip(architecture))) {
    files.tensors[name] =
        at::full({}, 0.01, at::kHalf).expand(tensor.sizes());  // one number, whatever the shape
  }
  const at::NoGradGuard no_grad;
  auto loaded = model::load_clip(files, architecture.vision.activation);
  EXPECT_EQ(loaded.clip->architecture(), architecture);
  EXPECT_EQ(parameters_of(loaded.clip), GetParam().parameters);
  const auto image = at::zeros({1, 3, architecture.image_size_px, architecture.image_size_px});
  EXPECT_EQ(loaded.clip->encode_image(image).sizes(), (std::vector<std::int64_t>{1, architecture.embedding}));
}

INSTANTIATE_TEST_SUITE_P(
    , PublishedModel,
    ::testing::Values(Published{"ViT-B/32", 151'277'313}, Published{"ViT-B/16", 149'620'737},
                      Published{"ViT-L/14", 427'616'513}, Published{"ViT-L/14@336px", 427'944'193},
                      Published{"ViT-H/14", 986'109'441}),
    [](const auto& test) {
      std::string name = test.param.name;
      std::erase_if(name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); });
      return name;
    });

}  // namespace
}  // namespace clip_lora::testing
