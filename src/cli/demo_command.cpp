#include <filesystem>
#include <iostream>
#include <string>
#include <string_view>

#include "clip_lora/cli/commands.hpp"
#include "clip_lora/cli/console.hpp"
#include "clip_lora/cli/option_table.hpp"
#include "clip_lora/cli/run.hpp"
#include "clip_lora/core/device.hpp"
#include "clip_lora/data/shapes_drawing.hpp"
#include "clip_lora/io/atomic_file.hpp"
#include "command_line.hpp"

// apps/demo_clip.safetensors; made by clip_lora_embed() in this room's CMakeLists.txt.
extern "C" {
extern const char clip_lora_demo_clip_begin[], clip_lora_demo_clip_end[];
}

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

struct DemoOptions {
  std::string out = "clip_lora_demo";
  std::int64_t shots = 4;
  std::int64_t seed = 1;
  std::string device = "auto";
};

void bind(OptionTable& table, DemoOptions& options) {
  table.add("out", options.out, "folder for the pictures, the demo's CLIP and the results");
  table.add("shots", options.shots, "training images per class");
  table.add("seed", options.seed, "seed of the few-shot sample and of training");
  table.add("device", options.device, "auto, cpu, cuda or cuda:N");
}

/// The run that the demo is: ordinary, but a small model wants a larger rank and learning rate, and is soon
/// done.
RunOptions run_options(const DemoOptions& demo) {
  const fs::path out = demo.out;
  RunOptions options;
  options.data.dataset = "shapes";
  options.data.root_path = (out / "data").string();
  options.data.shots = demo.shots;
  options.data.seed = demo.seed;
  options.model.checkpoint = (out / "demo_clip.safetensors").string();
  options.adapter.lora.rank = 8;
  options.adapter.lora.projections.o = true;
  options.training.iterations_per_shot = 170;
  options.training.optimiser.learning_rate = 4e-3;
  options.output.save_path = (out / "results").string();
  options.compute.device = demo.device;
  return options;
}

void write_checkpoint(const fs::path& path) {
  io::write_atomically(path, std::string_view(clip_lora_demo_clip_begin, clip_lora_demo_clip_end));
}

}  // namespace

int demo_command(const std::vector<std::string>& arguments) {
  DemoOptions demo;
  OptionTable table(
      "clip_lora demo",
      "Draws shapes as a thermal camera sees them, and adapts to them a tiny CLIP that knows the shapes "
      "in paint only.");
  bind(table, demo);
  if (!table.parse(arguments)) return 0;
  const RunOptions options = run_options(demo);
  options.validate();
  parse_device(demo.device);  // a device that is not there is told before anything is written

  const Stopwatch stopwatch;
  constexpr std::uint64_t kPicturesSeed = 1;  // the same pictures for every --seed
  data::write_shapes_dataset(options.data.root_path, kPicturesSeed);
  write_checkpoint(options.model.checkpoint);
  std::cout << "pictures   " << (fs::path(options.data.root_path) / "shapes" / "images").string()
            << "/   drawn in " << duration(stopwatch.seconds()) << "\n"
            << "command    " << command_line(options) << std::endl;
  run(options);
  return 0;
}

}  // namespace clip_lora::cli
