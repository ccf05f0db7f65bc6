#include "bench/step_inputs.hpp"

#include <ATen/ATen.h>

#include <cstring>

#include "clip_lora/image/preprocess.hpp"
#include "clip_lora/ops/view_request.hpp"

namespace clip_lora::bench {
namespace {

constexpr std::int64_t kPictureBytes = std::int64_t{kPictureWidth} * kPictureHeight * 3;

}  // namespace

at::Tensor random_pictures(const Settings& settings) {
  return at::randint(256, {kPictures * kPictureBytes}, at::TensorOptions(settings.device).dtype(at::kByte));
}

at::Tensor random_requests(std::mt19937_64& generator, std::int64_t batch) {
  std::uniform_int_distribution<std::int64_t> pick(0, kPictures - 1);
  at::Tensor bytes = at::empty({batch, sizeof(ops::ViewRequest)}, at::kByte);
  for (std::int64_t i = 0; i < batch; ++i) {
    const image::TrainingView view = image::draw_training_view(kPictureHeight, kPictureWidth, generator);
    const ops::ViewRequest request = {.begin = pick(generator) * kPictureBytes,
                                      .width = kPictureWidth,
                                      .height = kPictureHeight,
                                      .top = view.box.top,
                                      .left = view.box.left,
                                      .box_height = view.box.height,
                                      .box_width = view.box.width,
                                      .flip = view.flip ? 1 : 0};
    std::memcpy(bytes[i].data_ptr(), &request, sizeof request);
  }
  return bytes;
}

std::vector<TrainingBatch> random_batches(std::size_t count, std::int64_t batch, std::int64_t classes,
                                          std::int64_t size_px, const Settings& settings) {
  std::mt19937_64 generator(1);
  std::vector<TrainingBatch> batches;
  for (std::size_t i = 0; i < count; ++i) {
    const at::Tensor labels = at::randint(classes, {batch}, at::kLong);
    if (settings.device.is_cuda()) {
      batches.push_back({random_requests(generator, batch).pin_memory(), labels.pin_memory()});
    } else {
      batches.push_back({at::randint(256, {batch, size_px, size_px, 3}, at::kByte), labels});
    }
  }
  return batches;
}

model::Prompts random_texts(const std::vector<std::vector<std::vector<std::int64_t>>>& rows,
                            const at::Tensor& labels, std::mt19937_64& generator) {
  std::uniform_int_distribution<std::size_t> pick(0, rows.size() - 1);
  std::vector<std::vector<std::int64_t>> texts;
  for (std::int64_t i = 0; i < labels.numel(); ++i)
    texts.push_back(rows[pick(generator)][static_cast<std::size_t>(labels[i].item<std::int64_t>())]);
  return model::make_prompts(texts);
}

}  // namespace clip_lora::bench
