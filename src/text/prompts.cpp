#include "clip_lora/text/prompts.hpp"

#include <algorithm>
#include <cstddef>

#include "clip_lora/core/errors.hpp"
#include "embedded.hpp"

namespace clip_lora::text {
namespace {

constexpr std::string_view kPlaceholder = "{}";

std::vector<std::string> strings_of(std::string_view table) {
  const auto lines = lines_of(table);
  return {lines.begin(), lines.end()};
}

}  // namespace

std::string fill_template(std::string_view prompt_template, std::string_view class_name) {
  const auto placeholder = prompt_template.find(kPlaceholder);
  if (placeholder == std::string_view::npos) {
    throw ConfigError("prompt template '" + std::string(prompt_template) +
                      "': expected a {} where the class name goes, got none (hint: the usual one is '" +
                      std::string(kDefaultTemplate) + "')");
  }
  std::string readable_name(class_name);
  std::replace(readable_name.begin(), readable_name.end(), '_', ' ');
  return std::string(prompt_template).replace(placeholder, kPlaceholder.size(), readable_name);
}

ClassPrompts class_prompts(const std::vector<std::string>& class_names,
                           const std::vector<std::string>& templates) {
  if (templates.empty()) throw ConfigError("expected at least one prompt template, got none");
  ClassPrompts prompts(class_names.size());
  for (std::size_t label = 0; label < class_names.size(); ++label) {
    for (const auto& prompt_template : templates) {
      prompts[label].push_back(fill_template(prompt_template, class_names[label]));
    }
  }
  return prompts;
}

const std::vector<std::string>& imagenet_class_names() {
  static const auto names = strings_of(embedded_imagenet_class_names());
  return names;
}

const std::vector<std::string>& imagenet_templates() {
  static const auto templates = strings_of(embedded_imagenet_templates());
  return templates;
}

}  // namespace clip_lora::text
