#include <ATen/ATen.h>

#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "clip_lora/cli/commands.hpp"
#include "clip_lora/cli/console.hpp"
#include "clip_lora/cli/load_model.hpp"
#include "clip_lora/cli/option_table.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/json_text.hpp"
#include "clip_lora/lora/adapter_description.hpp"
#include "clip_lora/lora/summary.hpp"
#include "clip_lora/model/naming.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

struct InspectOptions {
  std::string path;
  ModelOptions model;
  bool json = false;
};

void bind(OptionTable& table, InspectOptions& options) {
  table.add_argument("PATH", options.path, "file or folder of a checkpoint or an adapter");
  table.add("checkpoint", options.model.checkpoint, "also say whether the adapter fits this checkpoint");
  table.add("activation", options.model.activation, "quick_gelu or gelu; unset, the checkpoint decides");
  table.add("json", options.json, "print JSON");
}

ordered_json describe_tower(const model::TowerArchitecture& tower) {
  return {{"width", tower.width},
          {"layers", tower.layers},
          {"heads", tower.heads},
          {"mlp_width", tower.mlp_width},
          {"activation", model::to_string(tower.activation)},
          {"layer_norm_epsilon", tower.layer_norm_epsilon}};
}

/// Names of the types that `tensors` are stored in, and how many numbers of each.
std::map<std::string, std::int64_t> count_dtypes(const io::StateDict& tensors) {
  std::map<std::string, std::int64_t> counts;
  for (const auto& [name, tensor] : tensors)
    counts[c10::getDtypeNames(tensor.scalar_type()).first] += tensor.numel();
  return counts;
}

/// What says which activation the model has, in the order in which model::load_clip asks.
std::string activation_source(const io::CheckpointFiles& files, const model::LoadedClip& loaded,
                              bool by_flag) {
  if (by_flag) return "--activation";
  if (!loaded.warnings.empty()) return "assumed";
  if (loaded.naming == model::Naming::kOpenClip) return "open_clip_config.json";
  if (loaded.naming == model::Naming::kHuggingFace && files.documents.contains("config.json"))
    return "config.json";
  return files.metadata.contains("clip_lora.activation") ? "the file's metadata" : "the archive's code";
}

ordered_json inspect_checkpoint(const InspectOptions& options) {
  const io::CheckpointFiles files = io::read_checkpoint_files(options.path);
  const auto activation = options.model.activation.empty()
                              ? std::nullopt
                              : std::optional(model::parse_activation(options.model.activation));
  const model::LoadedClip loaded = model::load_clip(files, activation);
  const model::ClipArchitecture& architecture = loaded.clip->architecture();
  std::int64_t parameters = 0;
  for (const auto& [name, tensor] : model::state_dict(loaded.clip)) parameters += tensor.numel();
  return {{"kind", "checkpoint"},
          {"path", options.path},
          {"container", io::to_string(files.container)},
          {"naming", model::to_string(loaded.naming)},
          {"backbone", backbone_name(options.path, architecture)},
          {"architecture",
           {{"vision", describe_tower(architecture.vision)},
            {"text", describe_tower(architecture.text)},
            {"patch_size_px", architecture.patch_size_px},
            {"image_size_px", architecture.image_size_px},
            {"context_length", architecture.context_length},
            {"vocabulary", architecture.vocabulary},
            {"embedding", architecture.embedding}}},
          {"activation_source", activation_source(files, loaded, activation.has_value())},
          {"dtypes", count_dtypes(files.tensors)},
          {"parameters", parameters},
          {"preprocessing", model::to_json(loaded.preprocessing)},
          {"fingerprint", model::fingerprint(loaded.clip)},
          {"warnings", loaded.warnings}};
}

/// Adds what the checkpoint has to say about the adapter: rank, alpha and placement as they will be used, or
/// why not.
void add_fit(ordered_json& report, const InspectOptions& options) {
  const Model model = load_model(options.model);
  report["checkpoint"] = model.path.string();
  try {
    const auto adapter = lora::load_adapter(options.path, model.loaded.clip, model.fingerprint).adapter;
    report["fits"] = true;
    for (const auto& [flag, value] : adapter->settings()) report[flag == "r" ? "rank" : flag] = value;
  } catch (const CheckpointError& error) {
    report["fits"] = false;
    report["why_not"] = error.what();
  }
}

ordered_json inspect_adapter(const lora::AdapterDescription& adapter, const InspectOptions& options) {
  ordered_json blocks;
  std::set<std::int64_t> ranks;
  for (const auto& update : adapter.updates) {
    blocks[update.block][update.projection] = {{"rank", update.rank}, {"non_zero", update.non_zero}};
    ranks.insert(update.rank);
  }
  ordered_json report = {{"kind", "adapter"},
                         {"path", options.path},
                         {"format", lora::to_string(adapter.format)},
                         {"method", adapter.method},
                         {"settings", adapter.settings},
                         {"ranks", ranks},
                         {"dtypes", adapter.dtypes},
                         {"parameters", adapter.parameters},
                         {"blocks", blocks},
                         {"context", adapter.context}};
  if (!options.model.checkpoint.empty()) add_fit(report, options);
  return report;
}

std::string as_text(const ordered_json& value) {
  return value.is_string() ? value.get<std::string>() : io::json_text(value);
}

/// A line per fact; long lists of classes are cut.
void print_facts(const ordered_json& facts, const std::string& indent) {
  constexpr std::size_t kShownNames = 8;
  for (const auto& [key, value] : facts.items()) {
    if (value.is_object() && !value.empty()) {
      std::cout << indent << key << "\n";
      print_facts(value, indent + "  ");
    } else if (value.is_array() && value.size() > kShownNames) {
      const std::vector<ordered_json> shown(value.begin(), value.begin() + kShownNames);
      std::cout << indent << key << "  " << io::json_text(shown) << " and " << value.size() - kShownNames
                << " more\n";
    } else {
      std::cout << indent << key << "  " << as_text(value) << "\n";
    }
  }
}

/// "q_proj k_proj v_proj", each that changes nothing in brackets.
std::string projections_line(const ordered_json& projections) {
  std::string line;
  for (const auto& [name, update] : projections.items()) {
    const bool non_zero = update.at("non_zero").get<bool>();
    line +=
        (line.empty() ? "" : "  ") + (non_zero ? name : "(" + name + ")") + " r" + update.at("rank").dump();
  }
  return line;
}

void print_report(ordered_json report) {
  const ordered_json blocks = report.value("blocks", ordered_json::object());
  report.erase("blocks");
  report["parameters"] = with_commas(report.at("parameters").get<std::int64_t>());
  print_facts(report, "");
  if (blocks.empty()) return;
  std::cout << "blocks  (in brackets: B = 0, which changes nothing)\n";
  for (const auto& [block, projections] : blocks.items()) {
    std::cout << "  " << block << "   " << projections_line(projections) << "\n";
  }
}

}  // namespace

int inspect_command(const std::vector<std::string>& arguments) {
  InspectOptions options;
  OptionTable table("clip_lora inspect", "Says what a checkpoint or an adapter is, and whether the two fit.");
  bind(table, options);
  if (!table.parse(arguments)) return 0;
  options.model.validate();
  std::error_code ignored;
  if (!fs::exists(options.path, ignored))
    throw CheckpointError("'" + options.path + "': there is no such file or folder");
  const auto adapter = lora::describe_adapter_file(options.path);
  const ordered_json report = adapter ? inspect_adapter(*adapter, options) : inspect_checkpoint(options);
  if (options.json) {
    std::cout << io::json_text(report, 2) << "\n";
  } else {
    print_report(report);
  }
  return 0;
}

}  // namespace clip_lora::cli
