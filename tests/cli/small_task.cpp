#include "cli/small_task.hpp"

#include <ATen/ATen.h>

#include <sstream>

#include "clip_lora/data/shapes_drawing.hpp"
#include "clip_lora/io/safetensors.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "clip_lora/model/naming.hpp"

namespace clip_lora::testing {
namespace {

/// The tokenizer wants its 49,408 rows; everything else is as small as it gets.
const model::ClipArchitecture kArchitecture = {
    .vision = {.width = 64, .layers = 1, .mlp_width = 256, .heads = 1},
    .text = {.width = 64, .layers = 1, .mlp_width = 256, .heads = 1},
    .patch_size_px = 16,
    .image_size_px = 32,
    .context_length = 77,
    .vocabulary = 49408,
    .embedding = 32};

}  // namespace

SmallTask::SmallTask() {
  model::Clip clip(kArchitecture);
  model::initialise(clip);
  io::write_safetensors(checkpoint(), model::state_dict(clip),
                        model::checkpoint_metadata(kArchitecture, {.size_px = 32, .resize_px = 32}));
  data::write_shapes_dataset(folder_ / "data", /*seed=*/1, {.train = 2, .val = 1, .test = 2, .size_px = 32});
}

std::vector<std::string> SmallTask::arguments(const std::map<std::string, std::string>& changes) const {
  std::map<std::string, std::string> flags = {{"--dataset", "shapes"},
                                              {"--root_path", (folder_ / "data").string()},
                                              {"--checkpoint", checkpoint().string()},
                                              {"--shots", "1"},
                                              {"--n_iters", "4"},
                                              {"--batch_size", "4"},
                                              {"--save_path", save_path().string()}};
  for (const auto& [flag, value] : changes) flags[flag] = value;
  std::vector<std::string> words;
  for (const auto& [flag, value] : flags) {
    words.push_back(flag);
    std::istringstream stream(value);
    for (std::string word; stream >> word;) words.push_back(word);
  }
  return words;
}

}  // namespace clip_lora::testing
