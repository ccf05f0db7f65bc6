#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace clip_lora::text {

/// The prompt of every data set in training and evaluation.
inline constexpr std::string_view kDefaultTemplate = "a photo of a {}.";

/// `prompt_template` with its first `{}` replaced by `class_name`, in which each `_` becomes a space.
/// Throws ConfigError if the template has no `{}`.
std::string fill_template(std::string_view prompt_template, std::string_view class_name);

/// The prompts of every class, by label; a class's features are the mean over its prompts.
using ClassPrompts = std::vector<std::vector<std::string>>;

/// Every template filled with every class name. Throws ConfigError for a template without `{}`, or no
/// template.
ClassPrompts class_prompts(const std::vector<std::string>& class_names,
                           const std::vector<std::string>& templates);

/// Templates of a file: a JSON array, or text of one template per line. Throws ConfigError naming file and
/// line: missing, no UTF-8, empty, a template without `{}`.
std::vector<std::string> read_templates(const std::filesystem::path& file);

/// Prompts of every class out of a file: templates as read_templates, or a JSON object {class name:
/// [description, …]} that has every class of `class_names` (upper and lower case, `_` and space alike) and
/// may have others. A description is a whole prompt. Throws ConfigError naming the classes that are missing
/// (ten and a count).
ClassPrompts read_class_prompts(const std::filesystem::path& file,
                                const std::vector<std::string>& class_names);

/// CLIP's 1,000 ImageNet class names, in label order.
const std::vector<std::string>& imagenet_class_names();

/// OpenAI's 80 ImageNet templates, each with one `{}`.
const std::vector<std::string>& imagenet_templates();

}  // namespace clip_lora::text
