#include "run_prompts.hpp"

#include <algorithm>

#include "clip_lora/core/errors.hpp"

namespace clip_lora::cli {
namespace {

constexpr std::size_t kDifferencesNamed = 3;

}  // namespace

std::vector<std::string> run_templates(const PromptOptions& options,
                                       const std::optional<lora::AdapterContext>& adapter) {
  if (!options.templates.empty()) return options.templates;
  if (options.templates_file == "imagenet") return text::imagenet_templates();
  if (!options.templates_file.empty()) return text::read_templates(options.templates_file);
  if (adapter && !adapter->templates.empty()) return adapter->templates;
  return {std::string(text::kDefaultTemplate)};
}

text::ClassPrompts training_prompts(const PromptOptions& options, const std::vector<std::string>& class_names,
                                    const std::vector<std::string>& templates) {
  if (options.train_templates == "first") return text::class_prompts(class_names, {templates.front()});
  return text::class_prompts(class_names, templates);
}

text::ClassPrompts zero_shot_prompts(const PromptOptions& options, const data::Benchmark* benchmark,
                                     const std::vector<std::string>& class_names,
                                     const std::vector<std::string>& templates) {
  const std::string& asked = options.zero_shot_templates;
  if (asked == "plain") return text::class_prompts(class_names, templates);
  if (asked == "dataset" && benchmark != nullptr)
    return text::class_prompts(class_names, benchmark->templates);
  return text::read_class_prompts(asked, class_names);
}

std::optional<std::string> class_names_warning(const lora::AdapterContext& adapter,
                                               const std::vector<std::string>& class_names,
                                               const std::filesystem::path& source) {
  const auto& trained = adapter.class_names;
  if (trained.empty() || class_names.empty() || trained == class_names) return std::nullopt;
  std::vector<std::string> differences;
  if (trained.size() != class_names.size()) {
    differences.push_back(std::to_string(trained.size()) + " classes, here " +
                          std::to_string(class_names.size()));
  }
  for (std::size_t label = 0; label < std::min(trained.size(), class_names.size()); ++label) {
    if (trained[label] == class_names[label]) continue;
    differences.push_back("class " + std::to_string(label) + " was '" + trained[label] + "', here '" +
                          class_names[label] + "'");
  }
  return "adapter '" + source.string() +
         "' was trained for other class names: " + join_capped(differences, kDifferencesNamed);
}

}  // namespace clip_lora::cli
