#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "clip_lora/data/loader.hpp"
#include "clip_lora/data/training_draws.hpp"
#include "clip_lora/ops/patches.hpp"
#include "support/gpu.hpp"
#include "support/numbered_pictures.hpp"

namespace clip_lora::data {
namespace {

class DataOnCuda : public clip_lora::testing::NumberedPictures {
 protected:
  std::unique_ptr<TrainingDraws> draws_on(at::Device device) const {
    return TrainingDraws::make(
        items_, preprocessing_,
        {.batch_size = 3, .seed = 5, .workers = 3, .device = device, .store_bytes = 1'000'000'000});
  }

  at::Tensor pixels(const TrainingDraws& draws, DrawnBatch batch) const {
    const auto count = static_cast<std::int64_t>(batch.requests.size());
    const auto bytes = static_cast<std::int64_t>(sizeof(ops::ViewRequest));
    const auto requests = at::from_blob(batch.requests.data(), {count, bytes}, at::kByte);
    return ops::resized_views(draws.store(), requests.to(draws.store().device()), kSize,
                              draws.largest_side());
  }

  at::Tensor evaluation_pixels(const EvaluationLoaderOptions& options) const {
    EvaluationLoader loader(items_, preprocessing_, options);
    std::vector<at::Tensor> batches;
    while (const auto batch = loader.next()) {
      EXPECT_EQ(batch->pixels.is_pinned(), options.pinned);
      batches.push_back(batch->pixels.to(at::kCUDA, /*non_blocking=*/true));
    }
    return at::cat(batches).cpu();
  }
};

TEST_F(DataOnCuda, DrawsAreTheLoadersBatches) {
  CLIP_LORA_NEEDS_GPU();
  for (const int i : {1, 3}) {  // of several pieces
    image::write_png(items_[static_cast<std::size_t>(i)].image,
                     clip_lora::testing::formula_picture(1700, 1700));
  }
  const auto draws = draws_on(at::kCUDA);
  ASSERT_TRUE(draws);
  EXPECT_TRUE(draws->store().is_cuda());
  TrainingLoader loader(items_, preprocessing_, {.batch_size = 3, .seed = 5, .workers = 2});
  for (int i = 0; i < 12; ++i) {
    EXPECT_TRUE(at::equal(pixels(*draws, draws->next()).cpu(), loader.next().pixels));
  }
}

TEST_F(DataOnCuda, PinnedBatchesHoldTheSamePixels) {
  CLIP_LORA_NEEDS_GPU();
  const auto expected = evaluation_pixels({.batch_size = 3, .workers = 2});
  const auto views = std::make_shared<EvaluationViews>(items_.size(), kSize);
  for (int pass = 0; pass < 2; ++pass) {
    EXPECT_TRUE(at::equal(evaluation_pixels({.batch_size = 3, .workers = 2, .views = views, .pinned = true}),
                          expected));
    EXPECT_TRUE(at::equal(
        evaluation_pixels({.batch_size = 3, .workers = 2, .cache_folder = folder_ / "cache", .pinned = true}),
        expected));
  }
}

}  // namespace
}  // namespace clip_lora::data
