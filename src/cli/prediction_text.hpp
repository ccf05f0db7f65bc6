#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace clip_lora::cli {

/// A class that a picture may show.
struct ClassProbability {
  std::int64_t label = 0;
  float probability = 0.0F;
};

/// What a picture shows, the likeliest class first.
struct PicturePrediction {
  std::string path;
  std::vector<ClassProbability> classes;  ///< at least one
};

enum class PredictionFormat {
  kTable,  ///< for people: class, probability, picture, and what else it may be
  kCsv,    ///< path,class,probability,class_2,probability_2,…; quoted as RFC 4180 has it, lines end in \n
  kJsonl  ///< {"path": …, "predictions": [{"class": …, "probability": …}, …]}; what is no UTF-8 becomes
          ///< U+FFFD
};

/// Names as on the command line; the parser throws ConfigError with the nearest name.
PredictionFormat parse_prediction_format(const std::string& name);

/// Writes predictions down.
class PredictionText {
 public:
  /// top_k: classes of every prediction.
  PredictionText(PredictionFormat format, std::vector<std::string> class_names, std::size_t top_k);

  /// What comes before the first row; "" for JSONL.
  std::string header() const;
  /// One line for each prediction. A table's columns are aligned within a call.
  std::string rows(const std::vector<PicturePrediction>& predictions) const;

 private:
  const std::string& name(const ClassProbability& prediction) const {
    return class_names_[static_cast<std::size_t>(prediction.label)];
  }
  std::string csv_row(const PicturePrediction& prediction) const;
  std::string json_row(const PicturePrediction& prediction) const;
  std::string table_row(const PicturePrediction& prediction, std::size_t path_width) const;

  PredictionFormat format_;
  std::vector<std::string> class_names_;
  std::size_t top_k_;
  std::size_t class_width_ = 0;  // of a table's first column
};

/// A field of a CSV table as RFC 4180 wants it: in quotes where it needs them.
std::string csv_field(const std::string& text);

}  // namespace clip_lora::cli
