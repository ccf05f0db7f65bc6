#include "clip_lora/train/trainer.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <cstring>
#include <string>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"

namespace clip_lora::train {
namespace {

/// The looks at the validation split during one training, and the best adapter that they saw.
class Looks {
 public:
  Looks(const Validation& validation, const lora::Adapter& adapter, model::Clip& clip)
      : validation_(validation), adapter_(adapter), clip_(clip) {
    TORCH_CHECK(validation.select == Select::kLast || validation.every > 0,
                "the best adapter cannot be selected without looks at the validation split");
  }

  /// Looks if an iteration that has just ended asks for it.
  void after(std::int64_t iteration) {
    if (validation_.every > 0 && iteration % validation_.every == 0) look(iteration);
  }

  /// Looks at the last adapter unless that has been done, then puts the selected one into the model.
  TrainingResult finish(std::int64_t iterations) {
    const bool done = !points_.empty() && points_.back().iteration == iterations;
    if (validation_.every > 0 && !done) look(iterations);
    if (validation_.select == Select::kLast) return {points_, iterations};
    const at::NoGradGuard no_grad;
    const auto parameters = adapter_.parameters();
    for (std::size_t i = 0; i < parameters.size(); ++i) parameters[i].copy_(best_parameters_[i]);
    return {points_, best_.iteration};
  }

 private:
  /// In evaluation mode with the adapter merged; afterwards the model is as before, bit for bit.
  void look(std::int64_t iteration) {
    clip_->eval();
    ValidationPoint point{iteration, 0.0};
    {
      const lora::MergedScope merged(clip_, adapter_);
      point.accuracy = validation_.accuracy();
    }
    clip_->train();
    if (validation_.select == Select::kBest && (points_.empty() || point.accuracy > best_.accuracy))
      keep(point);
    points_.push_back(point);
  }

  void keep(const ValidationPoint& point) {
    best_ = point;
    best_parameters_.clear();
    for (const auto& parameter : adapter_.parameters())
      best_parameters_.push_back(parameter.detach().clone());
  }

  const Validation& validation_;
  const lora::Adapter& adapter_;
  model::Clip& clip_;
  std::vector<ValidationPoint> points_;
  ValidationPoint best_;
  std::vector<at::Tensor> best_parameters_;
};

}  // namespace

NextBatch batches_of(data::TrainingLoader& loader) {
  return [&loader] {
    const data::Batch batch = loader.next();
    return Batch{batch.pixels, batch.labels};
  };
}

NextBatch batches_of(data::TrainingDraws& draws) {
  return [&draws] {
    const data::DrawnBatch batch = draws.next();
    const auto count = static_cast<std::int64_t>(batch.requests.size());
    at::Tensor requests = at::empty({count, static_cast<std::int64_t>(sizeof(ops::ViewRequest))}, at::kByte);
    std::memcpy(requests.mutable_data_ptr(), batch.requests.data(), requests.nbytes());
    return Batch{requests, at::tensor(batch.labels, at::kLong)};
  };
}

TrainingResult train(engine::TrainingStep& step, const lora::Adapter& adapter, const NextBatch& next_batch,
                     model::Clip& clip, std::int64_t iterations, const Validation& validation,
                     const std::function<void(const Progress&)>& on_progress) {
  Looks looks(validation, adapter, clip);
  Progress progress;
  progress.total = iterations;
  at::Tensor loss;
  while (progress.iteration < iterations) {
    const Batch batch = next_batch();
    loss = step.run(batch.images, batch.labels);
    ++progress.iteration;
    progress.images += batch.labels.size(0);
    progress.learning_rate = step.learning_rate();
    progress.loss = [&loss] { return loss.item<double>(); };
    on_progress(progress);
    if (const int signal = pending_interrupt()) {
      throw Interrupted(signal, "interrupted after iteration " + std::to_string(progress.iteration) + " of " +
                                    std::to_string(iterations));
    }
    looks.after(progress.iteration);
  }
  if (loss.defined() && !std::isfinite(loss.item<double>())) {
    throw Error("the training loss is not finite after " + std::to_string(iterations) +
                " iterations (hint: lower --lr, or --precision bf16 or fp32)");
  }
  return looks.finish(iterations);
}

at::Tensor balanced_class_weights(const std::vector<data::Item>& items, std::int64_t classes) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(classes));
  for (const auto& item : items) ++counts.at(static_cast<std::size_t>(item.label));
  at::Tensor weights = at::zeros({classes}, at::kFloat);
  for (std::int64_t label = 0; label < classes; ++label) {
    const std::int64_t count = counts[static_cast<std::size_t>(label)];
    if (count > 0) {
      weights[label] =
          static_cast<double>(items.size()) / (static_cast<double>(classes) * static_cast<double>(count));
    }
  }
  return weights;
}

}  // namespace clip_lora::train
