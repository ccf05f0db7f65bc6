#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <array>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "clip_lora/image/codec.hpp"
#include "clip_lora/image/preprocess.hpp"
#include "clip_lora/image/resample.hpp"
#include "clip_lora/io/safetensors.hpp"
#include "support/test_data.hpp"

namespace clip_lora::image {
namespace {

class PreprocessGolden : public ::testing::Test {
 protected:
  void SetUp() override {
    CLIP_LORA_NEEDS_TEST_DATA();
    const auto folder = clip_lora::testing::test_data() / "golden";
    std::ifstream file(folder / "preprocess.json");
    images_ = nlohmann::json::parse(file).at("images");
    tensors_ = io::read_safetensors(folder / "preprocess.safetensors").tensors;
    ASSERT_FALSE(images_.empty());
  }

  static std::filesystem::path file_of(const nlohmann::json& entry) {
    return entry.at("file").get<std::string>();
  }

  static Image decode(const nlohmann::json& entry) {
    return decode_image(clip_lora::testing::test_data() / "golden" / "images" / file_of(entry));
  }

  /// Expects every byte of `picture` to equal the golden tensor "<the file's stem>/<view>", [height, width,
  /// 3].
  void expect_equal(const Image& picture, const nlohmann::json& entry, const std::string& view) const {
    const auto& golden = tensors_.at(file_of(entry).stem().string() + "/" + view);
    const auto ours = at::from_blob(const_cast<std::uint8_t*>(picture.rgb.data()),
                                    {picture.height, picture.width, 3}, at::kByte);
    ASSERT_EQ(ours.sizes(), golden.sizes()) << entry.at("file");
    EXPECT_EQ(ours.ne(golden).sum().item<std::int64_t>(), 0)
        << "bytes differ in " << entry.at("file") << " " << view;
  }

  nlohmann::json images_;
  io::StateDict tensors_;
};

TEST_F(PreprocessGolden, DecodedPixelsAreEqual) {
  for (const auto& entry : images_) {
    const Image picture = decode(entry);
    EXPECT_EQ(picture.height, entry.at("height"));
    EXPECT_EQ(picture.width, entry.at("width"));
    EXPECT_EQ(std::accumulate(picture.rgb.begin(), picture.rgb.end(), std::int64_t{0}),
              entry.at("mode_decoded_sum"))
        << entry.at("file");
    expect_equal(crop(picture, {0, 0, 8, 8}), entry, "decoded_sha_probe");
  }
}

TEST_F(PreprocessGolden, EvaluationViewsAreEqual) {
  for (const auto& entry : images_) expect_equal(evaluation_view(decode(entry), {}), entry, "eval224");
}

TEST_F(PreprocessGolden, TrainingViewsAreEqual) {
  for (const auto& entry : images_) {
    const auto box = entry.at("crop_top_left_h_w").get<std::array<int, 4>>();
    const TrainingView view{{box[0], box[1], box[2], box[3]}, entry.at("hflip").get<bool>()};
    expect_equal(training_view(decode(entry), view, {}), entry, "train224");
  }
}

}  // namespace
}  // namespace clip_lora::image
