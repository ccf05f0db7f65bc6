#include "clip_lora/engine/encoders.hpp"

#include <ATen/ATen.h>

#include <array>
#include <utility>
#include <vector>

#include "clip_lora/ops/elementwise.hpp"
#include "features.hpp"
#include "replay.hpp"

namespace clip_lora::engine {
namespace {

constexpr std::int64_t kPromptRowsPerChunk = 16384;
constexpr std::int64_t kImagesPerChunk = 512;

}  // namespace

at::Tensor classification_logits(const at::Tensor& image_features, const at::Tensor& text_features) {
  return kLogitScale * at::matmul(image_features, text_features.t());
}

at::Tensor prompt_features(const model::Clip& clip, const model::Prompts& prompts) {
  const at::NoGradGuard no_grad;
  const auto chunks = pack(clip, prompts, /*share_prefix=*/true, kPromptRowsPerChunk);
  return ops::l2_normalise(text_tower(clip).features(chunks));
}

ops::PixelNormalisation normalisation_of(const image::Preprocessing& preprocessing) {
  return {preprocessing.rescale_factor, preprocessing.mean, preprocessing.standard_deviation};
}

class ImageEncoder::Impl {
 public:
  Impl(const model::Clip& clip, const image::Preprocessing& preprocessing)
      : clip_(clip),
        normalisation_(normalisation_of(preprocessing)),
        context_(clip->device()),
        tower_(vision_tower(clip)) {}

  at::Device device() const { return clip_->device(); }

  at::Tensor encode(const at::Tensor& pixels) {
    const at::NoGradGuard no_grad;
    if (clip_->device().is_cpu()) {
      return compute(pixels, image_positions(clip_, pixels.size(0)),
                     image_chunks(clip_, pixels.size(0), kImagesPerChunk));
    }
    if (!work_ || pixels.size(0) != pixels_.size(0)) prepare(pixels.sizes());
    Moment& done = done_[calls_++ % done_.size()];
    done.wait();  // so that not all pictures of a pass wait in page-locked memory
    context_.wait_for_current_stream();
    work_->run([&] { pixels_.copy_(pixels, /*non_blocking=*/true); });
    done.mark(context_);
    context_.make_current_stream_wait();
    return features_;
  }

 private:
  void prepare(at::IntArrayRef shape) {
    work_.reset();
    pixels_ = at::empty(shape, at::TensorOptions(clip_->device()).dtype(at::kByte));
    features_ = at::empty({shape[0], clip_->architecture().embedding}, pixels_.options().dtype(at::kFloat));
    positions_ = image_positions(clip_, shape[0]);
    chunks_ = image_chunks(clip_, shape[0], kImagesPerChunk);
    work_ = std::make_unique<ReplayedWork>(context_, [this] {
      const at::NoGradGuard no_grad;
      features_.copy_(compute(pixels_, positions_, chunks_));
    });
  }

  at::Tensor compute(const at::Tensor& pixels, const at::Tensor& positions, std::vector<Chunk> chunks) const {
    const at::Tensor patches = ops::patch_rows(pixels, clip_->architecture().patch_size_px, normalisation_,
                                               clip_->dtype(), /*class_row=*/true);
    const at::Tensor rows = embedded_patches(clip_, patches, positions);
    for (auto& chunk : chunks) chunk.rows = rows.narrow(0, chunk.place.rows, chunk.packing.rows);
    return tower_.features(chunks);
  }

  model::Clip clip_;
  ops::PixelNormalisation normalisation_;
  ReplayContext context_;
  FeatureTower tower_;
  at::Tensor pixels_;
  at::Tensor features_;
  at::Tensor positions_;
  std::vector<Chunk> chunks_;
  std::array<Moment, 3> done_;  // of the last calls
  std::size_t calls_ = 0;
  std::unique_ptr<ReplayedWork> work_;  // the last: it looks at the others
};

ImageEncoder::ImageEncoder(const model::Clip& clip, const image::Preprocessing& preprocessing)
    : impl_(std::make_unique<Impl>(clip, preprocessing)) {}

ImageEncoder::~ImageEncoder() = default;

at::Tensor ImageEncoder::encode(const at::Tensor& pixels) { return impl_->encode(pixels); }

at::Device ImageEncoder::device() const { return impl_->device(); }

}  // namespace clip_lora::engine
