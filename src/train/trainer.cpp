#include "clip_lora/train/trainer.hpp"

#include <ATen/ATen.h>

#include <chrono>
#include <cstring>
#include <string>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"
#include "clip_lora/data/text_draws.hpp"
#include "clip_lora/engine/process_group.hpp"
#include "divergence.hpp"

namespace clip_lora::train {
namespace {

/// On CUDA, iterations after which a measurement is read: the host may be so many ahead of the device.
constexpr std::int64_t kLateness = 4;
/// On CUDA, iterations between two looks at whether the training has diverged.
constexpr std::int64_t kLookEvery = 10;

/// While it lives, the model is evaluated with the averages; a look may end in an exception.
class Looking {
 public:
  Looking(engine::TrainingStep& step, model::Clip& clip) : step_(step), clip_(clip) {
    clip_->eval();
    step_.show_averages(true);
  }
  ~Looking() {
    step_.show_averages(false);
    clip_->train();
  }
  Looking(const Looking&) = delete;
  Looking& operator=(const Looking&) = delete;

 private:
  engine::TrainingStep& step_;
  model::Clip& clip_;
};

/// The looks at the validation split during one training, and the best adapter that they saw.
class Looks {
 public:
  Looks(const Validation& validation, engine::TrainingStep& step, const lora::Adapter& adapter,
        model::Clip& clip)
      : validation_(validation), step_(step), adapter_(adapter), clip_(clip) {
    TORCH_CHECK(validation.select == Select::kLast || validation.every > 0,
                "the best adapter cannot be selected without looks at the validation split");
  }

  /// Goes on from what save_to() has put away.
  void load(const TrainingState& state) {
    points_ = state.validation;
    best_ = state.best;
    best_parameters_ = state.best_parameters;
    const std::int64_t count = best_parameters_.defined() ? best_parameters_.numel() : 0;
    const bool expected = validation_.select == Select::kBest && !points_.empty();
    if (count == (expected ? adapter_.parameter_count() : 0)) return;
    throw CheckpointError("training state: the best adapter has " + std::to_string(count) +
                          " values, expected " + std::to_string(expected ? adapter_.parameter_count() : 0));
  }

  void save_to(TrainingState& state) const {
    state.validation = points_;
    state.best = best_;
    state.best_parameters = best_parameters_;
  }

  /// Looks if the iteration that has ended last asks for it and no look was there yet.
  void after(std::int64_t iteration) {
    const bool asked = validation_.every > 0 && iteration > 0 && iteration % validation_.every == 0;
    if (asked && !has_looked_after(iteration)) look(iteration);
  }

  /// Looks at the last adapter unless that has been done, then puts the selected one into the model.
  void finish(std::int64_t iterations, TrainingResult& result) {
    if (validation_.every > 0 && !has_looked_after(iterations)) look(iterations);
    step_.show_averages(true);
    result.validation = points_;
    result.selected_iteration = iterations;
    if (validation_.select == Select::kLast) return;
    result.selected_iteration = best_.iteration;
    put_back_best();
  }

  /// Puts what is there of a training that ends before its time into the model.
  void give_up() {
    step_.show_averages(true);
    if (validation_.select == Select::kBest && !points_.empty()) put_back_best();
  }

 private:
  bool has_looked_after(std::int64_t iteration) const {
    return !points_.empty() && points_.back().iteration == iteration;
  }

  /// In evaluation mode with the adapter merged; afterwards the model is as before, bit for bit.
  void look(std::int64_t iteration) {
    const Looking looking(step_, clip_);
    ValidationPoint point{iteration, 0.0};
    {
      const lora::MergedScope merged(clip_, adapter_, validation_.scale);
      point.accuracy = validation_.accuracy();
    }
    if (validation_.select == Select::kBest && (points_.empty() || point.accuracy > best_.accuracy))
      keep(point);
    points_.push_back(point);
  }

  void keep(const ValidationPoint& point) {
    best_ = point;
    std::vector<at::Tensor> flat;
    for (const auto& parameter : adapter_.parameters()) flat.push_back(parameter.detach().flatten());
    best_parameters_ = at::cat(flat).cpu();
  }

  void put_back_best() const {
    const at::NoGradGuard no_grad;
    std::int64_t offset = 0;
    for (const auto& parameter : adapter_.parameters()) {
      parameter.copy_(best_parameters_.narrow(0, offset, parameter.numel()).view_as(parameter));
      offset += parameter.numel();
    }
  }

  const Validation& validation_;
  engine::TrainingStep& step_;
  const lora::Adapter& adapter_;
  model::Clip& clip_;
  std::vector<ValidationPoint> points_;
  ValidationPoint best_;
  at::Tensor best_parameters_;  // [n] float32 on the CPU
};

/// The measurements of one training. The one at hand is recorded, and looked at for divergence, once it has
/// come from the device.
class Recorder {
 public:
  Recorder(const Measuring& measuring, const engine::TrainingStep& step, DivergenceWatch& watch)
      : measuring_(measuring), step_(step), watch_(watch) {}

  /// After an iteration of so many images at a learning rate, whose loss is on `device`.
  void after(const Progress& progress, std::int64_t images, double learning_rate, at::Device device) {
    images_ += images;
    // By then it has arrived, so that nothing waits here.
    if (read_ && progress.iteration >= at_hand_.iteration + kLateness) record();
    const auto is_due = [&](std::int64_t every) {
      return every > 0 && (progress.iteration % every == 0 || progress.iteration == progress.total);
    };
    const bool is_recorded = is_due(measuring_.every);
    if (!is_recorded && !is_due(device.is_cuda() ? kLookEvery : 1)) return;
    record();
    is_recorded_ = is_recorded;
    at_hand_.iteration = progress.iteration;
    at_hand_.learning_rate = learning_rate;
    if (is_recorded) {
      go_on_after_pause();
      at_hand_.epoch = static_cast<double>(progress.images) / static_cast<double>(measuring_.images);
      at_hand_.images_per_second = static_cast<double>(images_) / seconds_;
      images_ = 0;
      seconds_ = 0.0;
    }
    read_ = step_.measure();
    if (!device.is_cuda()) record();
  }

  /// Waits for the one at hand, if there is any. Throws Diverged.
  void record() {
    if (!read_) return;
    const engine::Measurements read = read_();
    read_ = nullptr;
    at_hand_.loss = read.loss;
    at_hand_.gradient_norm = read.gradient_norm;
    at_hand_.loss_scale = read.loss_scale;
    if (is_recorded_) measuring_.record(at_hand_);
    watch_.look(at_hand_.iteration, at_hand_.learning_rate, read);
  }

  /// What takes time until go_on() does not count.
  void pause() { seconds_ += seconds_since_start(); }
  void go_on() { start_ = Clock::now(); }

 private:
  using Clock = std::chrono::steady_clock;

  double seconds_since_start() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  void go_on_after_pause() {
    pause();
    go_on();
  }

  const Measuring& measuring_;
  const engine::TrainingStep& step_;
  DivergenceWatch& watch_;
  Measurement at_hand_;
  bool is_recorded_ = false;                    // at_hand_, or only looked at
  std::function<engine::Measurements()> read_;  // what at_hand_ lacks; empty: nothing at hand
  std::int64_t images_ = 0;                     // since the last one
  double seconds_ = 0.0;                        // of work on them, until start_
  Clock::time_point start_ = Clock::now();
};

/// One training, from its first iteration or from a checkpoint on.
class Training {
 public:
  Training(engine::TrainingStep& step, const lora::Adapter& adapter, const NextBatch& next_batch,
           model::Clip& clip, const TrainingPlan& plan)
      : step_(step),
        next_batch_(next_batch),
        plan_(plan),
        looks_(plan.validation, step, adapter, clip),
        watch_(plan, plan.checkpoints.resumed ? plan.checkpoints.resumed->iteration : 0),
        recorder_(plan.measuring, step, watch_) {
    progress_.total = plan.iterations;
    progress_.loss = [this] { return loss(); };
    if (plan.checkpoints.resumed) load(*plan.checkpoints.resumed);
  }

  TrainingResult run() {
    try {
      return run_until_interrupted();
    } catch (const Diverged&) {
      require_processes();
      looks_.give_up();
      throw;
    }
  }

 private:
  TrainingResult run_until_interrupted() {
    try {
      return run_uninterrupted();
    } catch (const Interrupted&) {
      if (plan_.checkpoints.every > 0) save();
      throw;
    }
  }

  TrainingResult run_uninterrupted() {
    looks_.after(progress_.iteration);  // what an interruption has left out
    recorder_.go_on();
    while (progress_.iteration < progress_.total) {
      iterate();
      stop_if_interrupted();
      recorder_.pause();
      looks_.after(progress_.iteration);
      if (is_checkpoint_due()) save();
      recorder_.go_on();
    }
    recorder_.record();
    require_processes();
    TrainingResult result;
    result.images = progress_.images;
    result.loss = loss();
    looks_.finish(progress_.total, result);
    return result;
  }

  void iterate() {
    const double learning_rate = step_.learning_rate();
    const Batch batch = next_batch_();
    watch_.remember(progress_.iteration + 1, batch.items);
    device_loss_ = batch.texts ? step_.run(batch.images, batch.labels, *batch.texts)
                               : step_.run(batch.images, batch.labels);
    ++progress_.iteration;
    progress_.images += batch.labels.size(0);
    progress_.learning_rate = step_.learning_rate();
    recorder_.after(progress_, batch.labels.size(0), learning_rate, device_loss_.device());
    if (plan_.on_progress) plan_.on_progress(progress_);
  }

  /// That this process has got, or one of those that train with it.
  int pending_signal() const {
    if (plan_.processes == nullptr) return pending_interrupt();
    const at::Tensor own = at::full({1}, pending_interrupt(), at::kLong);
    return plan_.processes->all_gather(own).max().item<int>();
  }

  void stop_if_interrupted() const {
    if (const int signal = pending_signal()) {
      throw Interrupted(signal, "interrupted after iteration " + std::to_string(progress_.iteration) +
                                    " of " + std::to_string(progress_.total));
    }
  }

  bool is_checkpoint_due() const {
    const std::int64_t every = plan_.checkpoints.every;
    return every > 0 && (progress_.iteration % every == 0 || progress_.iteration == progress_.total);
  }

  void save() {
    recorder_.record();          // so that a log is never behind the checkpoint
    if (device_loss_.defined())  // nor a checkpoint of a training that has diverged
      watch_.look(progress_.iteration, progress_.learning_rate, step_.measure()());
    TrainingState state;
    state.step = step_.state();
    require_processes();
    state.iteration = progress_.iteration;
    state.images = progress_.images;
    state.loss = loss();
    looks_.save_to(state);
    plan_.checkpoints.save(state);
  }

  void load(const TrainingState& state) {
    step_.load_state(state.step);
    if (step_.iteration() != state.iteration) {
      throw CheckpointError("training state: it is of iteration " + std::to_string(state.iteration) +
                            ", but its counters say " + std::to_string(step_.iteration()));
    }
    looks_.load(state);
    progress_.iteration = state.iteration;
    progress_.images = state.images;
    resumed_loss_ = state.loss;
  }

  /// Of the last iteration; waits for the device.
  double loss() const { return device_loss_.defined() ? device_loss_.item<double>() : resumed_loss_; }

  /// After waiting for the device: what it has computed since one was lost is nothing.
  void require_processes() const {
    if (plan_.processes != nullptr) plan_.processes->check();
  }

  engine::TrainingStep& step_;
  const NextBatch& next_batch_;
  const TrainingPlan& plan_;
  Looks looks_;
  DivergenceWatch watch_;
  Recorder recorder_;
  Progress progress_;
  at::Tensor device_loss_;
  double resumed_loss_ = 0.0;
};

}  // namespace

DrawTexts draw_texts(const text::Tokenizer& tokenizer, const std::vector<std::vector<std::string>>& groups,
                     std::vector<std::int64_t> group_of_item, std::int64_t context_length, std::uint64_t seed,
                     text::Overlong overlong) {
  std::vector<std::vector<std::int64_t>> rows;
  std::vector<std::int64_t> first_of_group;
  for (const auto& group : groups) {
    first_of_group.push_back(static_cast<std::int64_t>(rows.size()));
    for (const auto& text : group) {
      rows.push_back(tokenizer.tokenize(text, static_cast<int>(context_length), overlong));
    }
  }
  first_of_group.push_back(static_cast<std::int64_t>(rows.size()));
  const model::Prompts all = model::make_prompts(rows);
  return [all, first_of_group, group_of_item = std::move(group_of_item), seed](
             const std::vector<std::int64_t>& items, std::int64_t first_sample) {
    std::vector<std::int64_t> drawn;
    for (const std::int64_t item : items) {
      const auto group = static_cast<std::size_t>(group_of_item.at(static_cast<std::size_t>(item)));
      const std::int64_t first = first_of_group[group], count = first_of_group[group + 1] - first;
      drawn.push_back(first + data::draw_text(seed, first_sample++, count));
    }
    const at::Tensor index = at::tensor(drawn, at::kLong);
    return model::Prompts{all.ids.index_select(0, index), all.eot.index_select(0, index)};
  };
}

NextBatch batches_of(data::TrainingLoader& loader, DrawTexts texts) {
  return [&loader, texts = std::move(texts)] {
    const data::Batch batch = loader.next();
    Batch next = {batch.pixels, batch.labels, {}, batch.items};
    if (texts) next.texts = texts(batch.items, batch.first_sample);
    return next;
  };
}

NextBatch batches_of(data::TrainingDraws& draws, DrawTexts texts) {
  return [&draws, texts = std::move(texts)] {
    const data::DrawnBatch batch = draws.next();
    const auto count = static_cast<std::int64_t>(batch.requests.size());
    at::Tensor requests = at::empty({count, static_cast<std::int64_t>(sizeof(ops::ViewRequest))}, at::kByte);
    std::memcpy(requests.mutable_data_ptr(), batch.requests.data(), requests.nbytes());
    Batch next = {requests, at::tensor(batch.labels, at::kLong), {}, batch.items};
    if (texts) next.texts = texts(batch.items, batch.first_sample);
    return next;
  };
}

TrainingResult train(engine::TrainingStep& step, const lora::Adapter& adapter, const NextBatch& next_batch,
                     model::Clip& clip, const TrainingPlan& plan) {
  return Training(step, adapter, next_batch, clip, plan).run();
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
