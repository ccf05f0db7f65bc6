#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "clip_lora/cli/run_options.hpp"
#include "run_data.hpp"

namespace clip_lora::cli {

/// The images and captions of one run.
struct CaptionData {
  RunData run;                                 ///< its training items are pairs, an item per caption
  std::int64_t training_images = 0;            ///< of these pairs
  std::vector<std::string> captions;           ///< of the test split, image by image
  std::vector<std::int64_t> image_of_caption;  ///< its index in run.test
};

/// Those of the run before, which the next one mostly has too.
class KeptCaptions {
 public:
  /// Reads the captions, and checks that the images are there that the run needs: of the test split alone if
  /// it trains nothing. Throws ConfigError, DataError.
  const CaptionData& load(const RunOptions& options);

 private:
  /// Everything that decides which captions and images they are.
  using Key = std::tuple<std::string, std::string, double, double, std::int64_t, bool, bool>;

  std::optional<Key> key_;
  CaptionData found_;
};

}  // namespace clip_lora::cli
