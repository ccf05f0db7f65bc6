#include "clip_lora/lora/adapter_file.hpp"

#include <algorithm>
#include <array>
#include <fstream>
#include <sstream>
#include <string_view>
#include <utility>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/lora/summary.hpp"
#include "stored_adapter.hpp"

namespace clip_lora::lora {
namespace {

namespace fs = std::filesystem;

constexpr std::array kFormats = {std::pair{AdapterFormat::kAuthors, "authors"},
                                 std::pair{AdapterFormat::kPeft, "peft"},
                                 std::pair{AdapterFormat::kSafetensors, "safetensors"}};

std::string source_of(const fs::path& path) { return "adapter '" + path.string() + "'"; }

/// Told by the first bytes of a file: a zip archive's, or a JSON object after a header length.
AdapterFormat format_of(const fs::path& path, const std::string& source) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return AdapterFormat::kPeft;
  std::array<char, 9> bytes{};
  std::ifstream file(path, std::ios::binary);
  if (!fs::is_regular_file(path, ignored) || !file)
    throw CheckpointError(source + " is missing or cannot be read");
  file.read(bytes.data(), bytes.size());
  if (std::string_view(bytes.data(), 2) == "PK") return AdapterFormat::kAuthors;
  if (bytes[8] == '{') return AdapterFormat::kSafetensors;
  throw CheckpointError(
      source + " is of no known format: expected a `.pt` of CLIP-LoRA (a PyTorch zip archive), a " +
      "safetensors file that clip_lora wrote, or a folder of PEFT's (hint: is it a whole file?)");
}

LoadedAdapter read(const fs::path& path, const std::string& source, const model::Clip& clip) {
  switch (format_of(path, source)) {
    case AdapterFormat::kAuthors:
      return read_authors(path, source, clip);
    case AdapterFormat::kPeft:
      return read_peft(path, source, clip);
    case AdapterFormat::kSafetensors:
      break;
  }
  return read_safetensors_adapter(path, source, clip);
}

void require_same_backbone(const std::string& source, const AdapterContext& context, const model::Clip& clip,
                           const std::string& fingerprint) {
  if (fingerprint.empty() || context.backbone_fingerprint.empty() ||
      context.backbone_fingerprint == fingerprint)
    return;
  const model::ClipArchitecture& architecture = clip->architecture();
  throw CheckpointError(
      source + " was trained on another backbone of the same shapes: on '" + context.backbone +
      "' with the fingerprint " + context.backbone_fingerprint + ", but this model is '" +
      model::published_name(architecture).value_or(model::describe(architecture)) +
      "' with the fingerprint " + fingerprint + " (hint: load the checkpoint that it was trained on)");
}

}  // namespace

std::string to_string(AdapterFormat format) {
  return std::find_if(kFormats.begin(), kFormats.end(), [&](const auto& row) { return row.first == format; })
      ->second;
}

AdapterFormat parse_adapter_format(const std::string& name) {
  std::vector<std::string> names;
  for (const auto& [format, known] : kFormats) {
    if (name == known) return format;
    names.emplace_back(known);
  }
  throw ConfigError("adapter format '" + name + "': expected one of " + join_capped(names) +
                    did_you_mean(name, names));
}

void save_adapter(const fs::path& path, const Adapter& adapter, const AdapterContext& context,
                  AdapterFormat format) {
  switch (format) {
    case AdapterFormat::kAuthors:
      return write_authors(path, adapter, context);
    case AdapterFormat::kPeft:
      return write_peft(path, adapter, context);
    case AdapterFormat::kSafetensors:
      return write_safetensors_adapter(path, adapter, context);
  }
}

LoadedAdapter load_adapter(const fs::path& path, const model::Clip& clip, const std::string& fingerprint) {
  const std::string source = source_of(path);
  LoadedAdapter loaded = read(path, source, clip);
  if (loaded.context) require_same_backbone(source, *loaded.context, clip, fingerprint);
  return loaded;
}

void require_same_options(const Adapter& adapter, const LoraOptions& options, const fs::path& source,
                          const std::set<std::string>& flags) {
  const AdapterSummary saved = summarise(adapter);
  // A fresh adapter's summary, without making one: what the same words would be for these options.
  std::ostringstream alpha;
  alpha.precision(9);
  alpha << alpha_of(options.scaling(), options.rank, /*rank_stabilised=*/true);
  std::string params;
  for (const auto& name : projection_names(options.projections)) params += (params.empty() ? "" : " ") + name;

  std::string differences;
  const auto compare = [&](const std::string& flag, const std::string& was, const std::string& wanted) {
    if (was == wanted || !flags.contains(flag)) return;
    differences += "\n  " + flag + ": it was trained with --" + flag + " " + was + ", this run has --" +
                   flag + " " + wanted;
  };
  compare("r", saved.rank, std::to_string(options.rank));
  compare("alpha", saved.alpha, alpha.str());
  compare("encoder", saved.encoder, to_string(options.encoder));
  compare("params", saved.params, params);
  compare("position", saved.position, to_string(options.position));
  if (!differences.empty())
    throw CheckpointError(source_of(source) + " does not fit this run:" + differences);
}

}  // namespace clip_lora::lora
