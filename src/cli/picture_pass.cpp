#include "picture_pass.hpp"

#include <iostream>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/parallel.hpp"

namespace clip_lora::cli {

PicturePass::PicturePass(const PictureOptions& options, const image::Preprocessing& preprocessing,
                         const std::vector<std::filesystem::path>& excluded, bool is_shown)
    : inputs_(options.images, options.null_separated, excluded),
      // A bar needs to know how many there are.
      bar_("pictures", "images", inputs_.count().value_or(0),
           !options.compute.quiet && !is_shown && inputs_.count().has_value()),
      reader_(inputs_, preprocessing, options.batch_size,
              options.workers == 0 ? hardware_workers() : static_cast<int>(options.workers),
              [this](const std::string& reason) { skip(reason); }) {}

std::optional<PictureBatch> PicturePass::next() {
  bar_.update(done_ + skipped_, [&] { return images_per_second(done_ + skipped_, stopwatch_.seconds()); });
  auto batch = reader_.next();
  if (batch) done_ += static_cast<std::int64_t>(batch->paths.size());
  if (!batch) bar_.clear();
  return batch;
}

void PicturePass::skip(const std::string& reason) {
  bar_.clear();
  std::cerr << "skipped: " << reason << std::endl;
  ++skipped_;
}

void PicturePass::skip_after_all(const std::string& reason) {
  --done_;
  skip(reason);
}

void PicturePass::print_summary(std::ostream& stream, const std::string& what) const {
  stream << what << std::string(11 - what.size(), ' ') << with_commas(done_) << " pictures   "
         << images_per_second(done_, stopwatch_.seconds()) << "   " << duration(stopwatch_.seconds()) << "\n";
}

void PicturePass::report_skipped() const {
  if (skipped_ == 0) return;
  std::cerr << "clip_lora: " << with_commas(skipped_) << " of " << with_commas(done_ + skipped_)
            << " pictures had to be skipped" << std::endl;
}

}  // namespace clip_lora::cli
