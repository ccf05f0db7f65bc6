#include "embedded.hpp"

#include <cstddef>

// Made by clip_lora_embed() in this room's CMakeLists.txt.
extern "C" {
extern const char clip_lora_bpe_merges_begin[], clip_lora_bpe_merges_end[];
extern const char clip_lora_imagenet_class_names_begin[], clip_lora_imagenet_class_names_end[];
extern const char clip_lora_imagenet_templates_begin[], clip_lora_imagenet_templates_end[];
extern const char clip_lora_html_entities_begin[], clip_lora_html_entities_end[];
}

namespace clip_lora::text {

std::string_view embedded_bpe_merges() { return {clip_lora_bpe_merges_begin, clip_lora_bpe_merges_end}; }

std::string_view embedded_imagenet_class_names() {
  return {clip_lora_imagenet_class_names_begin, clip_lora_imagenet_class_names_end};
}

std::string_view embedded_imagenet_templates() {
  return {clip_lora_imagenet_templates_begin, clip_lora_imagenet_templates_end};
}

std::string_view embedded_html_entities() {
  return {clip_lora_html_entities_begin, clip_lora_html_entities_end};
}

std::vector<std::string_view> lines_of(std::string_view table) {
  std::vector<std::string_view> lines;
  while (!table.empty()) {
    const auto length = table.find('\n');
    lines.push_back(table.substr(0, length));
    table.remove_prefix(length == std::string_view::npos ? table.size() : length + 1);
  }
  return lines;
}

}  // namespace clip_lora::text
