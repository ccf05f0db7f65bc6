// A folder of PEFT's: adapter_config.json, and adapter_model.safetensors (or .bin) with the names of Hugging
// Face's CLIPModel. clip_lora.json, which PEFT does not look at, holds the context.
#include <ATen/core/Dict.h>

#include <cmath>
#include <filesystem>

#include "adapter_context.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/atomic_file.hpp"
#include "clip_lora/io/json_text.hpp"
#include "clip_lora/io/safetensors.hpp"
#include "clip_lora/io/torch_pickle.hpp"
#include "peft_config.hpp"
#include "stored_adapter.hpp"

namespace clip_lora::lora {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kConfigFile = "adapter_config.json";
constexpr const char* kWeightsFile = "adapter_model.safetensors";
constexpr const char* kPickledWeightsFile = "adapter_model.bin";
constexpr const char* kContextFile = "clip_lora.json";

/// "text_model.encoder.layers.0.self_attn.q_proj".
std::string module_name(Tower tower, std::int64_t index, const Projection& projection) {
  return to_string(tower) + "_model.encoder.layers." + std::to_string(index) + ".self_attn." +
         projection.hugging_face_name;
}

std::string a_name(const std::string& module) { return "base_model.model." + module + ".lora_A.weight"; }
std::string b_name(const std::string& module) { return "base_model.model." + module + ".lora_B.weight"; }

/// Calls visit(module, update) for each update in the files' order.
template <typename Visit>
void for_each_module(const LoraAdapter& adapter, const Visit& visit) {
  for (const auto& block : adapter.blocks()) {
    for_each_update(block.lora, [&](const Projection& projection, const ops::LowRank& update) {
      visit(module_name(block.tower, block.index, projection), update);
    });
  }
}

/// The projections' names if every layer of both towers has just those, as PEFT's users write it; else whole
/// names, because both towers' layers are called alike.
std::vector<std::string> target_modules(const LoraAdapter& adapter) {
  std::vector<std::string> short_names;
  for (const Projection& projection : kProjections) {
    if (adapter.lora_options().projections.*projection.flag)
      short_names.emplace_back(projection.hugging_face_name);
  }
  std::vector<std::string> names;
  for_each_module(adapter, [&](const std::string& module, const ops::LowRank&) { names.push_back(module); });
  const bool everywhere = adapter.lora_options().encoder == Encoder::kBoth && adapter.is_at(Position::kAll) &&
                          names.size() == adapter.blocks().size() * short_names.size();
  return everywhere ? short_names : names;
}

/// An integer where it is one, as people write alpha.
Json number_json(double number) {
  constexpr double kLargest = 1e9;
  if (number == std::floor(number) && std::abs(number) < kLargest) return static_cast<std::int64_t>(number);
  return number;
}

Json config_json(const LoraAdapter& adapter) {
  const LoraOptions& options = adapter.lora_options();
  Json rank_pattern = Json::object(), alpha_pattern = Json::object();
  for_each_module(adapter, [&](const std::string& module, const ops::LowRank& update) {
    const std::int64_t rank = update.a.size(0);
    if (rank != options.rank) rank_pattern[module] = rank;
    if (update_scaling(options.alpha, rank, options.rank_stabilised) != update.scaling) {
      alpha_pattern[module] = number_json(alpha_of(update.scaling, rank, options.rank_stabilised));
    }
  });
  Json config;
  config["peft_type"] = "LORA";
  config["task_type"] = nullptr;
  config["base_model_name_or_path"] = nullptr;
  config["inference_mode"] = true;
  config["r"] = options.rank;
  config["lora_alpha"] = number_json(options.alpha);
  config["use_rslora"] = options.rank_stabilised;
  config["lora_dropout"] = options.dropout;
  config["target_modules"] = target_modules(adapter);
  config["rank_pattern"] = rank_pattern;
  config["alpha_pattern"] = alpha_pattern;
  config["bias"] = "none";
  config["fan_in_fan_out"] = false;
  return config;
}

void write_files(const fs::path& folder, const LoraAdapter& adapter, const AdapterContext& context) {
  io::StateDict tensors;
  for_each_module(adapter, [&](const std::string& module, const ops::LowRank& update) {
    tensors[a_name(module)] = update.a;
    tensors[b_name(module)] = update.b;
  });
  io::write_safetensors(folder / kWeightsFile, tensors, {{"format", "pt"}});
  io::write_atomically(folder / kConfigFile, io::json_text(config_json(adapter), 2) + "\n");
  io::write_atomically(folder / kContextFile, io::json_text(context_json(context), 2) + "\n");
}

io::StateDict read_pickled_weights(const fs::path& path, const std::string& source) {
  const io::PickleValue root = io::read_torch_archive(path).root;
  if (!root.isGenericDict())
    throw CheckpointError(source + ": " + kPickledWeightsFile + " holds no dictionary");
  io::StateDict tensors;
  for (const auto& entry : root.toGenericDict()) {
    if (!entry.key().isString() || !entry.value().isTensor()) {
      throw CheckpointError(source + ": " + kPickledWeightsFile + " holds " + entry.key().tagKind() + " → " +
                            entry.value().tagKind() + ", expected names and tensors");
    }
    tensors[entry.key().toStringRef()] = entry.value().toTensor();
  }
  return tensors;
}

io::StateDict read_weights(const fs::path& folder, const std::string& source) {
  std::error_code ignored;
  if (fs::exists(folder / kWeightsFile, ignored)) return io::read_safetensors(folder / kWeightsFile).tensors;
  if (fs::exists(folder / kPickledWeightsFile, ignored)) {
    return read_pickled_weights(folder / kPickledWeightsFile, source);
  }
  throw CheckpointError(source + " holds neither " + kWeightsFile + " nor " + kPickledWeightsFile);
}

bool is_peft_folder(const fs::path& folder) {
  std::error_code ignored;
  return fs::exists(folder / kConfigFile, ignored);
}

JsonObject read_config(const fs::path& folder, const std::string& source) {
  return JsonObject::read(folder / kConfigFile, source + ": " + kConfigFile);
}

/// Nothing if somebody else wrote the folder.
std::optional<JsonObject> find_context(const fs::path& folder, const std::string& source) {
  std::error_code ignored;
  if (!fs::exists(folder / kContextFile, ignored)) return std::nullopt;
  return JsonObject::read(folder / kContextFile, source + ": " + kContextFile);
}

/// What the folder should hold by its configuration, and all that it does hold of attention's projections. A
/// tower without any tensor is not adapted: PEFT on CLIPTextModel or CLIPVisionModel alone has the same
/// names.
std::vector<StoredUpdate> updates_in(const PeftConfig& config, const io::StateDict& tensors,
                                     const model::Clip& clip, std::vector<std::string>& problems) {
  std::vector<StoredUpdate> updates;
  for (const Tower tower : {Tower::kText, Tower::kVision}) {
    const std::string prefix = "base_model.model." + to_string(tower) + "_model.";
    const auto first = tensors.lower_bound(prefix);
    const bool adapted = first != tensors.end() && first->first.starts_with(prefix);
    for (std::int64_t index = 0; adapted && index < architecture_of(clip, tower).layers; ++index) {
      for (const Projection& projection : kProjections) {
        const std::string module = module_name(tower, index, projection);
        const bool targeted = config.targets(module, index);
        const bool stored = tensors.contains(a_name(module)) || tensors.contains(b_name(module));
        if (stored && !targeted) problems.push_back(module + " is none of the target_modules");
        if (!stored && !targeted) continue;
        const std::int64_t rank = config.rank_of(module);
        updates.push_back({tower, index, projection, a_name(module), b_name(module), rank,
                           update_scaling(config.alpha_of(module), rank, config.options().rank_stabilised)});
      }
    }
  }
  return updates;
}

}  // namespace

void write_peft(const fs::path& path, const LoraAdapter& adapter, const AdapterContext& context) {
  const fs::path folder = path.has_filename() ? path : path.parent_path();  // "out/" is "out"
  std::error_code error;
  const fs::file_status status = fs::status(folder, error);
  if (fs::exists(status) && !fs::is_directory(status)) {
    throw ConfigError("cannot write the folder '" + folder.string() + "': there is a file of that name");
  }
  if (fs::is_directory(status) && !fs::is_empty(folder, error)) {
    // What else lies there is the user's. Each file is replaced whole.
    write_files(folder, adapter, context);
    return;
  }
  fs::path unfinished;
  try {
    io::write_atomically(folder, [&](const fs::path& temporary) {
      unfinished = temporary;
      write_files(temporary, adapter, context);
    });
  } catch (...) {
    if (!unfinished.empty()) fs::remove_all(unfinished, error);
    throw;
  }
}

LoadedAdapter read_peft(const fs::path& folder, const std::string& source, const model::Clip& clip) {
  if (!is_peft_folder(folder)) {
    throw CheckpointError(source + " is a folder without " + kConfigFile +
                          " (hint: is it a folder of PEFT's?)");
  }
  const PeftConfig config(read_config(folder, source));
  const io::StateDict tensors = read_weights(folder, source);
  std::optional<AdapterContext> context;
  if (const auto json = find_context(folder, source)) context = read_context(*json);
  std::vector<std::string> problems;
  const auto updates = updates_in(config, tensors, clip, problems);
  return {assemble(source, clip, config.options(), updates, tensors, problems), AdapterFormat::kPeft,
          context};
}

std::optional<AdapterDescription> describe_peft(const fs::path& folder, const std::string& source) {
  if (!is_peft_folder(folder)) return std::nullopt;
  const Json config = read_config(folder, source).json();
  Json settings;
  for (const char* key : {"peft_type", "r", "lora_alpha", "use_rslora", "target_modules",
                          "layers_to_transform", "rank_pattern", "alpha_pattern"}) {
    if (config.contains(key)) settings[key] = config[key];
  }
  const auto context = find_context(folder, source);
  return description_of(AdapterFormat::kPeft, settings, read_weights(folder, source),
                        context ? context->json() : Json());
}

}  // namespace clip_lora::lora
