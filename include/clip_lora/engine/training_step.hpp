#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "clip_lora/engine/encoders.hpp"
#include "clip_lora/engine/optimiser.hpp"
#include "clip_lora/image/preprocess.hpp"
#include "clip_lora/io/state_dict.hpp"
#include "clip_lora/lora/adapter.hpp"
#include "clip_lora/model/clip.hpp"

namespace clip_lora::engine {

class ProcessGroup;

/// What is minimised.
enum class Loss {
  kCrossEntropy,  ///< of the images' classes, whose prompts are all encoded in each iteration
  kContrastive    ///< of the batch's image–text pairs: see ops::contrastive_loss
};

/// What a training step is told beside model, adapter and prompts.
struct TrainingStepOptions {
  OptimiserOptions optimiser = {};
  Loss loss = Loss::kCrossEntropy;
  double logit_scale = kLogitScale;
  double margin = 0.0;                ///< of the contrastive loss: see ops::ContrastiveOptions
  double label_smoothing = 0.0;       ///< likewise
  std::int64_t total_iterations = 1;  ///< of the learning rate's schedule
  std::int64_t prompts_per_class =
      1;  ///< T; a class's features are the normalised mean of its prompts' normalised ones
  at::Tensor class_weights =
      {};  ///< [C] float32 on the model's device, of the cross-entropy; undefined: all alike
  std::int64_t dropout_seed = 0;  ///< the masks are a function of it, the iteration and their place alone
  std::int64_t batch_size = 32;   ///< the largest batch that is to be expected, of all processes together
  image::Preprocessing preprocessing = {};  ///< how pixels are normalised
  at::Tensor pictures =
      {};  ///< [n] uint8 on the model's device, what view requests refer to: see ops::resized_views
  std::int64_t largest_side_px = 0;  ///< of the boxes in view requests
  bool share_prefix = true;          ///< what all prompts begin with is computed once
  std::int64_t memory_bytes =
      0;  ///< that activations may take; 0: what is free on a CUDA device, no limit on the CPU
  ProcessGroup* processes = nullptr;  ///< that train together, each on its share of every batch; null: this
                                      ///< one alone. Has to outlive the step
};

/// What an iteration measured.
struct Measurements {
  double loss = 0.0;           ///< the batch's mean, before the update
  double gradient_norm = 0.0;  ///< Euclidean, of all gradients together, without the loss scale
  double loss_scale = 1.0;     ///< that the gradients were computed with; 1 unless in float16
  bool scales_loss = false;    ///< in float16, where some gradients overflow, which lowers the scale
  std::int64_t skipped = 0;    ///< of all iterations so far, those without an update, see TrainingStep
};

/// One iteration of training an adapter: encode prompts and the batch's images, the loss, gradients of what
/// is trained, AdamW. On CUDA an iteration of a known batch size is the replay of one captured graph, text
/// and images on two streams, and nothing waits for the device; unless the adapter is left to autograd (see
/// lora::Adapter::attach), or the texts of a batch do not fit memory at once. In float16 the loss is scaled
/// (Micikevicius et al. 2018), from 1,024 on: the factor 100 on cosines would overflow at
/// torch.amp.GradScaler's 65,536. An iteration whose gradients are not finite makes no update, whatever the type:
/// neither parameters nor averages ever come to hold a NaN by them.
///
/// Several processes, each with a step of the same options, equal one but for rounding: process r of N takes
/// images share_of(B, r, N) of a batch, the contrastive loss holds each pair against all B, gradients are
/// summed in one all-reduce, and every process does the same update. What is dropped depends on an image's or
/// a text's number in the whole batch. With class prompts each process encodes all of them. Nothing is
/// captured then.
class TrainingStep {
 public:
  /// The adapter has to outlive the step, and while that lives, its tensors are views of the step's buffers.
  /// `prompts`: those of a class together; with the contrastive loss none.
  TrainingStep(model::Clip clip, const lora::Adapter& adapter, const model::Prompts& prompts,
               const TrainingStepOptions& options);
  ~TrainingStep();
  TrainingStep(const TrainingStep&) = delete;
  TrainingStep& operator=(const TrainingStep&) = delete;

  /// labels: [B] int64. images: [B, 3, R, R] floating, normalised; or [B, R, R, 3] uint8; or the bytes of B
  /// ops::ViewRequests of options.pictures, [B, sizeof(ops::ViewRequest)] uint8. All on any device: from
  /// pinned memory they are copied behind the host's back. Returns the batch's mean loss before the update,
  /// [] float32 on the device, without waiting for it; the next call overwrites it. With options.processes
  /// `images` are this process's share, labels (and texts) those of the whole batch, and the loss is that
  /// batch's.
  at::Tensor run(const at::Tensor& images, const at::Tensor& labels);
  /// The same with the contrastive loss: `texts` are those of the images, one each.
  at::Tensor run(const at::Tensor& images, const at::Tensor& labels, const model::Prompts& texts);

  /// Forward and backward only: leaves the gradients (times the loss scale) in the adapter's parameters'
  /// .grad.
  at::Tensor compute_gradients(const at::Tensor& images, const at::Tensor& labels);
  at::Tensor compute_gradients(const at::Tensor& images, const at::Tensor& labels,
                               const model::Prompts& texts);

  /// Has the adapter's tensors hold their averages (OptimiserOptions::average_decay) while it is true, for
  /// evaluation; no iteration may run meanwhile. Without averages nothing happens.
  void show_averages(bool shown);

  /// Has what the last run() measured copied to the host, and returns at once; what it returns waits until
  /// it has arrived, which it will have soon after the next iterations.
  std::function<Measurements()> measure() const;

  /// All that changes from iteration to iteration, copied to the CPU: `parameters`, `first_moments` and
  /// `second_moments` [n] float32, `averages` too if they are kept, `counters` [4] float64 (see
  /// ops::AdamWState), `dropout_state` [2] int64 (seed, passes). Waits for the device.
  io::StateDict state() const;
  /// Goes on from where state() was taken of a step of the same model, adapter options and
  /// TrainingStepOptions: what is run from now on is, bit for bit, what that step would have run. Throws
  /// CheckpointError for tensors that are missing, of another shape or type, or that no step can be in.
  void load_state(const io::StateDict& state);

  std::int64_t iteration() const;
  double learning_rate() const;  ///< of the next iteration
  double loss_scale() const;     ///< waits for the device; 1 unless in float16
  /// How a batch too large for memory is split, e.g. "prompts in 4 parts, images in 1"; empty if it is not.
  std::string parts() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace clip_lora::engine
