#include <ATen/ATen.h>

#include "clip_lora/train/checkpoint.hpp"
#include "forms.hpp"
#include "support/files.hpp"
#include "targets.hpp"

namespace clip_lora::fuzz {
namespace {

void run(std::string_view input) {
  const auto path = scratch_file("checkpoint.safetensors", safetensors_file(input));
  read_whatever_it_is([&] {
    const train::TrainingCheckpoint checkpoint = train::read_checkpoint(path);
    require(checkpoint.state.iteration >= 0 && checkpoint.state.images >= 0, "counts are not negative");
    train::require_settings(checkpoint.settings, {{"r", "2"}}, path);
  });
}

std::vector<std::string> seeds() {
  train::TrainingCheckpoint checkpoint;
  checkpoint.settings = {{"r", "2"}, {"lr", "0.0002"}};
  checkpoint.state.iteration = 20;
  checkpoint.state.images = 640;
  checkpoint.state.loss = 0.5;
  checkpoint.state.validation = {{10, 50.0}, {20, 62.5}};
  checkpoint.state.step = {{"counters", at::ones({3}, at::kDouble)}, {"a", at::ones({2, 2})}};
  const auto path = scratch_folder() / "seed.safetensors";
  train::write_checkpoint(path, checkpoint);
  const std::string plain = testing::read_bytes(path);
  checkpoint.state.best = {10, 70.0};
  checkpoint.state.best_parameters = at::ones({4});
  train::write_checkpoint(path, checkpoint);
  const std::string with_best = testing::read_bytes(path);
  return {plain, plain.substr(8), with_best, with_best.substr(8)};
}

}  // namespace

const Target training_checkpoints = {"training_checkpoints", run, seeds};

}  // namespace clip_lora::fuzz
