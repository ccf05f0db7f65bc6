// What comes before the model, for the tests in Python: token ids, lists of files and few-shot samples;
// pictures have a driver of their own.
#include <algorithm>

#include "clip_lora/core/python_random.hpp"
#include "clip_lora/data/few_shot.hpp"
#include "clip_lora/data/image_folder.hpp"
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

/// Items whose picture is named after their place in the list.
std::vector<data::Item> items_with(const Json& labels) {
  std::vector<data::Item> items;
  for (const auto& label : labels) items.push_back({std::to_string(items.size()), label.get<int>()});
  return items;
}

Json places(const std::vector<data::Item>& items) {
  Json places = Json::array();
  for (const auto& item : items) places.push_back(std::stoi(item.image));
  return places;
}

/// {"train": labels, "val": labels or null, "shots", "seed"} → {"train": places in the list, "val": places}.
/// null: as of ImageNet, val is drawn from train.
Json sample(const Json& request) {
  data::Dataset dataset;
  dataset.train = items_with(request.at("train"));
  for (const data::Item& item : dataset.train) {
    dataset.class_names.resize(
        std::max(dataset.class_names.size(), static_cast<std::size_t>(item.label) + 1));
  }
  dataset.val_is_drawn_from_train = request.at("val").is_null();
  if (!dataset.val_is_drawn_from_train) dataset.val = items_with(request.at("val"));
  const data::FewShot few_shot = data::sample_few_shot(dataset, request.at("shots"), request.at("seed"));
  return {{"train", places(few_shot.train)}, {"val", places(few_shot.val)}};
}

/// {"folder"} → {"classes": names of its class folders, "images": [path, label] as ImageFolder's samples}.
Json image_folder(const Json& request) {
  const auto classes =
      data::list_class_folders(request.at("folder").get<std::string>(), data::HiddenFiles::kKeep);
  Json names = Json::array();
  Json images = Json::array();
  for (std::size_t label = 0; label < classes.size(); ++label) {
    names.push_back(classes[label].name);
    for (const auto& image : classes[label].images) images.push_back({image, label});
  }
  return {{"classes", names}, {"images", images}};
}

/// {"counts", "seed"} → {"orders": for each count, the order that shuffling so many gives, one after the
/// other}.
Json shuffle(const Json& request) {
  PythonRandom random(request.at("seed").get<std::int64_t>());
  Json orders = Json::array();
  for (const auto& count : request.at("counts")) orders.push_back(random.shuffle(count.get<std::size_t>()));
  return {{"orders", orders}};
}

}  // namespace
}  // namespace clip_lora::testing

int main() {
  using namespace clip_lora::testing;
  return serve(
      {{"tokenize", tokenize}, {"sample", sample}, {"shuffle", shuffle}, {"image_folder", image_folder}});
}
