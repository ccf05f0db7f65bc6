#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace clip_lora::text {

/// The prompt of every data set in training and evaluation.
inline constexpr std::string_view kDefaultTemplate = "a photo of a {}.";

/// `prompt_template` with its first `{}` replaced by `class_name`, in which each `_` becomes a space.
/// Throws ConfigError if the template has no `{}`.
std::string fill_template(std::string_view prompt_template, std::string_view class_name);

/// CLIP's 1,000 ImageNet class names, in label order.
const std::vector<std::string>& imagenet_class_names();

/// OpenAI's 80 ImageNet templates, each with one `{}`.
const std::vector<std::string>& imagenet_templates();

}  // namespace clip_lora::text
