#include <cmath>
#include <nlohmann/json.hpp>

#include "clip_lora/cli/commands.hpp"
#include "clip_lora/cli/option_table.hpp"
#include "clip_lora/cli/predict.hpp"
#include "clip_lora/cli/sort_pictures.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/text/prompts.hpp"
#include "prediction_text.hpp"

namespace clip_lora::cli {
void PredictOptions::validate() const {
  pictures.validate();
  if (pictures.adapter.empty() && class_names.empty()) {
    throw ConfigError("--adapter or --class_names is missing: one of them must say which classes there are");
  }
  if (!templates.empty() && !templates_file.empty())
    throw ConfigError("--template and --templates exclude each other");
  for (const auto& prompt_template : templates)
    text::fill_template(prompt_template, "");  // throws without {}
  if (top_k < 1) throw ConfigError("--top_k " + std::to_string(top_k) + ": expected at least 1");
  parse_prediction_format(format);
  parse_sort_mode(mode);
  if (!std::isfinite(threshold) || threshold < 0.0 || threshold > 1.0) {
    throw ConfigError("--threshold " + std::to_string(threshold) + ": expected a probability, 0 to 1");
  }
  if (!sort_into.empty()) return;
  if (mode != PredictOptions{}.mode) throw ConfigError("--mode " + mode + " goes with --sort_into only");
  if (threshold > 0.0) throw ConfigError("--threshold goes with --sort_into only");
}

void bind(OptionTable& table, PredictOptions& options) {
  bind(table, options.pictures);

  table.group("Classes");
  table.add("class_names", options.class_names,
            "file of class names: JSON, or lines of names or of 'folder: name'; unset, the adapter's");
  table.add_repeated(
      "template", options.templates,
      "prompt with {} for the class name; given several times, all are averaged; unset, the adapter's, "
      "or 'a photo of a {}.'");
  table.add("templates", options.templates_file,
            "file of templates (JSON array, or one per line), or JSON of descriptions per class");

  table.group("Predictions");
  table.add("top_k", options.top_k, "classes per picture");
  table.add("format", options.format, "table, csv or jsonl");
  table.add("out", options.out, "file to write; unset, standard output");
  table.add("force", options.force, "replace the file that is there");

  table.group("Sorting");
  table.add("sort_into", options.sort_into, "folder: each picture goes into its class's folder in it");
  table.add("mode", options.mode, "copy, link (symbolically) or move; nothing is ever replaced");
  table.add("threshold", options.threshold, "pictures of a lower probability go to unsure/");
}

int predict_command(const std::vector<std::string>& arguments) {
  PredictOptions options;
  OptionTable table(
      "clip_lora predict",
      "Says what pictures show, and sorts them into a folder per class if asked to. IMAGES are files, "
      "folders (pictures at any depth), quoted patterns such as 'photos/*.jpg', or - for a list of files "
      "on standard input, one per line. Exit code 3 if pictures had to be skipped.");
  table.add_arguments("IMAGES", options.pictures.images, "files, folders, patterns, or -");
  bind(table, options);
  if (!table.parse(arguments)) return 0;
  return predict(options) == 0 ? 0 : kSkippedFiles;
}

}  // namespace clip_lora::cli
