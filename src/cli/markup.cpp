#include "markup.hpp"

#include <cmath>
#include <nlohmann/json.hpp>

#include "clip_lora/cli/console.hpp"
#include "clip_lora/io/json_text.hpp"

namespace clip_lora::cli {
namespace {

/// Through JSON, whose writer mends what is no UTF-8.
std::string valid_utf8(const std::string& text) {
  return nlohmann::json::parse(io::json_text(text)).get<std::string>();
}

}  // namespace

std::string escaped(const std::string& text) {
  std::string result;
  for (const char character : printable(valid_utf8(text))) {
    switch (character) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += character;
    }
  }
  return result;
}

std::string attributes(const std::vector<std::pair<std::string, std::string>>& pairs) {
  std::string text;
  for (const auto& [name, value] : pairs) text += " " + name + "=\"" + escaped(value) + "\"";
  return text;
}

std::string exact(double value) { return io::json_text(value); }

std::string figure(double value, int decimals, const std::string& key) {
  return "<data" + attributes({{"value", exact(value)}, {"data-key", key}}) + ">" + fixed(value, decimals) +
         "</data>";
}

std::string signed_number(double value, int decimals) {
  const char* sign = value > 0.0 ? "+" : value < 0.0 ? "−" : "";
  return sign + fixed(std::abs(value), decimals);
}

}  // namespace clip_lora::cli
