#include "saved_predictions.hpp"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <unordered_map>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/csv_table.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMissing = static_cast<std::size_t>(-1);

std::string read_text(const fs::path& file, const std::string& source) {
  std::ifstream stream(file, std::ios::binary);
  std::error_code ignored;
  if (!stream || !fs::is_regular_file(file, ignored))
    throw DataError(source + "it is missing or cannot be read");
  return {std::istreambuf_iterator<char>(stream), {}};
}

std::size_t column(const data::CsvRow& header, const std::string& name) {
  const auto found = std::find(header.fields.begin(), header.fields.end(), name);
  return found == header.fields.end() ? kMissing : static_cast<std::size_t>(found - header.fields.begin());
}

double read_probability(const std::string& text, const std::string& where) {
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    throw DataError(where + "probability '" + text + "': expected a number");
  return value;
}

}  // namespace

std::vector<SavedPrediction> read_predictions(const fs::path& file) {
  const std::string source = "predictions '" + file.string() + "': ";
  const auto rows = data::parse_csv(read_text(file, source), source);
  if (rows.empty()) throw DataError(source + "it is empty");
  const data::CsvRow& header = rows.front();
  const std::size_t path = column(header, "path"), label = column(header, "label"),
                    predicted = column(header, "predicted"), probability = column(header, "probability"),
                    zero_shot = column(header, "zero_shot_predicted");
  if (std::max({path, label, predicted, probability}) == kMissing)
    throw DataError(source + "expected columns path, label, predicted and probability");
  std::vector<SavedPrediction> predictions;
  for (auto row = rows.begin() + 1; row != rows.end(); ++row) {
    const std::string where = source + "line " + std::to_string(row->line) + ": ";
    if (row->fields.size() != header.fields.size()) {
      throw DataError(where + std::to_string(row->fields.size()) + " fields, expected " +
                      std::to_string(header.fields.size()));
    }
    predictions.push_back({row->fields[path], row->fields[label], row->fields[predicted],
                           read_probability(row->fields[probability], where),
                           zero_shot == kMissing ? std::nullopt : std::optional(row->fields[zero_shot])});
  }
  return predictions;
}

PairedPredictions pair_predictions(const std::vector<SavedPrediction>& first,
                                   const std::vector<SavedPrediction>& second) {
  std::unordered_map<std::string, const SavedPrediction*> by_path;
  for (const auto& prediction : first) {
    if (!by_path.emplace(prediction.path, &prediction).second)
      throw DataError("predictions: '" + prediction.path + "' is there twice, expected once");
  }
  PairedPredictions pairs;
  for (const auto& prediction : second) {
    const auto other = by_path.find(prediction.path);
    if (other == by_path.end()) {
      ++pairs.only_in_second;
      continue;
    }
    if (other->second->label != prediction.label) {
      throw DataError("predictions: '" + prediction.path + "' is '" + other->second->label +
                      "' in one run and '" + prediction.label + "' in the other");
    }
    const bool a = other->second->is_right(), b = prediction.is_right();
    ++(a ? (b ? pairs.counts.both_right : pairs.counts.only_first)
         : (b ? pairs.counts.only_second : pairs.counts.both_wrong));
    by_path.erase(other);
  }
  pairs.only_in_first = by_path.size();
  return pairs;
}

}  // namespace clip_lora::cli
