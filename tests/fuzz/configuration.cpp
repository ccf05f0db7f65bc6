#include <nlohmann/json.hpp>

#include "cli/sweep_grid.hpp"
#include "cli/sweep_options.hpp"
#include "clip_lora/cli/option_table.hpp"
#include "clip_lora/cli/run_options.hpp"
#include "clip_lora/io/json_text.hpp"
#include "targets.hpp"

namespace clip_lora::fuzz {
namespace {

/// The input as --config of a run, and of a sweep if it has the grid that only a sweep takes.
void run(std::string_view input) {
  const auto file = scratch_file("config.json", input);
  // Most inputs are no JSON, which the table's first step finds; it takes milliseconds to make.
  bool is_json = false;
  read_whatever_it_is([&] {
    io::read_json_object(file, "");
    is_json = true;
  });
  if (!is_json) return;
  read_whatever_it_is([&] {
    cli::RunOptions options;
    cli::OptionTable table("clip_lora", "");
    cli::bind(table, options);
    require(table.parse({"--config", file.string()}), "the configuration is read");
    options.validate();
    options.given = table.given();
    table.words(table.config());
  });
  if (input.find("\"grid\"") == std::string_view::npos) return;
  read_whatever_it_is([&] {
    cli::SweepOptions options;
    require(cli::parse(options, {"--config", file.string()}), "the sweep's configuration is read");
    require(!cli::expand_grid(options).empty(), "a sweep has runs");
  });
}

std::vector<std::string> seeds() {
  return {
      R"({"dataset": "eurosat", "root_path": "data", "shots": 4, "seed": 1, "backbone": "ViT-B/16"})",
      R"({"dataset": "x.csv", "shots": "all", "params": ["q", "v"], "lr": 2e-4, "eval_scale": [0.5, 1], "template": "a {}", "epochs": "auto"})",
      R"({"method": "r_adapter", "adapter_rank": 4, "loss": "mpm_nce", "margin": 0.1, "dataset": "dtd", "verbose": true})",
      R"({"lr": [[[[]]]], "shot": 1})",
      R"({"r": 18446744073709551615, "alpha": 1e400, "n_iters": -1, "batch_size": 1e300})",
      R"({"datasets": ["dtd", "eurosat"], "seeds": [1, 2], "shots": ["all", 4], "backbones": ["ViT-B/32"], "grid": {"r": [2, 4], "params": [["q"], ["q", "v"]]}, "save_path": "out"})",
      R"({"datasets": "all", "seeds": [1], "grid": {"lr": 3}, "save_path": "out", "slurm_time": "1-02:03:04"})",
      "{\"dataset\": " + std::string(100, '[') + std::string(100, ']') + "}"};
}

}  // namespace

const Target configuration = {"configuration", run, seeds};

}  // namespace clip_lora::fuzz
