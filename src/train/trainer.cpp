#include "clip_lora/train/trainer.hpp"

#include <ATen/ATen.h>

#include <cmath>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"

namespace clip_lora::train {

void train(engine::TrainingStep& step, data::TrainingLoader& loader, model::Clip& clip, std::int64_t iterations,
           const std::function<void(const Progress&)>& on_progress) {
  Progress progress;
  progress.total = iterations;
  at::Tensor loss;
  while (progress.iteration < iterations) {
    const data::Batch batch = loader.next();
    const at::Tensor images = data::normalise(batch.pixels, loader.preprocessing(), clip->device(), clip->dtype());
    loss = step.run(images, batch.labels.to(clip->device()));
    ++progress.iteration;
    progress.images += batch.labels.size(0);
    progress.learning_rate = step.learning_rate();
    progress.loss = [&loss] { return loss.item<double>(); };
    on_progress(progress);
    if (const int signal = pending_interrupt()) {
      throw Interrupted(signal, "interrupted after iteration " + std::to_string(progress.iteration) + " of " +
                                    std::to_string(iterations));
    }
  }
  if (loss.defined() && !std::isfinite(loss.item<double>())) {
    throw Error("the training loss is not finite after " + std::to_string(iterations) +
                " iterations (hint: lower --lr, or --precision bf16 or fp32)");
  }
}

}  // namespace clip_lora::train
