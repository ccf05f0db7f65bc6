#include "export_onnx.hpp"

#include <ATen/ATen.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/atomic_file.hpp"
#include "clip_lora/model/onnx.hpp"
#include "clip_lora/text/prompts.hpp"
#include "clip_lora/train/evaluate.hpp"
#include "output_files.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> read_class_names(const fs::path& path) {
  std::ifstream file(path);
  if (!fs::is_regular_file(path) || !file) {
    throw ConfigError("--class_names '" + path.string() + "': it is missing or cannot be read");
  }
  std::vector<std::string> names;
  for (std::string line; std::getline(file, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty()) names.push_back(line);
  }
  if (names.empty())
    throw ConfigError("--class_names '" + path.string() + "': expected a class name per line, got none");
  return names;
}

/// [C, E] float32, normalised: the mean of each class's normalised features over the templates, normalised
/// again.
at::Tensor averaged_class_features(model::Clip clip, const lora::AdapterContext& context) {
  const text::Tokenizer tokenizer;
  at::Tensor sum;
  for (const auto& prompt_template : context.templates) {
    const auto prompts = train::class_prompts(tokenizer, context.class_names, prompt_template,
                                              clip->architecture().context_length);
    const at::Tensor features = train::class_features(clip, prompts);
    sum = sum.defined() ? sum + features : features;
  }
  return sum / sum.norm(2, /*dim=*/1, /*keepdim=*/true);
}

nlohmann::ordered_json description(const lora::AdapterContext& context, const std::string& dtype) {
  return {{"backbone", context.backbone},
          {"backbone_fingerprint", context.backbone_fingerprint},
          {"dataset", context.dataset},
          {"class_names", context.class_names},
          {"templates", context.templates},
          {"preprocessing", context.preprocessing},
          {"dtype", dtype}};
}

/// ONNX's metadata are strings: what is none is written as JSON.
std::map<std::string, std::string> onnx_metadata(const nlohmann::ordered_json& description) {
  std::map<std::string, std::string> metadata;
  for (const auto& [key, value] : description.items()) {
    metadata[key] = value.is_string() ? value.get<std::string>() : value.dump();
  }
  return metadata;
}

}  // namespace

std::vector<fs::path> onnx_files(const ExportOptions& options) {
  const fs::path out = options.out;
  std::vector<fs::path> files = {out, options.out + ".json"};
  if (options.onnx_towers) {
    const std::string stem = out.stem().string();
    const std::string extension = out.extension().string();
    files.push_back(out.parent_path() / (stem + "_image" + extension));
    files.push_back(out.parent_path() / (stem + "_text" + extension));
  }
  return files;
}

void export_onnx(const ExportOptions& options, const Model& model, lora::AdapterContext context,
                 at::ScalarType dtype) {
  if (!options.class_names.empty()) {
    context.class_names = read_class_names(options.class_names);
    context.dataset.clear();
  }
  if (context.class_names.empty()) {
    throw ConfigError("--to onnx: nothing names the classes (hint: --class_names FILE, one name per line)");
  }
  require_clip_vocabulary(model);
  if (context.templates.empty()) context.templates = {std::string(text::kDefaultTemplate)};
  context.preprocessing = model::to_json(model.loaded.preprocessing);

  const model::Clip& clip = model.loaded.clip;
  // First, since it complains about names that are too long or no UTF-8.
  const at::Tensor class_features = averaged_class_features(clip, context);
  const nlohmann::ordered_json facts = description(context, options.dtype);
  const auto metadata = onnx_metadata(facts);
  const std::vector<fs::path> files = onnx_files(options);
  write_files(files, [&](const fs::path& folder) {
    const auto write = [&](std::size_t file, const std::string& bytes) {
      io::write_atomically(folder / files[file].filename(), bytes);
    };
    write(0, model::onnx_classifier(clip, class_features, dtype, metadata));
    write(1, facts.dump(2) + "\n");
    if (options.onnx_towers) {
      write(2, model::onnx_image_tower(clip, dtype, metadata));
      write(3, model::onnx_text_tower(clip, dtype, metadata));
    }
  });
}

}  // namespace clip_lora::cli
