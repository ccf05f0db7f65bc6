// Everything before the model, for the tests in Python: token ids, pixels, few-shot samples.
#include <fstream>

#include "clip_lora/data/few_shot.hpp"
#include "clip_lora/image/codec.hpp"
#include "clip_lora/image/preprocess.hpp"
#include "clip_lora/text/tokenizer.hpp"
#include "peer/driver.hpp"

namespace clip_lora::testing {
namespace {

/// {"texts": [...]} → {"ids": rows of 77}; what is too long is truncated.
Json tokenize(const Json& request) {
  static const text::Tokenizer tokenizer;
  Json rows = Json::array();
  for (const auto& words : request.at("texts")) {
    rows.push_back(
        tokenizer.tokenize(words.get<std::string>(), text::kContextLength, text::Overlong::kTruncate));
  }
  return {{"ids", rows}};
}

image::Preprocessing preprocessing_from(const Json& json) {
  image::Preprocessing preprocessing;
  preprocessing.size_px = json.at("size_px");
  preprocessing.resize_px = json.at("resize_px");
  preprocessing.resize_mode = image::parse_resize_mode(json.at("resize_mode"));
  preprocessing.interpolation = image::parse_interpolation(json.at("interpolation"));
  preprocessing.fill_color.fill(json.at("fill_color"));
  return preprocessing;
}

/// {"image": file, "out": file, "preprocessing": {…} or null} → {"height", "width"} of the decoded picture,
/// or of its view for the evaluation; the bytes of its rows go to `out`.
Json pixels(const Json& request) {
  image::Image image = image::decode_image(request.at("image").get<std::string>());
  if (!request.at("preprocessing").is_null()) {
    image = image::evaluation_view(image, preprocessing_from(request.at("preprocessing")));
  }
  std::ofstream out(request.at("out").get<std::string>(), std::ios::binary);
  out.exceptions(std::ios::badbit | std::ios::failbit);
  out.write(reinterpret_cast<const char*>(image.rgb.data()), static_cast<std::streamsize>(image.rgb.size()));
  return {{"height", image.height}, {"width", image.width}};
}

/// Items whose picture is named after their place in the list.
std::vector<data::Item> items_with(const Json& labels) {
  std::vector<data::Item> items;
  for (const auto& label : labels) items.push_back({std::to_string(items.size()), label.get<int>()});
  return items;
}

Json places(const std::vector<data::Item>& items) {
  Json places = Json::array();
  for (const auto& item : items) places.push_back(std::stoi(item.image.string()));
  return places;
}

/// {"train": labels, "val": labels, "shots", "seed"} → {"train": places in the list, "val": places}.
Json sample(const Json& request) {
  data::Dataset dataset;
  dataset.train = items_with(request.at("train"));
  dataset.val = items_with(request.at("val"));
  const data::FewShot few_shot = data::sample_few_shot(dataset, request.at("shots"), request.at("seed"));
  return {{"train", places(few_shot.train)}, {"val", places(few_shot.val)}};
}

}  // namespace
}  // namespace clip_lora::testing

int main() {
  using namespace clip_lora::testing;
  return serve({{"tokenize", tokenize}, {"pixels", pixels}, {"sample", sample}});
}
