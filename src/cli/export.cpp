#include "clip_lora/cli/export.hpp"

#include <ATen/ATen.h>

#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "clip_lora/cli/console.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"
#include "clip_lora/core/log.hpp"
#include "clip_lora/io/atomic_file.hpp"
#include "clip_lora/io/safetensors.hpp"
#include "clip_lora/io/torch_pickle.hpp"
#include "clip_lora/model/naming.hpp"
#include "clip_lora/text/hugging_face_tokenizer.hpp"
#include "export_onnx.hpp"
#include "output_files.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

using lora::LoadedAdapter;

at::ScalarType scalar_type(const std::string& dtype) {
  if (dtype == "fp16") return at::kHalf;
  return dtype == "bf16" ? at::kBFloat16 : at::kFloat;
}

/// What an adapter of this model would be for, as far as anything says so.
lora::AdapterContext context_of(const Model& model, const std::optional<LoadedAdapter>& adapter) {
  if (adapter && adapter->context) return *adapter->context;
  lora::AdapterContext context = adapter_context(model, "", {}, {});
  if (adapter) context.scale = adapter->scale;
  return context;
}

/// The weights as `dtype`. Throws ConfigError for one that float16 cannot hold.
io::StateDict stored(const model::Clip& clip, at::ScalarType dtype) {
  io::StateDict tensors;
  for (const auto& [name, weight] : model::state_dict(clip)) {
    const at::Tensor tensor = weight.detach().to(dtype).contiguous();
    if (dtype == at::kHalf && !at::isfinite(tensor).all().item<bool>()) {
      throw ConfigError("--dtype fp16: '" + name + "' has values that fp16 cannot hold (hint: --dtype bf16)");
    }
    tensors[name] = tensor;
  }
  return tensors;
}

void write_json(const fs::path& path, const nlohmann::ordered_json& document) {
  io::write_atomically(path, document.dump(2) + "\n");
}

/// What the adapter that is merged in was for; nothing without one.
using MergedContext = std::optional<lora::AdapterContext>;

constexpr const char* kContextFile = "clip_lora.json";

/// Weights as `weights_file`, and what goes with them.
void write_clip(const fs::path& folder, const char* weights_file, const io::StateDict& tensors,
                const model::LoadedClip& loaded, model::Naming naming, const MergedContext& context) {
  if (context) write_json(folder / kContextFile, lora::context_json(*context));
  const model::ClipArchitecture& architecture = loaded.clip->architecture();
  for (const auto& [name, document] :
       model::configuration_files(architecture, loaded.preprocessing, naming)) {
    write_json(folder / name, document);
  }
  std::map<std::string, std::string> metadata;
  // So that the file says it all even where it was taken out of its folder. Only Hugging Face's configuration
  // can say two activations.
  if (architecture.vision.activation == architecture.text.activation) {
    metadata = model::checkpoint_metadata(architecture, loaded.preprocessing);
  }
  metadata["format"] = "pt";  // transformers looks for it
  io::write_safetensors(folder / weights_file, tensors, metadata);
}

void export_hugging_face(const fs::path& out, const Model& model, const MergedContext& context,
                         at::ScalarType dtype) {
  const model::Clip& clip = model.loaded.clip;
  write_folder(out, [&](const fs::path& folder) {
    write_clip(folder, "model.safetensors", model::to_hugging_face(stored(clip, dtype)), model.loaded,
               model::Naming::kHuggingFace, context);
    if (!has_clip_vocabulary(model)) {
      log_warning("--to hf: no tokenizer is written, since the model's vocabulary is not that of CLIP's");
      return;
    }
    const int context_length = static_cast<int>(clip->architecture().context_length);
    for (const auto& [name, text] : text::hugging_face_tokenizer_files(context_length)) {
      io::write_atomically(folder / name, text);
    }
  });
}

void export_open_clip(const fs::path& out, const Model& model, const MergedContext& context,
                      at::ScalarType dtype) {
  write_folder(out, [&](const fs::path& folder) {
    write_clip(folder, "open_clip_model.safetensors", stored(model.loaded.clip, dtype), model.loaded,
               model::Naming::kOpenClip, context);
  });
}

/// OpenAI's files hold weights alone: whoever loads them takes everything else to be as OpenAI has it.
void require_open_ai(const model::LoadedClip& loaded) {
  const model::ClipArchitecture& architecture = loaded.clip->architecture();
  for (const model::TowerArchitecture* tower : {&architecture.vision, &architecture.text}) {
    const bool is_open_ai = tower->activation == model::Activation::kQuickGelu &&
                            tower->heads * 64 == tower->width && tower->mlp_width == 4 * tower->width &&
                            tower->layer_norm_epsilon == 1e-5;
    if (!is_open_ai) {
      throw ConfigError("--to openai: the format cannot say that a tower of width " +
                        std::to_string(tower->width) + " has " + model::to_string(tower->activation) + ", " +
                        std::to_string(tower->heads) + " heads, an MLP of width " +
                        std::to_string(tower->mlp_width) + " and eps " +
                        nlohmann::json(tower->layer_norm_epsilon).dump() +
                        "; expected quick_gelu, heads of width 64, an MLP of four times the width and 1e-05 "
                        "(hint: --to openclip)");
    }
  }
  image::Preprocessing usual;
  usual.size_px = usual.resize_px = static_cast<int>(architecture.image_size_px);
  usual.orientation = loaded.preprocessing.orientation;  // who loads the model decodes the pictures
  if (loaded.preprocessing != usual) {
    log_warning(
        "--to openai: the format cannot say that this model's preprocessing of images is not OpenAI's");
  }
}

/// The JSON beside a file that has no room for it.
fs::path beside(const fs::path& file) { return file.string() + ".json"; }

void export_open_ai(const fs::path& out, const Model& model, const MergedContext& context,
                    at::ScalarType dtype) {
  require_open_ai(model.loaded);
  io::PickleDict tensors = io::new_pickle_dict();
  for (const auto& [name, tensor] : stored(model.loaded.clip, dtype)) tensors.insert(name, tensor);
  std::vector<fs::path> files = {out};
  if (context) files.push_back(beside(out));
  write_files(files, [&](const fs::path& folder) {
    io::write_torch_pickle(folder / out.filename(), tensors);
    if (context) write_json(folder / beside(out).filename(), lora::context_json(*context));
  });
}

void export_adapter(const fs::path& out, const Model& model, const LoadedAdapter& adapter,
                    lora::AdapterFormat format) {
  const lora::AdapterContext context = context_of(model, adapter);
  if (context.scale != 1.0 && format != lora::AdapterFormat::kSafetensors) {
    log_warning("--to " + lora::to_string(format) + ": the scale that the adapter is evaluated at, " +
                nlohmann::json(context.scale).dump() + ", is a part of alpha there");
  }
  if (format != lora::AdapterFormat::kPeft) {
    io::remove_temporaries_of(out);
    return lora::save_adapter(out, *adapter.adapter, context, format);
  }
  write_folder(
      out, [&](const fs::path& folder) { lora::save_adapter(folder, *adapter.adapter, context, format); });
}

/// Everything that will be written.
std::vector<fs::path> outputs(const ExportOptions& options) {
  if (options.to == "onnx") return onnx_files(options);
  if (options.to == "openai" && !options.adapter.empty()) return {options.out, beside(options.out)};
  return {options.out};
}

std::uintmax_t bytes_in(const fs::path& path) {
  if (!fs::is_directory(path)) return fs::file_size(path);
  std::uintmax_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(path)) bytes += entry.file_size();
  return bytes;
}

void print_summary(const ExportOptions& options, const Model& model, const Stopwatch& stopwatch) {
  std::cout << "exported   " << model.backbone << (options.adapter.empty() ? "" : " with " + options.adapter)
            << " to " << options.to << "\n";
  for (const auto& path : outputs(options)) {
    std::cout << "           " << path.string() << "   "
              << fixed(static_cast<double>(bytes_in(path)) / 1e6, 1) << " MB\n";
  }
  std::cout << "           " << duration(stopwatch.seconds()) << " in all" << std::endl;
}

}  // namespace

void export_model(const ExportOptions& options) {
  options.validate();
  const Stopwatch stopwatch;
  require_free(outputs(options), options.force);
  catch_interrupts();
  Model model = load_model(options.model);
  const model::Clip& clip = model.loaded.clip;
  std::optional<LoadedAdapter> adapter;
  if (!options.adapter.empty()) adapter = lora::load_adapter(options.adapter, clip, model.fingerprint);

  const at::ScalarType dtype = scalar_type(options.dtype);
  if (options.to == "authors" || options.to == "peft" || options.to == "safetensors") {
    export_adapter(options.out, model, *adapter, lora::parse_adapter_format(options.to));
  } else {
    std::optional<lora::MergedScope> merged;
    MergedContext context;
    if (adapter) {
      use_preprocessing(model, *adapter, options.adapter);
      context = context_of(model, adapter);
      // What is written is used so, even where the adapter's file does not say it.
      context->preprocessing = model::to_json(model.loaded.preprocessing);
      merged.emplace(clip, *adapter->adapter, context->scale);
    }
    if (options.to == "hf") export_hugging_face(options.out, model, context, dtype);
    if (options.to == "openai") export_open_ai(options.out, model, context, dtype);
    if (options.to == "openclip") export_open_clip(options.out, model, context, dtype);
    if (options.to == "onnx") {
      export_onnx(options, model, context.value_or(adapter_context(model, "", {}, {})), dtype);
    }
  }
  print_summary(options, model, stopwatch);
}

}  // namespace clip_lora::cli
