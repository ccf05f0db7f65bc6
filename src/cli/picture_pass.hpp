#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "clip_lora/cli/console.hpp"
#include "clip_lora/cli/picture_options.hpp"
#include "picture_reader.hpp"

namespace clip_lora::cli {

/// One pass over the pictures of a command line, with a progress bar, and reports of those that have to be
/// skipped.
class PicturePass {
 public:
  /// `excluded`: see ImageInputs. `is_shown`: the results themselves are, so that no bar is wanted. Throws as
  /// ImageInputs.
  PicturePass(const PictureOptions& options, const image::Preprocessing& preprocessing,
              const std::vector<std::filesystem::path>& excluded, bool is_shown);

  /// The next pictures, nothing at the end. Throws as PictureReader.
  std::optional<PictureBatch> next();

  /// Reports on the standard error stream why a picture is skipped, and counts it.
  void skip(const std::string& reason);
  /// The same for one that next() has handed out.
  void skip_after_all(const std::string& reason);

  std::int64_t done() const { return done_; }
  std::int64_t skipped() const { return skipped_; }

  /// "<what>  1,234 pictures   120 images/s   10.3 s"
  void print_summary(std::ostream& stream, const std::string& what) const;
  /// Says on the standard error stream how many pictures were skipped, if any were.
  void report_skipped() const;

 private:
  ImageInputs inputs_;
  Stopwatch stopwatch_;
  ProgressBar bar_;
  std::int64_t done_ = 0;
  std::int64_t skipped_ = 0;
  PictureReader reader_;
};

}  // namespace clip_lora::cli
