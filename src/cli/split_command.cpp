#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "clip_lora/cli/commands.hpp"
#include "clip_lora/cli/console.hpp"
#include "clip_lora/cli/option_table.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/log.hpp"
#include "clip_lora/data/own_dataset.hpp"
#include "output_files.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

struct SplitCommandOptions {
  std::string source;
  std::string out;
  data::SplitOptions split;
  std::string class_names;
  bool force = false;

  void validate() const;
};

void SplitCommandOptions::validate() const {
  split.validate();
  if (out.empty()) throw ConfigError("--out is missing: expected the .json file to write");
  if (fs::path(out).extension() != ".json") {
    throw ConfigError("--out '" + out + "': expected a name that ends with .json, as --dataset wants it");
  }
  if (fs::path(source).extension() == ".json") {
    throw ConfigError("'" + source + "' is a split already: expected a folder or a .csv");
  }
}

void bind(OptionTable& table, SplitCommandOptions& options) {
  table.add_argument("DIR", options.source,
                     "folder of class folders, or a .csv of path, label[, split[, group]]");
  table.add("out", options.out, ".json file to write; --dataset takes it");
  table.add("test_fraction", options.split.test_fraction, "of each class's pictures for the test");
  table.add("val_fraction", options.split.val_fraction, "of each class's pictures for validation");
  table.add("seed", options.split.seed, "of the split; equal seeds give equal splits");
  table.add("class_names", options.class_names,
            "file that names the classes: a JSON array or object {folder: name}, one name per line, or "
            "'folder: name' lines");
  table.add("force", options.force, "replace the file if it is there");
}

/// What the split's paths are relative to.
fs::path image_folder(const fs::path& source) {
  return fs::is_directory(source) ? source : source.parent_path();
}

std::string count(const std::vector<data::Item>& items) {
  return with_commas(static_cast<std::int64_t>(items.size()));
}

void print(const data::Dataset& dataset, const std::string& out) {
  std::cout << dataset.name << "   " << with_commas(static_cast<std::int64_t>(dataset.class_names.size()))
            << " classes   " << count(dataset.train) << " train   " << count(dataset.val) << " val   "
            << count(dataset.test) << " test images   " << out << std::endl;
}

}  // namespace

int split_command(const std::vector<std::string>& arguments) {
  SplitCommandOptions options;
  OptionTable table(
      "clip_lora split",
      "Splits a folder of class folders into train, val and test, class by class as CoOp does, and "
      "writes that as a split file.");
  bind(table, options);
  if (!table.parse(arguments)) return 0;
  options.validate();
  require_free({options.out}, options.force);
  const data::Dataset dataset =
      data::load_own_dataset(options.source, {options.split, options.class_names, /*saved_split=*/{}});
  for (const auto& warning : dataset.warnings) log_warning(warning);
  data::write_coop_split(options.out, dataset, image_folder(options.source));
  print(dataset, options.out);
  return 0;
}

}  // namespace clip_lora::cli
