#pragma once

#include <string_view>
#include <vector>

namespace clip_lora::text {

// The tables that the build puts into the library, each a text file of lines.
std::string_view embedded_bpe_merges();            ///< "left right" per line, earliest merge first
std::string_view embedded_imagenet_class_names();  ///< one per line, in label order
std::string_view embedded_imagenet_templates();    ///< one per line
std::string_view embedded_html_entities();  ///< "name<TAB>hexadecimal code points" per line, sorted by name

/// The lines of `table`, without their line breaks. They point into it.
std::vector<std::string_view> lines_of(std::string_view table);

}  // namespace clip_lora::text
