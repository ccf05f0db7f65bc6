#include "run_adapter.hpp"

#include "clip_lora/lora/summary.hpp"
#include "run_prompts.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

/// A saved adapter must be what all options say, one of --adapter only what those say that were written out.
void require_agreement(const lora::Adapter& adapter, const RunOptions& options, const fs::path& source) {
  if (options.output.adapter.empty()) return lora::require_same_options(adapter, options.lora, source);
  lora::require_same_options(adapter, options.lora, source, options.given);
}

/// In the terms of the flags; where its blocks differ, what they have in common.
lora::LoraOptions options_of(const lora::Adapter& adapter) {
  return lora::summarise(adapter).options.value_or(adapter.options());
}

/// The checkpoint's preprocessing, as far as the flags do not say otherwise; photos of one's own are turned.
void choose_preprocessing(Model& model, const RunOptions& options, bool own_data) {
  image::Preprocessing& preprocessing = model.loaded.preprocessing;
  preprocessing.orientation = own_data ? image::Orientation::kApplyExif : image::Orientation::kIgnoreExif;
  options.images.apply_to(preprocessing);
}

/// Throws ConfigError, CheckpointError.
StartingAdapter load(const fs::path& source, RunOptions& options, Model& model, const RunData& data) {
  lora::LoadedAdapter loaded = lora::load_adapter(source, model.loaded.clip, model.fingerprint);
  require_agreement(loaded.adapter, options, source);
  const double dropout = options.lora.dropout;
  loaded.adapter.set_dropout(dropout);
  options.lora = options_of(loaded.adapter);
  options.lora.dropout = dropout;

  // The authors' format cannot say everything that another one may.
  const bool is_authors = loaded.format == lora::AdapterFormat::kAuthors;
  StartingAdapter start = {loaded.adapter,
                           is_authors ? loaded.format : lora::AdapterFormat::kSafetensors,
                           run_templates(options.prompts, loaded.context),
                           {}};
  if (!loaded.context || loaded.context->preprocessing.is_null()) {
    choose_preprocessing(model, options, data.benchmark == nullptr);
  } else {
    use_preprocessing(model, loaded, source);
    const image::Preprocessing trained = model.loaded.preprocessing;
    options.images.apply_to(model.loaded.preprocessing);
    if (model.loaded.preprocessing != trained) {
      start.warnings.push_back(
          "adapter '" + source.string() +
          "' was trained with another preprocessing of images than --exif or --resize_mode ask for");
    }
  }
  if (!loaded.context) return start;
  const auto other_classes = class_names_warning(*loaded.context, data.dataset.class_names, source);
  if (other_classes) start.warnings.push_back(*other_classes);
  return start;
}

}  // namespace

StartingAdapter start_adapter(const fs::path& source, RunOptions& options, Model& model,
                              const RunData& data) {
  if (!source.empty()) return load(source, options, model, data);
  choose_preprocessing(model, options, data.benchmark == nullptr);
  return {{model.loaded.clip, options.lora},
          lora::AdapterFormat::kAuthors,
          run_templates(options.prompts, std::nullopt),
          {}};
}

}  // namespace clip_lora::cli
