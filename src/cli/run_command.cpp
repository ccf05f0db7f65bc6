
#include "clip_lora/cli/commands.hpp"
#include "clip_lora/cli/option_table.hpp"
#include "clip_lora/cli/run.hpp"

namespace clip_lora::cli {

int run_command(const std::vector<std::string>& arguments) {
  RunOptions options;
  OptionTable table("clip_lora",
                    "Adapts CLIP to a classification task from a few labelled images per class (CLIP-LoRA).\n"
                    "By scripts/launch_multi_gpu.sh or torchrun several processes train one model together.\n"
                    "Other commands (each has --help):\n" +
                        command_list());
  bind(table, options);
  if (!table.parse(arguments)) return 0;
  options.given = table.given();
  run(options);
  return 0;
}

}  // namespace clip_lora::cli
