// Our own format: a safetensors file with the names of Adapter::state_dict(). In its metadata are `format`,
// `version`, `method` (older files: LoRA) and JSON texts: `options`, `context` and, of LoRA, `scalings` (of
// every updated projection).
#include <algorithm>

#include "adapter_context.hpp"
#include "block_adapter.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/json_text.hpp"
#include "clip_lora/io/safetensors.hpp"
#include "stored_adapter.hpp"

namespace clip_lora::lora {
namespace {

using Metadata = std::map<std::string, std::string>;

constexpr const char* kFormat = "clip_lora adapter";
constexpr const char* kFormatVersion = "1";

/// "visual.transformer.resblocks.0.attn.q_proj".
std::string update_name(Tower tower, std::int64_t index, const Projection& projection) {
  return block_name({tower, index}) + ".attn." + projection.name;
}

nlohmann::ordered_json lora_json(const LoraOptions& options) {
  nlohmann::ordered_json json;
  json["r"] = options.rank;
  json["alpha"] = options.alpha;
  json["rank_stabilised"] = options.rank_stabilised;
  json["dropout_rate"] = options.dropout;
  json["position"] = to_string(options.position);
  return json;
}

LoraOptions read_lora_options(const JsonObject& object) {
  LoraOptions options;
  try {
    options.rank = object.integer("r");
    options.alpha = object.number("alpha");
    options.rank_stabilised = object.boolean("rank_stabilised");
    options.dropout = object.number("dropout_rate");
    options.position = parse_position(object.string("position"));
    options.validate();
  } catch (const ConfigError& error) {
    object.fail(std::string("is impossible: ") + error.what());
  }
  return options;
}

JsonObject read_metadata(const Metadata& metadata, const std::string& key, const std::string& source) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) throw CheckpointError(source + " lacks '" + key + "' in its metadata");
  return JsonObject::parse(found->second, source + ": " + key);
}

/// Whether the file says that it is an adapter of ours.
bool is_ours(const io::Safetensors& file) {
  const auto format = file.metadata.find("format");
  return format != file.metadata.end() && format->second == kFormat;
}

/// Throws unless it is an adapter of ours, and of a version that is read here.
void require_format(const io::Safetensors& file, const std::string& source) {
  if (!is_ours(file)) {
    const bool peft = !file.tensors.empty() && file.tensors.begin()->first.starts_with("base_model.");
    throw CheckpointError(source + " is a safetensors file, but no adapter that clip_lora wrote" +
                          (peft ? " (hint: it looks like PEFT's; give the folder that holds it)"
                                : " (hint: is it a checkpoint?)"));
  }
  const auto version = file.metadata.find("version");
  if (version == file.metadata.end() || version->second != kFormatVersion) {
    throw CheckpointError(
        source + " has version '" + (version == file.metadata.end() ? "" : version->second) +
        "' of the format, expected '" + kFormatVersion + "' (hint: a later clip_lora wrote it)");
  }
}

/// Rows of A, or columns of B; at least 1.
std::int64_t rank_of(const io::StateDict& tensors, const std::string& a_name, const std::string& b_name) {
  const auto size = [&](const std::string& name, std::int64_t axis) -> std::int64_t {
    const auto found = tensors.find(name);
    return found != tensors.end() && found->second.dim() == 2 ? found->second.size(axis) : 0;
  };
  const std::int64_t rows = size(a_name, 0);
  return std::max<std::int64_t>(1, rows > 0 ? rows : size(b_name, 1));
}

/// The updates whose scalings are listed; those that are not of this model are added to `problems`.
std::vector<StoredUpdate> updates_in(const JsonObject& scalings, const io::StateDict& tensors,
                                     const model::Clip& clip, std::vector<std::string>& problems) {
  std::vector<StoredUpdate> updates;
  for (const Tower tower : {Tower::kText, Tower::kVision}) {
    for (std::int64_t index = 0; index < architecture_of(clip, tower).layers; ++index) {
      for (const Projection& projection : kProjections) {
        const std::string name = update_name(tower, index, projection);
        if (scalings.find(name) == nullptr) continue;
        const std::string a_name = name + ".w_lora_A", b_name = name + ".w_lora_B";
        const std::int64_t rank = rank_of(tensors, a_name, b_name);
        updates.push_back({tower, index, projection, a_name, b_name, rank, scalings.number(name)});
      }
    }
  }
  if (updates.size() != scalings.json().size()) {
    problems.push_back(std::to_string(scalings.json().size()) +
                       " updates are listed, of which this model has " + std::to_string(updates.size()));
  }
  return updates;
}

LoadedAdapter read_lora(const io::Safetensors& file, const std::string& source, const model::Clip& clip) {
  const LoraOptions options = read_lora_options(read_metadata(file.metadata, "options", source));
  std::vector<std::string> problems;
  const auto updates =
      updates_in(read_metadata(file.metadata, "scalings", source), file.tensors, clip, problems);
  return {assemble(source, clip, options, updates, file.tensors, problems), AdapterFormat::kSafetensors, {}};
}

/// A fresh adapter of the file's options, which then gets the file's tensors.
LoadedAdapter read_other(const std::string& method, const io::Safetensors& file, const std::string& source,
                         const model::Clip& clip) {
  AdapterOptions options = options_from_json(read_metadata(file.metadata, "options", source), source);
  options.method = method;
  std::shared_ptr<Adapter> adapter;
  try {
    adapter = make_adapter(clip, options);
  } catch (const ConfigError& error) {
    throw CheckpointError(source + " does not fit this model: " + error.what());
  }
  fill_in(source, adapter->state_dict(), file.tensors);
  return {adapter, AdapterFormat::kSafetensors, {}};
}

std::string method_in(const io::Safetensors& file) {
  const auto method = file.metadata.find("method");
  return method == file.metadata.end() ? "lora" : method->second;
}

}  // namespace

void write_safetensors_adapter(const std::filesystem::path& path, const Adapter& adapter,
                               const AdapterContext& context) {
  Metadata metadata = {{"format", kFormat},
                       {"version", kFormatVersion},
                       {"method", adapter.method()},
                       {"context", io::json_text(context_json(context))}};
  if (const auto* const lora = adapter.as_lora()) {
    auto scalings = nlohmann::ordered_json::object();
    for (const auto& block : lora->blocks()) {
      for_each_update(block.lora, [&](const Projection& projection, const ops::LowRank& update) {
        scalings[update_name(block.tower, block.index, projection)] = update.scaling;
      });
    }
    metadata["options"] = io::json_text(lora_json(lora->lora_options()));
    metadata["scalings"] = io::json_text(scalings);
  } else {
    metadata["options"] = io::json_text(options_json(adapter.options()));
  }
  io::write_safetensors(path, adapter.state_dict(), metadata);
}

LoadedAdapter read_safetensors_adapter(const std::filesystem::path& path, const std::string& source,
                                       const model::Clip& clip) {
  const io::Safetensors file = io::read_safetensors(path);
  require_format(file, source);
  const std::string method = method_in(file);
  LoadedAdapter loaded =
      method == "lora" ? read_lora(file, source, clip) : read_other(method, file, source, clip);
  loaded.context = read_context(read_metadata(file.metadata, "context", source));
  return loaded;
}

std::optional<AdapterDescription> describe_safetensors_adapter(const std::filesystem::path& path,
                                                               const std::string& source) {
  const io::Safetensors file = io::read_safetensors(path);
  if (!is_ours(file)) return std::nullopt;
  AdapterDescription description =
      description_of(AdapterFormat::kSafetensors, read_metadata(file.metadata, "options", source).json(),
                     file.tensors, read_metadata(file.metadata, "context", source).json());
  description.method = method_in(file);
  return description;
}

}  // namespace clip_lora::lora
