#include "run_adapter.hpp"

#include "clip_lora/lora/method.hpp"
#include "run_prompts.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

/// A saved adapter must be what all options say, one of --adapter only what those say that were written out.
void require_agreement(const lora::Adapter& adapter, const RunOptions& options, const fs::path& source) {
  if (options.output.adapter.empty()) return lora::require_same_options(adapter, options.adapter, source);
  lora::require_same_options(adapter, options.adapter, source, options.given);
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
  require_agreement(*loaded.adapter, options, source);
  loaded.adapter->set_training_options(options.adapter);
  options.adapter = loaded.adapter->options();

  const auto is_given = [&](const char* flag) { return options.given.contains(flag); };
  if (!is_given("eval_scale")) options.eval_scales = {loaded.scale};
  PromptOptions prompts = options.prompts;
  const bool has_templates = loaded.context && !loaded.context->templates.empty();
  if (has_templates && !is_given("templates")) prompts.templates_file.clear();  // the method's default

  // The authors' format cannot say everything that another one may.
  const bool is_authors = loaded.format == lora::AdapterFormat::kAuthors;
  StartingAdapter start = {loaded.adapter,
                           is_authors ? loaded.format : lora::AdapterFormat::kSafetensors,
                           run_templates(prompts, loaded.context),
                           {}};
  if (!loaded.context || loaded.context->preprocessing.is_null()) {
    choose_preprocessing(model, options, data.is_own);
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
  choose_preprocessing(model, options, data.is_own);
  const auto adapter = lora::make_adapter(model.loaded.clip, options.adapter);
  return {adapter, lora::file_format(*adapter), run_templates(options.prompts, std::nullopt), {}};
}

}  // namespace clip_lora::cli
