#include "export_onnx.hpp"

#include <ATen/ATen.h>

#include <map>
#include <nlohmann/json.hpp>

#include "adapted_model.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/atomic_file.hpp"
#include "clip_lora/model/onnx.hpp"
#include "clip_lora/text/prompts.hpp"
#include "clip_lora/train/evaluate.hpp"
#include "output_files.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

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
    context.class_names = read_class_names(options.class_names, context.class_names);
    context.dataset.clear();
  }
  if (context.class_names.empty()) {
    throw ConfigError("--to onnx: nothing names the classes (hint: --class_names FILE, one name per line)");
  }
  require_clip_vocabulary(model);
  if (context.templates.empty()) context.templates = {std::string(text::kDefaultTemplate)};

  model::Clip clip = model.loaded.clip;
  // First, since it complains about names that are too long or no UTF-8.
  const text::ClassPrompts prompts = text::class_prompts(context.class_names, context.templates);
  const at::Tensor class_features = train::class_features(clip, text::Tokenizer(), prompts);
  nlohmann::ordered_json facts = lora::context_json(context);
  facts["dtype"] = options.dtype;
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
