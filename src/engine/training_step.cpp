#include "clip_lora/engine/training_step.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <sstream>
#include <tuple>
#include <utility>
#include <vector>

#include "clip_lora/core/device.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/engine/encoders.hpp"
#include "clip_lora/ops/adamw.hpp"
#include "clip_lora/ops/classification.hpp"
#include "clip_lora/ops/contrastive.hpp"
#include "clip_lora/ops/patches.hpp"
#include "features.hpp"
#include "replay.hpp"
#include "updates.hpp"

namespace clip_lora::engine {
namespace {

constexpr double kInitialLossScale = 1024.0;
constexpr double kUsableMemory = 0.9;  // the rest is for temporaries and the allocator's waste
constexpr std::int64_t kEverything = std::int64_t{1} << 40;

/// Where a measurement stands.
enum Measured { kLoss, kGradientNorm, kLossScale };

/// Throws CheckpointError unless `state` has `expected`'s names, shapes and types.
void require_same_form(const io::StateDict& state, const io::StateDict& expected) {
  const auto form = [](const at::Tensor& tensor) {
    std::ostringstream text;
    text << tensor.scalar_type() << " " << tensor.sizes();
    return text.str();
  };
  for (const auto& [name, tensor] : expected) {
    const auto found = state.find(name);
    const std::string got = found == state.end() ? "nothing" : form(found->second);
    if (got != form(tensor)) {
      throw CheckpointError("training state: '" + name + "' is " + got + ", expected " + form(tensor));
    }
  }
  for (const auto& [name, tensor] : state) {
    if (!expected.contains(name)) throw CheckpointError("training state: unexpected tensor '" + name + "'");
  }
}

std::int64_t rows_of(const std::vector<Chunk>& chunks) {
  std::int64_t rows = 0;
  for (const auto& chunk : chunks) rows += chunk.packing.rows;
  return rows;
}

}  // namespace

class TrainingStep::Impl {
 public:
  Impl(model::Clip clip, const lora::Adapter& adapter, const model::Prompts& prompts,
       const TrainingStepOptions& options)
      : clip_(std::move(clip)),
        options_(options),
        device_(clip_->device()),
        embed_context_(device_),
        context_(device_),
        side_(device_),
        dropout_state_(at::tensor({options.dropout_seed, std::int64_t{0}}, at::kLong).to(device_)),
        updates_(clip_, adapter, dropout_state_, text_rows(prompts, options),
                 /*vision_rows=*/options.batch_size * rows_per_image()),
        text_(text_tower(clip_, &updates_)),
        vision_(vision_tower(clip_, &updates_)),
        text_by_autograd_(clip_, adapter, lora::Tower::kText),
        vision_by_autograd_(clip_, adapter, lora::Tower::kVision),
        trains_text_(adapter.adapts(lora::Tower::kText)),
        trains_vision_(adapter.adapts(lora::Tower::kVision)),
        measured_(at::tensor({0.0F, 0.0F, 1.0F}).to(device_)),
        loss_scaling_{.enabled = clip_->dtype() == at::kHalf} {
    const at::NoGradGuard no_grad;
    if (has_fixed_prompts()) check_options(prompts.ids.size(0));
    optimiser_.parameters = updates_.parameters();
    optimiser_.gradients = updates_.gradients();
    optimiser_.first_moments = at::zeros_like(optimiser_.parameters);
    optimiser_.second_moments = at::zeros_like(optimiser_.parameters);
    optimiser_.counters = at::zeros({4}, at::TensorOptions(device_).dtype(at::kDouble));
    if (loss_scaling_.enabled) optimiser_.counters[2] = kInitialLossScale;
    if (options_.optimiser.average_decay > 0.0) optimiser_.averages = optimiser_.parameters.clone();
    plan(prompts);
    clip_->train();  // for as long as the step lives
  }

  ~Impl() {
    batches_.clear();
    clip_->eval();
  }

  /// `texts`: the images', with the contrastive loss; else null.
  at::Tensor run(const at::Tensor& images, const at::Tensor& labels, const model::Prompts* texts,
                 bool update) {
    const at::NoGradGuard no_grad;
    TORCH_CHECK(has_fixed_prompts() == (texts == nullptr), "texts of a batch are for the contrastive loss");
    TORCH_CHECK(labels.dim() == 1 && labels.size(0) == images.size(0), "labels ", labels.sizes(),
                " do not fit images ", images.sizes());
    Batch& batch = batch_for(images, labels, update);
    // What comes from the host waits for nobody: it is embedded beside the iteration before.
    if (images.is_cuda() || labels.is_cuda()) embed_context_.wait_for_current_stream();
    batch.free.wait();  // so the host is never more than a few iterations ahead
    batch.embed->run([&] {
      batch.images.copy_(images, /*non_blocking=*/true);
      batch.labels.copy_(labels, /*non_blocking=*/true);
    });
    context_.wait_for(embed_context_);
    if (texts != nullptr) {
      TORCH_CHECK(texts->ids.size(0) == labels.size(0), "expected a text for each of ", labels.size(0),
                  " images");
      text_chunks_ = pack(clip_, *texts, /*share_prefix=*/false, text_rows_per_chunk_);
      if (trains_text_ && updates_.are_explicit()) run_frozen_blocks(text_.tower(), text_chunks_);
    }
    context_.wait_for_current_stream();
    batch.iterate->run();
    batch.free.mark(context_);
    context_.make_current_stream_wait();
    if (update) ++iteration_;
    return measured_.select(0, kLoss);
  }

  std::function<Measurements()> measure() const {
    const at::NoGradGuard no_grad;
    const at::Tensor host =
        at::empty(measured_.sizes(), at::TensorOptions(at::kFloat).pinned_memory(device_.is_cuda()));
    host.copy_(measured_, /*non_blocking=*/true);
    const auto arrived = std::make_shared<Moment>();
    arrived->mark_current_stream(device_);
    return [host, arrived] {
      arrived->wait();
      const float* values = host.const_data_ptr<float>();
      return Measurements{values[kLoss], values[kGradientNorm], values[kLossScale]};
    };
  }

  void show_averages(bool shown) {
    if (!optimiser_.averages.defined() || shown == shows_averages_) return;
    const at::NoGradGuard no_grad;
    at::Tensor parameters = optimiser_.parameters.clone();
    optimiser_.parameters.copy_(optimiser_.averages);
    optimiser_.averages.copy_(parameters);
    shows_averages_ = shown;
  }

  io::StateDict state() const {
    TORCH_CHECK(!shows_averages_, "a state has no averages in place of the parameters");
    io::StateDict copies;
    for (const auto& [name, tensor] : changing_tensors()) {
      copies[name] = tensor.to(at::kCPU, tensor.scalar_type(), /*non_blocking=*/false, /*copy=*/true);
    }
    return copies;
  }

  /// In place, as the graphs know the tensors' addresses.
  void load_state(const io::StateDict& state) {
    const io::StateDict here = changing_tensors();
    require_same_form(state, here);
    const double iteration = state.at("counters")[0].item<double>();
    const double scale = state.at("counters")[2].item<double>();
    if (!(iteration >= 0.0 && iteration <= static_cast<double>(options_.total_iterations)) ||
        iteration != std::floor(iteration) || (loss_scaling_.enabled && !(scale > 0.0))) {
      throw CheckpointError("training state: 'counters' say iteration " + std::to_string(iteration) +
                            " and loss scale " + std::to_string(scale) + ", expected a whole number up to " +
                            std::to_string(options_.total_iterations) + " and a positive one");
    }
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : here) tensor.copy_(state.at(name));
    iteration_ = static_cast<std::int64_t>(iteration);
  }

  std::int64_t iteration() const { return iteration_; }
  const TrainingStepOptions& options() const { return options_; }
  double loss_scale() const { return loss_scaling_.enabled ? optimiser_.counters[2].item<double>() : 1.0; }

  std::string parts() const {
    const std::size_t images =
        static_cast<std::size_t>((options_.batch_size + images_per_chunk_ - 1) / images_per_chunk_);
    const std::size_t texts =
        has_fixed_prompts() ? text_chunks_.size() : static_cast<std::size_t>(text_parts_);
    if (texts <= 1 && images <= 1) return {};
    return "prompts in " + std::to_string(texts) + " parts, images in " + std::to_string(images);
  }

 private:
  /// The places of a batch of one shape, and what is done with it.
  struct Batch {
    at::Tensor images;
    at::Tensor labels;
    at::Tensor positions;       // see image_positions
    at::Tensor rows;            // of the images, embedded
    std::vector<Chunk> chunks;  // without rows
    Moment free;                // when an iteration was done with them
    std::unique_ptr<ReplayedWork> embed;
    std::unique_ptr<ReplayedWork> iterate;
  };

  /// Two of a shape, which take turns: one is filled while an iteration is at the other.
  struct Pair {
    std::array<Batch, 2> batches;
    std::size_t next = 0;
  };

  io::StateDict changing_tensors() const {
    io::StateDict tensors = {{"parameters", optimiser_.parameters},
                             {"first_moments", optimiser_.first_moments},
                             {"second_moments", optimiser_.second_moments},
                             {"counters", optimiser_.counters},
                             {"dropout_state", dropout_state_}};
    if (optimiser_.averages.defined()) tensors["averages"] = optimiser_.averages;
    return tensors;
  }

  bool has_fixed_prompts() const { return options_.loss == Loss::kCrossEntropy; }

  /// Rows of the text tower at once; with texts of the batch a guess.
  static std::int64_t text_rows(const model::Prompts& prompts, const TrainingStepOptions& options) {
    constexpr std::int64_t kRowsPerText = 16;
    return prompts.eot.defined() ? prompts.eot.sum().item<std::int64_t>() : options.batch_size * kRowsPerText;
  }

  std::int64_t rows_per_image() const { return clip_->visual->positional_embedding.size(0); }

  void check_options(std::int64_t prompts) const {
    const std::int64_t per_class = options_.prompts_per_class;
    TORCH_CHECK(per_class >= 1 && prompts % per_class == 0, prompts, " prompts are not ", per_class,
                " for each class");
    TORCH_CHECK(!options_.class_weights.defined() || options_.class_weights.numel() == prompts / per_class,
                "expected a weight for each of ", prompts / per_class, " classes");
  }

  void plan(const model::Prompts& prompts);
  Batch& batch_for(const at::Tensor& images, const at::Tensor& labels, bool update);
  void prepare(Batch& batch, const at::Tensor& images, const at::Tensor& labels, bool update);
  at::Tensor patches(const at::Tensor& images) const;
  void embed(Batch& batch);
  void compute(const Batch& batch);
  ops::ContrastiveLoss loss_of(const at::Tensor& image_features, const at::Tensor& text_features,
                               const Batch& batch);
  at::Tensor text_features();
  at::Tensor image_features(const std::vector<Chunk>& chunks);
  void measure_gradients();

  model::Clip clip_;
  TrainingStepOptions options_;
  at::Device device_;
  ReplayContext embed_context_;
  ReplayContext context_;
  SideStream side_;
  at::Tensor dropout_state_;  // seed and number of passes
  Updates updates_;
  FeatureTower text_;
  FeatureTower vision_;
  AutogradTower text_by_autograd_;  // in their place where updates_ are not explicit
  AutogradTower vision_by_autograd_;
  bool trains_text_;
  bool trains_vision_;
  std::vector<Chunk> text_chunks_;   // at the first block with updates
  at::Tensor frozen_text_features_;  // [C · T, E], if the text tower is not trained
  std::int64_t text_parts_ = 1;
  std::int64_t text_rows_per_chunk_ = kEverything;
  std::int64_t images_per_chunk_ = kEverything;
  at::Tensor positions_;  // [B · L, D] for the largest batch: the same for every image
  ops::AdamWState optimiser_;
  at::Tensor measured_;  // [3] float32 by Measured, of the last iteration
  ops::LossScaling loss_scaling_;
  bool shows_averages_ = false;
  std::int64_t iteration_ = 0;
  std::map<std::tuple<std::vector<std::int64_t>, at::ScalarType, bool>, Pair>
      batches_;  // the last: they use the others
};

/// Packs the prompts, in as many chunks as it takes for the activations to fit memory.
void TrainingStep::Impl::plan(const model::Prompts& prompts) {
  const bool share_prefix = options_.share_prefix && updates_.may_share_prefix();
  if (has_fixed_prompts() && !trains_text_) {
    frozen_text_features_ =
        text_tower(clip_).features(pack(clip_, prompts, /*share_prefix=*/true, kEverything));
  } else if (has_fixed_prompts()) {
    text_chunks_ = pack(clip_, prompts, share_prefix, kEverything);
  }
  if (!updates_.are_explicit()) return;
  const auto bytes = static_cast<std::int64_t>(c10::elementSize(clip_->dtype()));
  // Texts of a batch may all be as long as the context.
  const std::int64_t text_row_count = has_fixed_prompts()
                                          ? rows_of(text_chunks_)
                                          : options_.batch_size * clip_->architecture().context_length;
  const std::int64_t text_bytes = trains_text_ ? text_.tape_bytes_per_row(bytes) * text_row_count : 0;
  const std::int64_t vision_bytes =
      vision_.tape_bytes_per_row(bytes) * rows_per_image() * options_.batch_size;
  const std::int64_t free = options_.memory_bytes > 0 ? options_.memory_bytes : free_memory_bytes(device_);
  // The positions, and the embedded images of two batches, full ones and the epoch's last.
  const std::int64_t fixed =
      5 * options_.batch_size * rows_per_image() * clip_->architecture().vision.width * bytes;
  const auto budget = static_cast<std::int64_t>(kUsableMemory * static_cast<double>(free)) - fixed;
  const std::int64_t texts = has_fixed_prompts() ? prompts.ids.size(0) : options_.batch_size;
  std::int64_t image_parts = 1;
  while (text_bytes / text_parts_ + vision_bytes / image_parts > budget) {
    const bool split_text = text_bytes / text_parts_ > vision_bytes / image_parts;
    if (split_text ? text_parts_ >= texts : image_parts >= options_.batch_size) break;
    ++(split_text ? text_parts_ : image_parts);
  }
  images_per_chunk_ = (options_.batch_size + image_parts - 1) / image_parts;
  if (text_parts_ > 1) text_rows_per_chunk_ = (text_row_count + text_parts_ - 1) / text_parts_;
  if (!has_fixed_prompts() || !trains_text_) return;
  if (text_parts_ > 1) text_chunks_ = pack(clip_, prompts, share_prefix, text_rows_per_chunk_);
  run_frozen_blocks(text_.tower(), text_chunks_);
}

TrainingStep::Impl::Batch& TrainingStep::Impl::batch_for(const at::Tensor& images, const at::Tensor& labels,
                                                         bool update) {
  Pair& pair = batches_[{images.sizes().vec(), images.scalar_type(), update}];
  Batch& batch = pair.batches[pair.next++ % pair.batches.size()];
  if (!batch.iterate) prepare(batch, images, labels, update);
  return batch;
}

void TrainingStep::Impl::prepare(Batch& batch, const at::Tensor& images, const at::Tensor& labels,
                                 bool update) {
  batch.images = at::empty(images.sizes(), at::TensorOptions(device_).dtype(images.scalar_type()));
  batch.labels = at::empty(labels.sizes(), at::TensorOptions(device_).dtype(at::kLong));
  const std::int64_t rows = labels.size(0) * rows_per_image();
  if (!positions_.defined() || positions_.size(0) < rows) {
    positions_ = image_positions(clip_, std::max(labels.size(0), options_.batch_size));
  }
  batch.positions = positions_.narrow(0, 0, rows);
  batch.rows = at::empty_like(batch.positions);
  batch.chunks = image_chunks(clip_, labels.size(0), images_per_chunk_);
  embed_context_.wait_for_current_stream();  // which made the positions
  batch.embed = std::make_unique<ReplayedWork>(embed_context_, [this, &batch] {
    const at::NoGradGuard no_grad;
    embed(batch);
  });
  const bool stays_in_place = has_fixed_prompts() && updates_.are_explicit();
  batch.iterate = std::make_unique<ReplayedWork>(
      context_,
      [this, &batch, update] {
        const at::NoGradGuard no_grad;
        compute(batch);
        if (!update) return;
        side_.run([&] { measure_gradients(); });  // beside the update, which only reads the gradients
        ops::adamw_step(optimiser_, adamw_options(options_.optimiser, options_.total_iterations),
                        loss_scaling_);
        side_.join();
      },
      /*captured=*/stays_in_place);
}

at::Tensor TrainingStep::Impl::patches(const at::Tensor& images) const {
  const auto& architecture = clip_->architecture();
  const std::int64_t patch = architecture.patch_size_px;
  if (images.scalar_type() != at::kByte) return patches_of(images, patch, clip_->dtype());
  const at::Tensor pixels = images.dim() == 4
                                ? images
                                : ops::resized_views(options_.pictures, images, architecture.image_size_px,
                                                     options_.largest_side_px);
  return ops::patch_rows(pixels, patch, normalisation_of(options_.preprocessing), clip_->dtype(),
                         /*class_row=*/true);
}

/// What no parameter has a part in.
void TrainingStep::Impl::embed(Batch& batch) {
  // Copied out of the graphs' memory, where the next batch's temporaries may come to lie.
  batch.rows.copy_(embedded_patches(clip_, patches(batch.images), batch.positions));
}

at::Tensor TrainingStep::Impl::text_features() {
  if (!trains_text_) return has_fixed_prompts() ? frozen_text_features_ : text_.features(text_chunks_);
  return updates_.are_explicit() ? text_.forward(text_chunks_) : text_by_autograd_.forward(text_chunks_);
}

at::Tensor TrainingStep::Impl::image_features(const std::vector<Chunk>& chunks) {
  if (!trains_vision_) return vision_.features(chunks);
  return updates_.are_explicit() ? vision_.forward(chunks) : vision_by_autograd_.forward(chunks);
}

/// The loss and its gradients in the features of towers that are trained.
ops::ContrastiveLoss TrainingStep::Impl::loss_of(const at::Tensor& image_features,
                                                 const at::Tensor& text_features, const Batch& batch) {
  at::Tensor loss_scale;
  if (loss_scaling_.enabled) {
    loss_scale = measured_.narrow(0, kLossScale, 1).copy_(optimiser_.counters.narrow(0, 2, 1));
  }
  if (options_.loss == Loss::kContrastive) {
    return ops::contrastive_loss(image_features, text_features, batch.labels,
                                 {.logit_scale = options_.logit_scale,
                                  .margin = options_.margin,
                                  .label_smoothing = options_.label_smoothing,
                                  .loss_scale = loss_scale},
                                 trains_vision_, trains_text_);
  }
  const auto [loss, d_images, d_texts] =
      ops::classification_loss(image_features, text_features, batch.labels,
                               {.logit_scale = options_.logit_scale,
                                .prompts_per_class = options_.prompts_per_class,
                                .class_weights = options_.class_weights,
                                .loss_scale = loss_scale},
                               trains_vision_, trains_text_);
  return {loss, d_images, d_texts};
}

/// Forward and backward. The text runs beside the images.
void TrainingStep::Impl::compute(const Batch& batch) {
  const bool is_explicit = updates_.are_explicit();
  updates_.write_weights();
  if (!is_explicit) optimiser_.gradients.zero_();
  at::Tensor texts;
  side_.run([&] { texts = text_features(); });
  std::vector<Chunk> chunks = batch.chunks;
  for (auto& chunk : chunks) chunk.rows = batch.rows.narrow(0, chunk.place.rows, chunk.packing.rows);
  if (trains_vision_ && is_explicit) run_frozen_blocks(vision_.tower(), chunks);
  const at::Tensor images = image_features(chunks);
  side_.join();

  const ops::ContrastiveLoss loss = loss_of(images, texts, batch);
  measured_.select(0, kLoss).copy_(loss.loss);

  if (is_explicit) {
    if (trains_text_) side_.run([&] { text_.backward(loss.d_text_features, text_chunks_); });
    if (trains_vision_) vision_.backward(loss.d_image_features, chunks);
    if (trains_text_) side_.join();
  } else {
    if (trains_text_) text_by_autograd_.backward(loss.d_text_features);
    if (trains_vision_) vision_by_autograd_.backward(loss.d_image_features);
  }
  dropout_state_.narrow(0, 1, 1).add_(1);
}

/// ‖g‖ without the loss scale.
void TrainingStep::Impl::measure_gradients() {
  at::Tensor norm = measured_.select(0, kGradientNorm);
  at::linalg_vector_norm_out(norm, optimiser_.gradients, 2.0);
  if (loss_scaling_.enabled) norm.div_(measured_.select(0, kLossScale));
}

TrainingStep::TrainingStep(model::Clip clip, const lora::Adapter& adapter, const model::Prompts& prompts,
                           const TrainingStepOptions& options)
    : impl_(std::make_unique<Impl>(std::move(clip), adapter, prompts, options)) {}

TrainingStep::~TrainingStep() = default;

at::Tensor TrainingStep::run(const at::Tensor& images, const at::Tensor& labels) {
  return impl_->run(images, labels, /*texts=*/nullptr, /*update=*/true);
}

at::Tensor TrainingStep::run(const at::Tensor& images, const at::Tensor& labels,
                             const model::Prompts& texts) {
  return impl_->run(images, labels, &texts, /*update=*/true);
}

at::Tensor TrainingStep::compute_gradients(const at::Tensor& images, const at::Tensor& labels) {
  return impl_->run(images, labels, /*texts=*/nullptr, /*update=*/false);
}

at::Tensor TrainingStep::compute_gradients(const at::Tensor& images, const at::Tensor& labels,
                                           const model::Prompts& texts) {
  return impl_->run(images, labels, &texts, /*update=*/false);
}

void TrainingStep::show_averages(bool shown) { impl_->show_averages(shown); }

std::function<Measurements()> TrainingStep::measure() const { return impl_->measure(); }

io::StateDict TrainingStep::state() const { return impl_->state(); }

void TrainingStep::load_state(const io::StateDict& state) { impl_->load_state(state); }

std::int64_t TrainingStep::iteration() const { return impl_->iteration(); }

double TrainingStep::learning_rate() const {
  return learning_rate_at(impl_->options().optimiser, iteration(), impl_->options().total_iterations);
}

double TrainingStep::loss_scale() const { return impl_->loss_scale(); }

std::string TrainingStep::parts() const { return impl_->parts(); }

}  // namespace clip_lora::engine
