#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "clip_lora/data/loader.hpp"
#include "clip_lora/image/codec.hpp"
#include "clip_lora/image/image.hpp"
#include "support/pictures.hpp"
#include "support/temporary_folder.hpp"

namespace clip_lora::testing {

/// A folder of seven pictures, each of another size. Picture i has label i, so that a batch's labels tell
/// which pictures it holds.
class NumberedPictures : public ::testing::Test {
 protected:
  static constexpr int kItems = 7;
  static constexpr int kSize = 8;

  static image::Image picture(int i) { return formula_picture(20 + i, 30 - i); }
  static std::uint64_t picture_bytes(int i) { return picture(i).rgb.size(); }

  NumberedPictures() {
    for (int i = 0; i < kItems; ++i) {
      const auto path = folder_ / (std::to_string(i) + ".png");
      image::write_png(path, picture(i));
      items_.push_back({path.string(), i});
    }
  }

  static std::vector<std::int64_t> labels_of(const data::Batch& batch) {
    const auto* labels = batch.labels.const_data_ptr<std::int64_t>();
    return {labels, labels + batch.labels.numel()};
  }

  image::Preprocessing preprocessing_{.size_px = kSize, .resize_px = kSize};
  TemporaryFolder folder_;
  std::vector<data::Item> items_;
};

}  // namespace clip_lora::testing
