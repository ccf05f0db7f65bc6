#include "clip_lora/train/checkpoint.hpp"

#include <ATen/ATen.h>

#include <charconv>
#include <utility>
#include <vector>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/finite.hpp"
#include "clip_lora/io/safetensors.hpp"

// Metadata: `format`, `version`, `iteration`, `images`, `best_iteration`, and `setting.<name>` for each.
// Tensors: `step.<name>` of engine::TrainingStep::state(); `loss` [1] float64; `validation` [K, 2] float64
// (iteration, percent); and, where the best adapter is to be kept, `best_accuracy` [1] float64 and
// `best_parameters` [n] float32.

namespace clip_lora::train {
namespace {

constexpr const char* kFormat = "clip_lora training checkpoint";
constexpr const char* kVersion = "1";
constexpr double kMostIterations = 1e15;  // that float64 counts exactly
const std::string kSettingPrefix = "setting.";
const std::string kStepPrefix = "step.";

at::Tensor as_tensor(double value) { return at::full({1}, value, at::kDouble); }

at::Tensor as_tensor(const std::vector<ValidationPoint>& points) {
  at::Tensor rows = at::empty({static_cast<std::int64_t>(points.size()), 2}, at::kDouble);
  double* values = rows.mutable_data_ptr<double>();
  for (const auto& [iteration, accuracy] : points) {
    *values++ = static_cast<double>(iteration);
    *values++ = accuracy;
  }
  return rows;
}

/// Takes apart what write_checkpoint has put together; every complaint names the file.
class Reader {
 public:
  explicit Reader(const std::filesystem::path& path)
      : source_("training checkpoint '" + path.string() + "': "), file_(io::read_safetensors(path)) {}

  TrainingCheckpoint read() const {
    require_format();
    TrainingCheckpoint checkpoint;
    TrainingState& state = checkpoint.state;
    for (const auto& [name, text] : file_.metadata) {
      if (name.starts_with(kSettingPrefix)) checkpoint.settings[name.substr(kSettingPrefix.size())] = text;
    }
    for (const auto& [name, tensor] : file_.tensors) {
      if (name.starts_with(kStepPrefix)) state.step[name.substr(kStepPrefix.size())] = tensor.clone();
    }
    state.iteration = number("iteration");
    state.images = number("images");
    state.loss = value("loss");
    state.validation = validation();
    if (file_.tensors.contains("best_parameters")) {
      state.best = {number("best_iteration"), value("best_accuracy")};
      state.best_parameters = tensor("best_parameters", at::kFloat, 1).clone();
    }
    io::StateDict trained = state.step;
    if (state.best_parameters.defined()) trained["best_parameters"] = state.best_parameters;
    io::require_finite(trained, source_ + "it");
    return checkpoint;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { throw CheckpointError(source_ + what); }

  std::string text(const std::string& name) const {
    const auto found = file_.metadata.find(name);
    return found == file_.metadata.end() ? "" : found->second;
  }

  void require_format() const {
    if (text("format") != kFormat) {
      fail("its metadata do not say that it is one (hint: did another program write it?)");
    }
    if (text("version") != kVersion) {
      fail("it is of version '" + text("version") + "', this program reads " + kVersion);
    }
  }

  std::int64_t number(const std::string& name) const {
    const std::string digits = text(name);
    std::int64_t result = -1;
    const auto end = digits.data() + digits.size();
    const auto parsed = std::from_chars(digits.data(), end, result);
    if (parsed.ec != std::errc() || parsed.ptr != end || result < 0)
      fail("its " + name + " is '" + digits + "', expected a number");
    return result;
  }

  /// The tensor of this name, which has to be of this type and number of axes.
  at::Tensor tensor(const std::string& name, at::ScalarType type, std::int64_t axes) const {
    const auto found = file_.tensors.find(name);
    if (found == file_.tensors.end() || found->second.scalar_type() != type || found->second.dim() != axes)
      fail("tensor '" + name + "' is missing or of another type or shape");
    return found->second;
  }

  double value(const std::string& name) const {
    const at::Tensor found = tensor(name, at::kDouble, 1);
    if (found.numel() != 1) fail("tensor '" + name + "' has " + std::to_string(found.numel()) + " values");
    return found.item<double>();
  }

  std::vector<ValidationPoint> validation() const {
    const at::Tensor rows = tensor("validation", at::kDouble, 2);  // [K, 2]
    if (rows.size(1) != 2) fail("tensor 'validation' has rows of " + std::to_string(rows.size(1)));
    const auto values = rows.accessor<double, 2>();
    std::vector<ValidationPoint> points;
    for (std::int64_t i = 0; i < rows.size(0); ++i) {
      const double iteration = values[i][0], accuracy = values[i][1];
      if (!(iteration >= 0.0 && iteration < kMostIterations)) fail("tensor 'validation' has no iteration");
      points.push_back({static_cast<std::int64_t>(iteration), accuracy});
    }
    return points;
  }

  std::string source_;
  io::Safetensors file_;
};

std::string or_nothing(const TrainingSettings& settings, const std::string& name) {
  const auto found = settings.find(name);
  return found == settings.end() ? "nothing" : found->second;
}

}  // namespace

void write_checkpoint(const std::filesystem::path& path, const TrainingCheckpoint& checkpoint) {
  const TrainingState& state = checkpoint.state;
  std::map<std::string, std::string> metadata = {{"format", kFormat},
                                                 {"version", kVersion},
                                                 {"iteration", std::to_string(state.iteration)},
                                                 {"images", std::to_string(state.images)}};
  for (const auto& [name, text] : checkpoint.settings) metadata[kSettingPrefix + name] = text;
  io::StateDict tensors = {{"loss", as_tensor(state.loss)}, {"validation", as_tensor(state.validation)}};
  for (const auto& [name, tensor] : state.step) tensors[kStepPrefix + name] = tensor;
  if (state.best_parameters.defined()) {
    metadata["best_iteration"] = std::to_string(state.best.iteration);
    tensors["best_accuracy"] = as_tensor(state.best.accuracy);
    tensors["best_parameters"] = state.best_parameters;
  }
  io::write_safetensors(path, tensors, metadata);
}

TrainingCheckpoint read_checkpoint(const std::filesystem::path& path) { return Reader(path).read(); }

void require_settings(const TrainingSettings& saved, const TrainingSettings& settings,
                      const std::filesystem::path& path) {
  TrainingSettings all = saved;
  all.insert(settings.begin(), settings.end());
  std::vector<std::string> differences;
  for (const auto& [name, ignored] : all) {
    const std::string before = or_nothing(saved, name), now = or_nothing(settings, name);
    if (before != now) differences.push_back(name + " " + before + " (this run: " + now + ")");
  }
  if (differences.empty()) return;
  throw CheckpointError("training checkpoint '" + path.string() +
                        "': it is of other settings: " + join_capped(differences) +
                        " (hint: go on with the same ones, or train anew without --resume)");
}

}  // namespace clip_lora::train
