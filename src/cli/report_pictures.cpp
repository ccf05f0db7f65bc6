#include <algorithm>
#include <cstdint>
#include <map>
#include <span>

#include "clip_lora/cli/console.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/image/codec.hpp"
#include "clip_lora/image/resample.hpp"
#include "markup.hpp"
#include "report_parts.hpp"
#include "saved_predictions.hpp"

namespace clip_lora::cli {
namespace {

constexpr int kSidePx = 96;
constexpr int kQuality = 78;

std::string base64(std::span<const std::uint8_t> bytes) {
  constexpr const char* kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t count = std::min<std::size_t>(3, bytes.size() - i);
    std::uint32_t bits = 0;
    for (std::size_t k = 0; k < 3; ++k) bits = bits << 8 | (k < count ? bytes[i + k] : 0U);
    for (std::size_t k = 0; k < 4; ++k) text += k <= count ? kDigits[bits >> (18 - 6 * k) & 63U] : '=';
  }
  return text;
}

/// The central square of a picture, at most kSidePx wide, as a JPEG. Throws DataError.
std::vector<std::uint8_t> thumbnail(const std::string& path) {
  const image::Image picture = image::decode_image(path, image::Orientation::kApplyExif);
  const int side = std::min(picture.height, picture.width);
  const image::Box square = {(picture.height - side) / 2, (picture.width - side) / 2, side, side};
  const int shown = std::min(kSidePx, side);
  return image::encode_jpeg(image::resize(picture, square, shown, shown, image::Interpolation::kBicubic),
                            kQuality);
}

/// What changed a picture's prediction for good or bad.
struct Change {
  const char* css;
  const char* title;
  bool (*happened)(const SavedPrediction& prediction);
};

constexpr Change kFixed = {"fixed", "Fixed by adaptation", [](const SavedPrediction& prediction) {
                             return prediction.is_right() &&
                                    *prediction.zero_shot_predicted != prediction.label;
                           }};
constexpr Change kBroken = {"broken", "Broken by adaptation", [](const SavedPrediction& prediction) {
                              return !prediction.is_right() &&
                                     *prediction.zero_shot_predicted == prediction.label;
                            }};

/// Those that `change` happened to, the surest first; of each class one, then of each a second, and so on.
std::vector<const SavedPrediction*> choose(const std::vector<SavedPrediction>& predictions,
                                           const Change& change) {
  std::vector<const SavedPrediction*> chosen;
  for (const auto& prediction : predictions) {
    if (change.happened(prediction)) chosen.push_back(&prediction);
  }
  std::stable_sort(chosen.begin(), chosen.end(), [](const SavedPrediction* a, const SavedPrediction* b) {
    return a->probability > b->probability;
  });
  std::map<std::string, std::size_t> seen;
  std::vector<std::pair<std::size_t, const SavedPrediction*>> turns;
  for (const SavedPrediction* prediction : chosen) turns.emplace_back(seen[prediction->label]++, prediction);
  std::stable_sort(turns.begin(), turns.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::transform(turns.begin(), turns.end(), chosen.begin(), [](const auto& turn) { return turn.second; });
  return chosen;
}

std::string picture(const SavedPrediction& prediction, const std::vector<std::uint8_t>& jpeg,
                    const Change& change) {
  const bool fixed_now = prediction.is_right();
  const std::string other =
      fixed_now ? "was " + *prediction.zero_shot_predicted : "now " + prediction.predicted;
  return std::string("<figure class=\"") + change.css + "\"><img width=\"96\" height=\"96\"" +
         attributes({{"alt", prediction.label}, {"title", prediction.path}}) +
         " src=\"data:image/jpeg;base64," + base64(jpeg) + "\"><figcaption><b>" + escaped(prediction.label) +
         "</b><br>" + escaped(other) + "</figcaption></figure>";
}

std::string row_of_pictures(const std::vector<SavedPrediction>& predictions, const Change& change,
                            std::size_t count, std::size_t& budget) {
  const auto chosen = choose(predictions, change);
  std::string text = std::string("<h4>") + change.title + " <span class=\"partial\">" +
                     with_commas(static_cast<std::int64_t>(chosen.size())) + " of " +
                     with_commas(static_cast<std::int64_t>(predictions.size())) + " pictures</span></h4>";
  std::string figures;
  std::size_t shown = 0, unreadable = 0;
  for (const SavedPrediction* prediction : chosen) {
    if (shown == count || unreadable > count) break;
    std::string markup;
    try {
      markup = picture(*prediction, thumbnail(prediction->path), change);
    } catch (const DataError&) {
      ++unreadable;
      continue;
    }
    if (markup.size() > budget) break;
    budget -= markup.size();
    figures += markup;
    ++shown;
  }
  if (unreadable > 0)
    text +=
        "<p class=\"note\">Some pictures are not where predictions.csv has them (hint: relative paths begin "
        "where the run was started).</p>";
  return text + (figures.empty() ? "" : "<div class=\"pictures\">" + figures + "</div>");
}

}  // namespace

std::string pictures_part(const SavedRun& run, std::size_t count, std::size_t& budget) {
  if (count == 0) return "";
  std::error_code ignored;
  if (!std::filesystem::exists(run.folder / kPredictionsFile, ignored)) {
    return "<p class=\"note\">Pictures that changed sides are shown for runs with --save_predictions.</p>";
  }
  try {
    const auto predictions = read_predictions(run.folder / kPredictionsFile);
    const bool compared = !predictions.empty() && predictions.front().zero_shot_predicted.has_value();
    if (!compared)
      return "<p class=\"note\">predictions.csv has no zero-shot predictions to compare with.</p>";
    return row_of_pictures(predictions, kFixed, count, budget) +
           row_of_pictures(predictions, kBroken, count, budget);
  } catch (const DataError& error) {
    return "<p class=\"note\">" + escaped(error.what()) + "</p>";
  }
}

}  // namespace clip_lora::cli
