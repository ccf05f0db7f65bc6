#include <gmock/gmock.h>
#include <torch/torch.h>

#include <cstring>
#include <map>
#include <set>
#include <tuple>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "clip_lora/model/onnx.hpp"
#include "support/onnx_file.hpp"
#include "support/throws.hpp"
#include "support/tiny_model.hpp"

namespace clip_lora::testing {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::SizeIs;

constexpr std::int64_t kClasses = 7;
constexpr std::int32_t kOnnxFloat = 1;
constexpr std::int32_t kOnnxHalf = 10;
const std::map<std::string, std::string> kMetadata = {{"class_names", "[\"cat\", \"größer\"]"},
                                                      {"size", "24"}};

at::Tensor tensor_of(const OnnxFile::Initializer& initializer) {
  TORCH_CHECK(initializer.element_type == kOnnxFloat || initializer.element_type == kOnnxHalf);
  at::Tensor tensor =
      at::empty(initializer.shape, initializer.element_type == kOnnxFloat ? at::kFloat : at::kHalf);
  TORCH_CHECK(initializer.bytes.size() == tensor.nbytes());
  std::memcpy(tensor.data_ptr(), initializer.bytes.data(), tensor.nbytes());
  return tensor;
}

class OnnxGraphs : public ::testing::TestWithParam<std::tuple<at::ScalarType, model::Activation>> {
 protected:
  OnnxGraphs() {
    model::ClipArchitecture architecture = tiny_architecture();
    architecture.vision.activation = architecture.text.activation = std::get<1>(GetParam());
    architecture.vision.layer_norm_epsilon = 3e-6;
    clip_ = random_clip(architecture);
    class_features_ = at::randn({kClasses, architecture.embedding});
    classifier_ = model::onnx_classifier(clip_, class_features_, dtype(), kMetadata);
    image_tower_ = model::onnx_image_tower(clip_, dtype(), kMetadata);
    text_tower_ = model::onnx_text_tower(clip_, dtype(), kMetadata);
  }

  static at::ScalarType dtype() { return std::get<0>(GetParam()); }

  /// The initializers are the tensors of one tower in full, bit for bit, and `others`, and constants.
  void expect_weights(const std::string& bytes, bool visual, std::set<std::string> others) const {
    const OnnxFile file = read_onnx(bytes);
    for (const auto& [name, tensor] : model::state_dict(clip_)) {
      if (name == "logit_scale" || name.starts_with("visual.") != visual) continue;
      ASSERT_TRUE(file.initializers.contains(name)) << name;
      EXPECT_TRUE(at::equal(tensor_of(file.initializers.at(name)), tensor.to(dtype()))) << name;
      others.insert(name);
    }
    for (const auto& [name, initializer] : file.initializers) {
      EXPECT_TRUE(others.contains(name) || name.starts_with("constant.")) << name;
    }
  }

  model::Clip clip_{nullptr};
  at::Tensor class_features_;
  std::string classifier_;
  std::string image_tower_;
  std::string text_tower_;
};

INSTANTIATE_TEST_SUITE_P(TypesAndActivations, OnnxGraphs,
                         ::testing::Combine(::testing::Values(at::kFloat, at::kHalf),
                                            ::testing::Values(model::Activation::kQuickGelu,
                                                              model::Activation::kGelu)));

TEST_P(OnnxGraphs, OnnxsOwnCheckerAndShapeInferenceAcceptThem) {
  EXPECT_EQ(onnx_complaint(classifier_), "");
  EXPECT_EQ(onnx_complaint(image_tower_), "");
  EXPECT_EQ(onnx_complaint(text_tower_), "");
}

TEST_P(OnnxGraphs, SayTheirVersionsProducerAndMetadata) {
  for (const auto& bytes : {classifier_, image_tower_, text_tower_}) {
    const OnnxFile file = read_onnx(bytes);
    EXPECT_EQ(file.ir_version, 8);
    EXPECT_THAT(file.opsets, ElementsAre(Pair("", 17)));
    EXPECT_EQ(file.producer, "clip_lora");
    EXPECT_EQ(file.metadata, kMetadata);
  }
}

TEST_P(OnnxGraphs, TakeAndGiveFloat32OfAnyBatchSize) {
  EXPECT_THAT(read_onnx(classifier_).inputs, ElementsAre("images: 1 [batch, 3, 24, 24]"));
  EXPECT_THAT(read_onnx(classifier_).outputs,
              ElementsAre("probabilities: 1 [batch, 7]", "logits: 1 [batch, 7]"));
  EXPECT_THAT(read_onnx(image_tower_).inputs, ElementsAre("images: 1 [batch, 3, 24, 24]"));
  EXPECT_THAT(read_onnx(image_tower_).outputs, ElementsAre("image_features: 1 [batch, 48]"));
  EXPECT_THAT(read_onnx(text_tower_).inputs, ElementsAre("tokens: 7 [batch, 77]"));
  EXPECT_THAT(read_onnx(text_tower_).outputs, ElementsAre("text_features: 1 [batch, 48]"));
}

TEST_P(OnnxGraphs, HoldTheirTowersTensorsAndNoOthers) {
  expect_weights(classifier_, /*visual=*/true, {"class_features", "logit_scale"});
  expect_weights(image_tower_, /*visual=*/true, {});
  expect_weights(text_tower_, /*visual=*/false, {});
}

TEST_P(OnnxGraphs, KeepClassFeaturesAndScaleInFloat32) {
  const auto initializers = read_onnx(classifier_).initializers;
  EXPECT_TRUE(at::equal(tensor_of(initializers.at("class_features")), class_features_));
  EXPECT_TRUE(at::equal(tensor_of(initializers.at("logit_scale")), clip_->logit_scale));
}

TEST_P(OnnxGraphs, NormaliseWithTheirTowersEpsilon) {
  const model::ClipArchitecture& architecture = clip_->architecture();
  // Two in every block, ln_pre and ln_post, and ln_final.
  EXPECT_THAT(read_onnx(image_tower_).epsilons,
              AllOf(SizeIs(2 * architecture.vision.layers + 2), Each(3e-6F)));
  EXPECT_THAT(read_onnx(text_tower_).epsilons, AllOf(SizeIs(2 * architecture.text.layers + 1), Each(1e-5F)));
}

TEST(OnnxLimits, AGraphBeyondTwoGibibytesIsRefusedBeforeItsMemoryIsTaken) {
  const model::Clip clip = random_clip();
  const at::Tensor features = at::zeros({1, 1}).expand({12'000'000, clip->architecture().embedding});
  EXPECT_THAT(message_of<ConfigError>([&] { model::onnx_classifier(clip, features, at::kFloat, {}); }),
              AllOf(HasSubstr("at most 2147483647"), HasSubstr("hint: --dtype fp16")));
}

TEST(OnnxLimits, AWeightThatFloat16CannotHoldIsNamed) {
  model::Clip clip = random_clip();
  clip->visual->proj[3][5] = -70000.0;
  EXPECT_NO_THROW(model::onnx_image_tower(clip, at::kFloat, {}));
  EXPECT_NO_THROW(model::onnx_text_tower(clip, at::kHalf, {}));
  EXPECT_THAT(message_of<ConfigError>([&] { model::onnx_image_tower(clip, at::kHalf, {}); }),
              AllOf(HasSubstr("'visual.proj'"), HasSubstr("70000"), HasSubstr("65504")));
}

TEST(OnnxLimits, AModelWithAnAdapterInItIsABug) {
  model::Clip clip = random_clip();
  const std::int64_t width = clip->architecture().text.width;
  clip->transformer->block(1).attn->lora.v =
      ops::LowRank{.a = at::zeros({2, width}), .b = at::zeros({width, 2})};
  EXPECT_THROW(model::onnx_image_tower(clip, at::kFloat, {}), c10::Error);
}

}  // namespace
}  // namespace clip_lora::testing
