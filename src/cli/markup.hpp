#pragma once

#include <string>
#include <utility>
#include <vector>

namespace clip_lora::cli {

/// `text` for HTML and SVG, in elements and in attributes; bytes that are no UTF-8 become U+FFFD, control
/// characters
/// '?'.
std::string escaped(const std::string& text);

/// ` name="value"` for each pair, the values escaped.
std::string attributes(const std::vector<std::pair<std::string, std::string>>& pairs);

/// The shortest decimal that reads back as `value`.
std::string exact(double value);

/// A number for people, with the exact one and its name as attributes: <data value="84.9312"
/// data-key="accuracy">84.93
/// </data>.
std::string figure(double value, int decimals, const std::string& key);

/// "+1.25", "−1.25" or "0.00".
std::string signed_number(double value, int decimals);

}  // namespace clip_lora::cli
