#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <filesystem>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "clip_lora/cli/load_model.hpp"
#include "clip_lora/cli/picture_options.hpp"
#include "clip_lora/engine/encoders.hpp"
#include "clip_lora/lora/adapter_file.hpp"

namespace clip_lora::cli {

/// The names that `file` gives to classes, see data::read_class_names. Those of an adapter, if there are any,
/// are all named in their order, or some of them renamed, `_` and a space being alike. Throws ConfigError for
/// a list that is not as long, and for what is no class of the adapter.
std::vector<std::string> read_class_names(const std::filesystem::path& file,
                                          const std::vector<std::string>& adapter_classes);

/// A CLIP on its device, with an adapter merged in if there is one, and the preprocessing that goes with
/// both.
class AdaptedModel {
 public:
  /// Loads what `options` say. Without --checkpoint and --backbone the backbone is the adapter's. Throws
  /// ConfigError and CheckpointError as load_model and lora::load_adapter.
  explicit AdaptedModel(const PictureOptions& options);

  const Model& model() const { return model_; }
  model::Clip& clip() { return model_.loaded.clip; }
  engine::ImageEncoder& encoder() { return *encoder_; }
  const image::Preprocessing& preprocessing() const { return model_.loaded.preprocessing; }
  /// What the adapter is for; nothing without one, or if it does not say so.
  const std::optional<lora::AdapterContext>& context() const { return context_; }

  /// The lines that say which model this is.
  void print_header(std::ostream& stream) const;

 private:
  void choose_preprocessing(const PictureOptions& options);

  std::string adapter_path_;
  at::Device device_;
  at::ScalarType dtype_;
  Model model_;
  std::optional<lora::AdapterContext> context_;
  std::optional<lora::MergedScope> merged_;
  std::optional<engine::ImageEncoder> encoder_;  // of the merged weights
};

}  // namespace clip_lora::cli
