#include "clip_lora/lora/adapter_file.hpp"

#include <algorithm>
#include <array>
#include <fstream>
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

[[noreturn]] void throw_no_adapter(const fs::path& path, const std::string& source) {
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored) || !std::ifstream(path))
    throw CheckpointError(source + " is missing or cannot be read");
  throw CheckpointError(
      source + " is of no known format: expected a `.pt` of CLIP-LoRA (a PyTorch zip archive), a " +
      "safetensors file that clip_lora wrote, or a folder of PEFT's (hint: is it a whole file?)");
}

LoadedAdapter read(const fs::path& path, const std::string& source, const model::Clip& clip) {
  const auto format = format_of(path);
  if (!format) throw_no_adapter(path, source);
  switch (*format) {
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

std::string source_of(const fs::path& path) { return "adapter '" + path.string() + "'"; }

std::optional<AdapterFormat> format_of(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return AdapterFormat::kPeft;
  // Reading a pipe would wait for its other end.
  if (!fs::is_regular_file(path, ignored)) return std::nullopt;
  std::array<char, 9> bytes{};
  std::ifstream(path, std::ios::binary).read(bytes.data(), bytes.size());
  if (std::string_view(bytes.data(), 2) == "PK") return AdapterFormat::kAuthors;
  if (bytes[8] == '{') return AdapterFormat::kSafetensors;
  return std::nullopt;
}

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
  const AdapterSummary saved = summarise(adapter), wanted = summarise(options);
  std::string differences;
  const auto compare = [&](const std::string& flag, std::string AdapterSummary::*setting) {
    if (saved.*setting == wanted.*setting || !flags.contains(flag)) return;
    differences += "\n  " + flag + ": it was trained with --" + flag + " " + saved.*setting +
                   ", this run has --" + flag + " " + wanted.*setting;
  };
  compare("r", &AdapterSummary::rank);
  compare("alpha", &AdapterSummary::alpha);
  compare("encoder", &AdapterSummary::encoder);
  compare("params", &AdapterSummary::params);
  compare("position", &AdapterSummary::position);
  if (differences.empty()) return;
  const char* hint =
      "\n  (hint: no flags can say how its blocks differ; --adapter without them takes it as it is)";
  throw CheckpointError(source_of(source) + " does not fit this run:" + differences +
                        (saved.options ? "" : hint));
}

}  // namespace clip_lora::lora
