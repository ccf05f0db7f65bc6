#include "clip_lora/cli/picture_options.hpp"

#include <algorithm>

#include "clip_lora/cli/option_table.hpp"
#include "clip_lora/core/errors.hpp"

namespace clip_lora::cli {
namespace {

constexpr std::int64_t kLargestPictureBatch = 65536;
constexpr std::int64_t kMostReaders = 4096;

void require_within(const std::string& flag, std::int64_t value, std::int64_t least, std::int64_t most) {
  if (value >= least && value <= most) return;
  throw ConfigError(flag + " " + std::to_string(value) + ": expected " + std::to_string(least) + " to " +
                    std::to_string(most));
}

}  // namespace

void PictureOptions::validate() const {
  model.validate();
  compute.validate();
  require_one_of("--exif", exif, {"auto", "apply", "ignore"});
  if (!resize_mode.empty()) require_one_of("--resize_mode", resize_mode, {"shortest", "longest", "squash"});
  if (null_separated && std::ranges::find(images, "-") == images.end())
    throw ConfigError("--null needs '-', a list of names on standard input");
  require_within("--batch_size", batch_size, 1, kLargestPictureBatch);
  require_within("--workers", workers, 0, kMostReaders);
}

void bind(OptionTable& table, PictureOptions& options) {
  table.group("Model");
  table.add("adapter", options.adapter, "adapter to merge in: the authors' .pt, a PEFT folder, or ours");
  bind(table, options.model);

  table.group("Pictures");
  table.add("null", options.null_separated, "names on standard input end in NUL, as those of find -print0");
  table.add("exif", options.exif,
            "turn photos by their EXIF orientation: auto (as the adapter was trained; without one apply), "
            "apply, ignore");
  table.add(
      "resize_mode", options.resize_mode,
      "shortest (then cropped), longest (then padded) or squash; unset, the adapter's or the checkpoint's");

  table.group("Computing");
  table.add("batch_size", options.batch_size, "pictures at a time");
  table.add("workers", options.workers, "threads that decode pictures; 0: all cores");
  table.add("device", options.compute.device, "auto, cpu, cuda or cuda:N");
  table.add("precision", options.compute.precision,
            "auto (fp16 on CUDA, fp32 on the CPU), fp32, fp16 or bf16");
  table.add("tf32", options.compute.tf32, "let products of fp32 on CUDA be rounded to TF32");
  table.add("verbose", options.compute.verbose, "say more");
  table.add("quiet", options.compute.quiet, "say nothing but what was asked for, and errors");
}

}  // namespace clip_lora::cli
