#include <filesystem>
#include <nlohmann/json.hpp>

#include "clip_lora/cli/commands.hpp"
#include "clip_lora/cli/embed.hpp"
#include "clip_lora/cli/option_table.hpp"
#include "clip_lora/core/errors.hpp"

namespace clip_lora::cli {
void EmbedOptions::validate() const {
  pictures.validate();
  if (out.empty()) throw ConfigError("--out is missing: expected the file to write, .safetensors or .npy");
  const std::filesystem::path ending = std::filesystem::path(out).extension();
  if (ending != ".safetensors" && ending != ".npy")
    throw ConfigError("--out '" + out + "': expected a name that ends in .safetensors or .npy");
}

void bind(OptionTable& table, EmbedOptions& options) {
  bind(table, options.pictures);

  table.group("Features");
  table.add("out", options.out, "file to write, .safetensors or .npy; FILE.json lists the pictures");
  table.add("raw", options.raw, "do not normalise the features to length 1");
  table.add("force", options.force, "replace the files that are there");
}

int embed_command(const std::vector<std::string>& arguments) {
  EmbedOptions options;
  OptionTable table(
      "clip_lora embed",
      "Writes the image features of pictures, for search, clustering or another classifier. IMAGES are as "
      "for clip_lora predict. Exit code 3 if pictures had to be skipped.");
  table.add_arguments("IMAGES", options.pictures.images, "files, folders, patterns, or -");
  bind(table, options);
  if (!table.parse(arguments)) return 0;
  return embed(options) == 0 ? 0 : kSkippedFiles;
}

}  // namespace clip_lora::cli
