#include "caption_data.hpp"

#include <utility>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/captions.hpp"

namespace clip_lora::cli {
namespace {

/// Leaves the images that are there, and says how many are not.
std::int64_t leave_out_missing_images(std::vector<data::CaptionedImage>& images, const std::string& what,
                                      bool allowed) {
  if (allowed) return static_cast<std::int64_t>(data::leave_out_missing(images, what));
  data::require_images(images, what);
  return 0;
}

void add_test_images(CaptionData& found, data::CaptionDataset& dataset, bool allow_missing) {
  found.run.left_out["test"] = leave_out_missing_images(dataset.test, "test split", allow_missing);
  found.run.test = data::image_items(dataset.test);
  data::CaptionPairs pairs = data::caption_pairs(dataset.test);
  found.captions = std::move(pairs.captions);
  for (const auto& item : pairs.items) found.image_of_caption.push_back(item.label);
}

void add_training_pairs(CaptionData& found, data::CaptionDataset& dataset, const DataOptions& asked) {
  if (dataset.train.empty()) {
    throw DataError("--dataset '" + asked.dataset +
                    "': there are no training images (hint: --method zero_shot needs none)");
  }
  found.run.left_out["train"] =
      leave_out_missing_images(dataset.train, "training images", asked.allow_missing);
  found.training_images = std::ssize(dataset.train);
  data::CaptionPairs pairs = data::caption_pairs(dataset.train);
  found.run.train = std::move(pairs.items);
  found.run.captions = std::move(pairs.captions);
}

CaptionData find(const DataOptions& asked, bool learns) {
  data::CaptionDataset dataset = data::load_captions(asked.dataset, asked.root_path, asked.split);
  CaptionData found;
  found.run.dataset.name = dataset.name;
  found.run.is_own = data::find_caption_benchmark(asked.dataset) == nullptr;
  found.run.warnings = dataset.warnings;
  add_test_images(found, dataset, asked.allow_missing);
  if (learns) add_training_pairs(found, dataset, asked);
  return found;
}

}  // namespace

const CaptionData& KeptCaptions::load(const RunOptions& options) {
  const DataOptions& asked = options.data;
  const data::SplitOptions& split = asked.split;
  const bool learns = trains_anything(options);
  Key key = {asked.dataset,       asked.root_path, split.test_fraction, split.val_fraction, split.seed,
             asked.allow_missing, learns};
  if (key_ == key) return found_;
  key_.reset();  // until they are read
  found_ = find(asked, learns);
  key_ = std::move(key);
  return found_;
}

}  // namespace clip_lora::cli
