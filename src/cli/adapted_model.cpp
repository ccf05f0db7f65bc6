#include "adapted_model.hpp"

#include <algorithm>
#include <system_error>

#include "clip_lora/cli/console.hpp"
#include "clip_lora/core/device.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/version.hpp"
#include "clip_lora/data/class_names.hpp"
#include "clip_lora/lora/adapter_description.hpp"

namespace clip_lora::cli {
namespace {

constexpr std::size_t kNamedClasses = 3;

std::string with_spaces(std::string name) {
  std::ranges::replace(name, '_', ' ');
  return name;
}

/// The backbone that an adapter was trained on; "" if its file does not say so.
std::string backbone_of(const std::filesystem::path& adapter) {
  const auto description = lora::describe_adapter_file(adapter);
  if (!description || !description->context.is_object()) return "";
  const auto backbone = description->context.find("backbone");
  return backbone != description->context.end() && backbone->is_string() ? backbone->get<std::string>() : "";
}

/// The options of the model, with the adapter's backbone where they name none.
ModelOptions model_options(const PictureOptions& options) {
  ModelOptions model = options.model;
  if (options.adapter.empty()) return model;
  std::error_code ignored;
  if (!std::filesystem::exists(options.adapter, ignored)) {
    throw CheckpointError("adapter '" + options.adapter + "': there is no such file or folder");
  }
  if (!model.backbone.empty() || !model.checkpoint.empty()) return model;
  const std::string backbone = backbone_of(options.adapter);
  if (backbone.empty()) return model;
  const bool is_repository = backbone.find('/') != std::string::npos;
  if (!is_repository && !model::published_architecture(backbone)) {
    throw ConfigError("adapter '" + options.adapter + "' is for the model '" + backbone +
                      "', which is no published one: --checkpoint must say where it is");
  }
  model.backbone = backbone;
  return model;
}

}  // namespace

std::vector<std::string> read_class_names(const std::filesystem::path& file,
                                          const std::vector<std::string>& adapter_classes) {
  const data::ClassNames given = data::read_class_names(file);
  if (adapter_classes.empty()) return given.names;
  const std::string source = "file of class names '" + file.string() + "': ";
  if (given.renamed.empty()) {
    if (given.names.size() == adapter_classes.size()) return given.names;
    throw ConfigError(source + "it has " + std::to_string(given.names.size()) +
                      " names, expected one for each of the adapter's " +
                      std::to_string(adapter_classes.size()) + " classes, in the order " +
                      join_capped(adapter_classes, kNamedClasses) +
                      " (hint: lines of 'class: name' rename some of them)");
  }
  std::vector<std::string> names = adapter_classes;
  for (const auto& [key, name] : given.renamed) {
    bool is_known = false;
    for (std::size_t label = 0; label < names.size(); ++label) {
      if (with_spaces(adapter_classes[label]) != with_spaces(key)) continue;
      names[label] = name;
      is_known = true;
    }
    if (!is_known) {
      throw ConfigError(source + "'" + key + "' is no class of the adapter, which has " +
                        join_capped(adapter_classes, kNamedClasses) + did_you_mean(key, adapter_classes));
    }
  }
  return names;
}

AdaptedModel::AdaptedModel(const PictureOptions& options)
    : adapter_path_(options.adapter),
      device_(parse_device(options.compute.device)),
      dtype_(parse_precision(options.compute.precision, device_)),
      model_(load_model(model_options(options))) {
  make_current(device_);
  clip()->to(device_, dtype_);
  if (!adapter_path_.empty()) {
    const lora::LoadedAdapter adapter = lora::load_adapter(adapter_path_, clip(), model_.fingerprint);
    use_preprocessing(model_, adapter, adapter_path_);
    context_ = adapter.context;
    merged_.emplace(clip(), *adapter.adapter, adapter.scale);
  }
  choose_preprocessing(options);
  encoder_.emplace(clip(), preprocessing());
}

void AdaptedModel::choose_preprocessing(const PictureOptions& options) {
  image::Preprocessing& preprocessing = model_.loaded.preprocessing;
  const bool adapter_says = context_ && !context_->preprocessing.is_null();
  std::string exif = options.exif;
  if (exif == "auto" && adapter_path_.empty()) exif = "apply";
  // The authors' training, which such an adapter comes from, turns no pictures.
  if (exif == "auto" && !adapter_says) exif = "ignore";
  if (exif == "apply") preprocessing.orientation = image::Orientation::kApplyExif;
  if (exif == "ignore") preprocessing.orientation = image::Orientation::kIgnoreExif;
  if (!options.resize_mode.empty()) preprocessing.resize_mode = image::parse_resize_mode(options.resize_mode);
}

void AdaptedModel::print_header(std::ostream& stream) const {
  stream << "clip_lora " << kVersion << "   " << model_.backbone << " (" << model_.path.string() << ")   "
         << describe_device(device_) << ", " << precision_name(dtype_) << "\n";
  if (adapter_path_.empty()) return;
  stream << "adapter    " << adapter_path_;
  if (context_) {
    stream << "   " << with_commas(static_cast<std::int64_t>(context_->class_names.size())) << " classes of "
           << context_->dataset;
  }
  stream << std::endl;
}

}  // namespace clip_lora::cli
