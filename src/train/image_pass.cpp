#include "image_pass.hpp"

#include <ATen/ATen.h>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"
#include "clip_lora/engine/encoders.hpp"
#include "clip_lora/ops/elementwise.hpp"

namespace clip_lora::train {

std::int64_t encode_images(const model::Clip& clip, data::EvaluationLoader& loader,
                           const std::function<void(std::int64_t)>& on_progress,
                           const std::function<void(const data::Batch&, const at::Tensor&)>& use) {
  const at::NoGradGuard no_grad;
  engine::ImageEncoder encoder(clip, loader.preprocessing());
  std::int64_t done = 0;
  while (const auto batch = loader.next()) {
    use(*batch, ops::l2_normalise(encoder.encode(batch->pixels)));
    done += batch->labels.size(0);
    on_progress(done);
    stop_if_interrupted(done, "images");
  }
  return done;
}

void stop_if_interrupted(std::int64_t done, const std::string& what) {
  const int signal = pending_interrupt();
  if (signal == 0) return;
  throw Interrupted(signal, "interrupted after " + std::to_string(done) + " " + what + " of the evaluation");
}

at::Tensor rows_not_finite(const at::Tensor& rows) { return rows.isfinite().all(1).logical_not().sum(); }

void require_finite(const at::Tensor& count, std::int64_t rows, const std::string& quantity,
                    const std::string& of_what) {
  const auto bad = count.item<std::int64_t>();
  if (bad == 0) return;
  throw Error("the " + quantity + " of " + std::to_string(bad) + " of " + std::to_string(rows) + " " +
              of_what +
              " are not finite (hint: --precision bf16 or fp32; or the adapter's training diverged)");
}

}  // namespace clip_lora::train
