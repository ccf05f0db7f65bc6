#include "prediction_text.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "clip_lora/cli/console.hpp"
#include "clip_lora/cli/option_table.hpp"

namespace clip_lora::cli {
namespace {

constexpr std::size_t kWidestClass = 40;
constexpr std::size_t kWidestPath = 80;
constexpr std::size_t kPercentWidth = 8;  // "100.00 %"

/// The shortest decimal that reads back as `value`.
std::string shortest(float value) {
  char text[32];
  return {text, std::to_chars(std::begin(text), std::end(text), value).ptr};
}

/// Characters of UTF-8.
std::size_t width(const std::string& text) {
  return static_cast<std::size_t>(std::ranges::count_if(
      text, [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0U) != 0x80U; }));
}

std::string padded(const std::string& text, std::size_t columns) {
  return text + std::string(columns - std::min(columns, width(text)), ' ');
}

std::string aligned_percent(float probability) {
  const std::string text = percent(100.0 * static_cast<double>(probability));
  return std::string(kPercentWidth - std::min(kPercentWidth, text.size()), ' ') + text;
}

}  // namespace

PredictionFormat parse_prediction_format(const std::string& name) {
  const std::map<std::string, PredictionFormat> formats = {{"table", PredictionFormat::kTable},
                                                           {"csv", PredictionFormat::kCsv},
                                                           {"jsonl", PredictionFormat::kJsonl}};
  require_one_of("--format", name, {"table", "csv", "jsonl"});
  return formats.at(name);
}

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char character : text)
    quoted += character == '"' ? std::string("\"\"") : std::string(1, character);
  return quoted + '"';
}

PredictionText::PredictionText(PredictionFormat format, std::vector<std::string> class_names,
                               std::size_t top_k)
    : format_(format), class_names_(std::move(class_names)), top_k_(top_k) {
  for (const auto& name : class_names_)
    class_width_ = std::max(class_width_, std::min(kWidestClass, width(name)));
}

std::string PredictionText::header() const {
  if (format_ != PredictionFormat::kCsv) return "";
  std::string line = "path,class,probability";
  for (std::size_t place = 2; place <= top_k_; ++place) {
    line += ",class_" + std::to_string(place) + ",probability_" + std::to_string(place);
  }
  return line + "\n";
}

std::string PredictionText::rows(const std::vector<PicturePrediction>& predictions) const {
  std::size_t path_width = 0;
  for (const auto& prediction : predictions) {
    path_width = std::max(path_width, std::min(kWidestPath, width(prediction.path)));
  }
  std::string text;
  for (const auto& prediction : predictions) {
    if (format_ == PredictionFormat::kCsv) text += csv_row(prediction);
    if (format_ == PredictionFormat::kJsonl) text += json_row(prediction);
    if (format_ == PredictionFormat::kTable) text += table_row(prediction, path_width);
    text += '\n';
  }
  return text;
}

std::string PredictionText::csv_row(const PicturePrediction& prediction) const {
  std::string line = csv_field(prediction.path);
  for (const auto& entry : prediction.classes)
    line += "," + csv_field(name(entry)) + "," + shortest(entry.probability);
  return line;
}

std::string PredictionText::json_row(const PicturePrediction& prediction) const {
  nlohmann::ordered_json line;
  line["path"] = prediction.path;
  line["predictions"] = nlohmann::ordered_json::array();
  for (const auto& entry : prediction.classes) {
    // Through its decimal: as a double it would have digits that say nothing.
    const double probability = std::strtod(shortest(entry.probability).c_str(), nullptr);
    line["predictions"].push_back({{"class", name(entry)}, {"probability", probability}});
  }
  return line.dump(-1, ' ', /*ensure_ascii=*/false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string PredictionText::table_row(const PicturePrediction& prediction, std::size_t path_width) const {
  const ClassProbability& best = prediction.classes.front();
  std::string others;
  for (std::size_t place = 1; place < prediction.classes.size(); ++place) {
    const ClassProbability& entry = prediction.classes[place];
    others += (place == 1 ? "   " : ", ") + name(entry) + " " +
              percent(100.0 * static_cast<double>(entry.probability));
  }
  const std::string path = printable(prediction.path);
  return padded(printable(name(best)), class_width_) + "  " + aligned_percent(best.probability) + "  " +
         (others.empty() ? path : padded(path, path_width) + printable(others));
}

}  // namespace clip_lora::cli
