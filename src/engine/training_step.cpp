#include "clip_lora/engine/training_step.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "batch_loss.hpp"
#include "batch_texts.hpp"
#include "clip_lora/core/device.hpp"
#include "clip_lora/engine/encoders.hpp"
#include "clip_lora/engine/process_group.hpp"
#include "clip_lora/ops/adamw.hpp"
#include "clip_lora/ops/patches.hpp"
#include "features.hpp"
#include "parts.hpp"
#include "replay.hpp"
#include "training_state.hpp"
#include "updates.hpp"

namespace clip_lora::engine {
namespace {

constexpr double kInitialLossScale = 1024.0;
constexpr double kUsableMemory = 0.9;  // the rest is for temporaries and the allocator's waste
constexpr std::int64_t kEverything = std::int64_t{1} << 40;

}  // namespace

class TrainingStep::Impl {
 public:
  Impl(model::Clip clip, const lora::Adapter& adapter, const model::Prompts& prompts,
       const TrainingStepOptions& options)
      : clip_(std::move(clip)),
        options_(for_share(options)),
        device_(clip_->device()),
        embed_context_(device_),
        context_(device_),
        side_(device_),
        dropout_state_(at::tensor({options.dropout_seed, std::int64_t{0}}, at::kLong).to(device_)),
        updates_(clip_, adapter, dropout_state_, text_rows(prompts, options_),
                 /*vision_rows=*/options_.batch_size * rows_per_image()),
        text_(text_tower(clip_, &updates_)),
        vision_(vision_tower(clip_, &updates_)),
        text_by_autograd_(clip_, adapter, lora::Tower::kText),
        vision_by_autograd_(clip_, adapter, lora::Tower::kVision),
        trains_text_(adapter.adapts(lora::Tower::kText)),
        trains_vision_(adapter.adapts(lora::Tower::kVision)),
        measured_(at::tensor({0.0F, 0.0F, 1.0F}).to(device_)),
        loss_scaling_(loss_scaling_for(clip_->dtype())) {
    const at::NoGradGuard no_grad;
    if (has_fixed_prompts()) check_options(prompts.ids.size(0));
    optimiser_.parameters = updates_.parameters();
    optimiser_.gradients = updates_.gradients();
    if (options_.processes != nullptr) options_.processes->broadcast(optimiser_.parameters);
    optimiser_.first_moments = at::zeros_like(optimiser_.parameters);
    optimiser_.second_moments = at::zeros_like(optimiser_.parameters);
    optimiser_.counters = at::zeros({4}, at::TensorOptions(device_).dtype(at::kDouble));
    optimiser_.counters[2] = scales_loss() ? kInitialLossScale : 1.0;
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
    const Share own = own_share(labels.size(0), options_.processes);
    TORCH_CHECK(labels.dim() == 1 && own.count == images.size(0), "labels ", labels.sizes(),
                " do not fit images ", images.sizes());
    TORCH_CHECK(texts == nullptr || texts->ids.size(0) == labels.size(0), "expected a text for each of ",
                labels.size(0), " images");
    const TextRoom room =
        texts_stay_in_place() ? TextRoom::of(*texts, clip_->architecture().context_length) : TextRoom();
    Batch& batch = batch_for(images, labels, update);
    Iteration& iteration = iteration_for(batch, room, update);
    // What comes from the host waits for nobody: it is embedded beside the iteration before.
    if (images.is_cuda() || labels.is_cuda()) embed_context_.wait_for_current_stream();
    batch.free.wait();  // so the host is never more than a few iterations ahead
    batch.embed->run([&] {
      batch.images.copy_(images, /*non_blocking=*/true);
      batch.labels.copy_(labels, /*non_blocking=*/true);
      if (iteration.texts) iteration.texts->fill(*texts);
    });
    context_.wait_for(embed_context_);
    if (texts != nullptr && !iteration.texts) {
      text_chunks_ = pack(clip_, *texts, /*share_prefix=*/false, text_rows_per_chunk_, own);
      if (trains_text_ && updates_.are_explicit()) run_frozen_blocks(text_.tower(), text_chunks_);
    }
    context_.wait_for_current_stream();
    iteration.work->run();
    batch.free.mark(context_);
    context_.make_current_stream_wait();
    if (update) ++iteration_;
    return measured_.select(0, kLoss);
  }

  std::function<Measurements()> measure() const {
    return copy_to_host(measured_, optimiser_.counters, scales_loss());
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
    require_possible_state(state, here, options_.total_iterations, scales_loss());
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : here) tensor.copy_(state.at(name));
    if (!scales_loss()) optimiser_.counters[2] = 1.0;  // older states have no scale there
    iteration_ = static_cast<std::int64_t>(optimiser_.counters[0].item<double>());
  }

  std::int64_t iteration() const { return iteration_; }
  const TrainingStepOptions& options() const { return options_; }
  double loss_scale() const { return optimiser_.counters[2].item<double>(); }

  std::string parts() const {
    const std::size_t images =
        static_cast<std::size_t>((options_.batch_size + images_per_chunk_ - 1) / images_per_chunk_);
    const std::size_t texts =
        has_fixed_prompts() ? text_chunks_.size() : static_cast<std::size_t>(text_parts_);
    if (texts <= 1 && images <= 1) return {};
    return "prompts in " + std::to_string(texts) + " parts, images in " + std::to_string(images);
  }

 private:
  /// What is done with a batch whose texts need one room.
  struct Iteration {
    std::unique_ptr<BatchTexts> texts;  // if texts_stay_in_place()
    std::unique_ptr<ReplayedWork> work;
  };

  /// The places of a batch of one shape, and what is done with it.
  struct Batch {
    Share own;                  // of this process
    at::Tensor images;          // its
    at::Tensor labels;          // of the whole batch
    at::Tensor positions;       // see image_positions
    at::Tensor rows;            // of the images, embedded
    std::vector<Chunk> chunks;  // without rows
    Moment free;                // when an iteration was done with them
    std::unique_ptr<ReplayedWork> embed;
    std::map<TextRoom, Iteration> iterations;
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

  bool scales_loss() const { return clip_->dtype() == at::kHalf; }
  bool has_fixed_prompts() const { return options_.loss == Loss::kCrossEntropy; }
  /// Texts of a batch do so if they are encoded at once, all in this process.
  bool texts_stay_in_place() const {
    return !has_fixed_prompts() && updates_.are_explicit() && text_parts_ == 1 &&
           options_.processes == nullptr;
  }

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
  void prepare(Batch& batch, const at::Tensor& images, const at::Tensor& labels);
  Iteration& iteration_for(Batch& batch, const TextRoom& room, bool update);
  at::Tensor patches(const at::Tensor& images) const;
  void compute(const Batch& batch, const BatchTexts* texts_in_place);
  void compute_share(const Batch& batch, const BatchTexts* texts_in_place);
  ops::ContrastiveLoss loss_of(const at::Tensor& image_features, const at::Tensor& text_features,
                               const Batch& batch);
  std::vector<Chunk> text_chunks(const BatchTexts* texts_in_place) const;
  at::Tensor text_features(const std::vector<Chunk>& chunks);
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
  const auto [text_parts, image_parts] =
      parts_that_fit({text_bytes, texts}, {vision_bytes, options_.batch_size}, budget);
  text_parts_ = text_parts;
  images_per_chunk_ = (options_.batch_size + image_parts - 1) / image_parts;
  if (text_parts_ > 1) text_rows_per_chunk_ = (text_row_count + text_parts_ - 1) / text_parts_;
  if (!has_fixed_prompts() || !trains_text_) return;
  if (text_parts_ > 1) text_chunks_ = pack(clip_, prompts, share_prefix, text_rows_per_chunk_);
  run_frozen_blocks(text_.tower(), text_chunks_);
}

TrainingStep::Impl::Batch& TrainingStep::Impl::batch_for(const at::Tensor& images, const at::Tensor& labels,
                                                         bool update) {
  std::vector<std::int64_t> sizes = images.sizes().vec();
  sizes.push_back(labels.size(0));  // a share may be as large in another batch
  Pair& pair = batches_[{sizes, images.scalar_type(), update}];
  Batch& batch = pair.batches[pair.next++ % pair.batches.size()];
  if (!batch.embed) prepare(batch, images, labels);
  return batch;
}

void TrainingStep::Impl::prepare(Batch& batch, const at::Tensor& images, const at::Tensor& labels) {
  batch.images = at::empty(images.sizes(), at::TensorOptions(device_).dtype(images.scalar_type()));
  batch.labels = at::empty(labels.sizes(), at::TensorOptions(device_).dtype(at::kLong));
  batch.own = own_share(labels.size(0), options_.processes);
  const std::int64_t rows = batch.own.count * rows_per_image();
  if (!positions_.defined() || positions_.size(0) < rows) {
    positions_ = image_positions(clip_, std::max(batch.own.count, options_.batch_size));
  }
  batch.positions = positions_.narrow(0, 0, rows);
  batch.rows = at::empty_like(batch.positions);
  batch.chunks = image_chunks(clip_, batch.own.count, images_per_chunk_, batch.own.first);
  embed_context_.wait_for_current_stream();  // which made the positions
  const bool has_pictures = batch.own.count > 0;
  batch.embed = std::make_unique<ReplayedWork>(
      embed_context_,
      [this, &batch, has_pictures] {
        const at::NoGradGuard no_grad;
        if (!has_pictures) return;
        // Copied out of the graphs' memory, where the next batch's temporaries may come to lie.
        batch.rows.copy_(embedded_patches(clip_, patches(batch.images), batch.positions));
      },
      /*captured=*/has_pictures);
}

TrainingStep::Impl::Iteration& TrainingStep::Impl::iteration_for(Batch& batch, const TextRoom& room,
                                                                 bool update) {
  Iteration& iteration = batch.iterations[room];
  if (iteration.work) return iteration;
  if (texts_stay_in_place()) iteration.texts = std::make_unique<BatchTexts>(clip_, room);
  embed_context_.wait_for_current_stream();  // which made the texts' places
  // Collectives of several processes are queued anew each time.
  const bool stays_in_place =
      updates_.are_explicit() && options_.processes == nullptr && (has_fixed_prompts() || iteration.texts);
  iteration.work = std::make_unique<ReplayedWork>(
      context_,
      [this, &batch, texts = iteration.texts.get(), update] {
        const at::NoGradGuard no_grad;
        compute(batch, texts);
        if (!update) return;
        side_.run([&] { measure_gradients(); });  // beside the update, which only reads the gradients
        ops::adamw_step(optimiser_, adamw_options(options_.optimiser, options_.total_iterations),
                        loss_scaling_);
        side_.join();
      },
      /*captured=*/stays_in_place);
  return iteration;
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

/// The texts at the first block with updates.
std::vector<Chunk> TrainingStep::Impl::text_chunks(const BatchTexts* texts_in_place) const {
  if (texts_in_place == nullptr) return text_chunks_;
  std::vector<Chunk> chunks = {texts_in_place->embedded()};
  if (trains_text_) run_frozen_blocks(text_.tower(), chunks);
  return chunks;
}

at::Tensor TrainingStep::Impl::text_features(const std::vector<Chunk>& chunks) {
  if (!trains_text_) return has_fixed_prompts() ? frozen_text_features_ : text_.features(chunks);
  return updates_.are_explicit() ? text_.forward(chunks) : text_by_autograd_.forward(chunks);
}

at::Tensor TrainingStep::Impl::image_features(const std::vector<Chunk>& chunks) {
  if (!trains_vision_) return vision_.features(chunks);
  return updates_.are_explicit() ? vision_.forward(chunks) : vision_by_autograd_.forward(chunks);
}

/// The loss and its gradients in the features of towers that are trained.
ops::ContrastiveLoss TrainingStep::Impl::loss_of(const at::Tensor& image_features,
                                                 const at::Tensor& text_features, const Batch& batch) {
  at::Tensor loss_scale;
  if (scales_loss()) {
    loss_scale = measured_.narrow(0, kLossScale, 1).copy_(optimiser_.counters.narrow(0, 2, 1));
  }
  return batch_loss(options_, {image_features, text_features, batch.labels, batch.own, loss_scale},
                    trains_vision_, trains_text_);
}

/// Forward and backward, of this process's share and of the others'.
void TrainingStep::Impl::compute(const Batch& batch, const BatchTexts* texts_in_place) {
  if (batch.own.count > 0) {
    compute_share(batch, texts_in_place);
  } else {  // there are more processes than pictures in an epoch's last batch
    const at::Tensor none =
        at::empty({0, clip_->architecture().embedding}, at::TensorOptions(device_).dtype(at::kFloat));
    measured_.select(0, kLoss).copy_(loss_of(none, none, batch).loss);
    optimiser_.gradients.zero_();
  }
  if (options_.processes != nullptr) options_.processes->all_reduce_sum(optimiser_.gradients);
  dropout_state_.narrow(0, 1, 1).add_(1);
}

/// The text runs beside the images.
void TrainingStep::Impl::compute_share(const Batch& batch, const BatchTexts* texts_in_place) {
  const bool is_explicit = updates_.are_explicit();
  updates_.write_weights();
  if (!is_explicit) optimiser_.gradients.zero_();
  std::vector<Chunk> sequences;
  at::Tensor texts;
  side_.run([&] {
    sequences = text_chunks(texts_in_place);
    texts = text_features(sequences);
    if (texts_in_place != nullptr) texts = texts_in_place->without_fillers(texts);
  });
  std::vector<Chunk> chunks = batch.chunks;
  const std::int64_t rows_before = batch.own.first * rows_per_image();
  for (auto& chunk : chunks)
    chunk.rows = batch.rows.narrow(0, chunk.place.rows - rows_before, chunk.packing.rows);
  if (trains_vision_ && is_explicit) run_frozen_blocks(vision_.tower(), chunks);
  const at::Tensor images = image_features(chunks);
  side_.join();

  const ops::ContrastiveLoss loss = loss_of(images, texts, batch);
  measured_.select(0, kLoss).copy_(loss.loss);

  if (is_explicit) {
    at::Tensor d_texts = loss.d_text_features;
    if (trains_text_ && texts_in_place != nullptr) d_texts = texts_in_place->with_fillers(d_texts);
    if (trains_text_) side_.run([&] { text_.backward(d_texts, sequences); });
    if (trains_vision_) vision_.backward(loss.d_image_features, chunks);
    if (trains_text_) side_.join();
  } else {
    if (trains_text_) text_by_autograd_.backward(loss.d_text_features);
    if (trains_vision_) vision_by_autograd_.backward(loss.d_image_features);
  }
}

/// ‖g‖ without the loss scale.
void TrainingStep::Impl::measure_gradients() {
  at::Tensor norm = measured_.select(0, kGradientNorm);
  at::linalg_vector_norm_out(norm, optimiser_.gradients, 2.0);
  if (scales_loss()) norm.div_(measured_.select(0, kLossScale));
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
