#include "clip_lora/lora/adapter_file.hpp"

#include <algorithm>
#include <array>
#include <fstream>
#include <string_view>
#include <utility>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/torch_pickle.hpp"
#include "clip_lora/lora/method.hpp"
#include "clip_lora/lora/summary.hpp"
#include "stored_adapter.hpp"

namespace clip_lora::lora {
namespace {

namespace fs = std::filesystem;

constexpr std::array kFormats = {std::pair{AdapterFormat::kAuthors, "authors"},
                                 std::pair{AdapterFormat::kPeft, "peft"},
                                 std::pair{AdapterFormat::kSafetensors, "safetensors"},
                                 std::pair{AdapterFormat::kRAdapterRelease, "r_adapter_release"}};

[[noreturn]] void throw_no_adapter(const fs::path& path, const std::string& source) {
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored) || !std::ifstream(path))
    throw CheckpointError(source + " is missing or cannot be read");
  throw CheckpointError(
      source +
      " is of no known format: expected a `.pt` of CLIP-LoRA or R-Adapter (a PyTorch zip archive), " +
      "a safetensors file that clip_lora wrote, or a folder of PEFT's (hint: is it a whole file?)");
}

LoadedAdapter read(const fs::path& path, const std::string& source, const model::Clip& clip) {
  const auto format = format_of(path);
  if (!format) throw_no_adapter(path, source);
  switch (*format) {
    case AdapterFormat::kAuthors:
      return read_authors(path, source, clip);
    case AdapterFormat::kPeft:
      return read_peft(path, source, clip);
    case AdapterFormat::kRAdapterRelease:
      return read_r_adapter_release(path, source, clip);
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
  if (std::string_view(bytes.data(), 2) == "PK") {
    return is_r_adapter_release(io::read_torch_archive(path).root) ? AdapterFormat::kRAdapterRelease
                                                                   : AdapterFormat::kAuthors;
  }
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

AdapterFormat file_format(const Adapter& adapter) {
  return adapter.as_lora() != nullptr ? AdapterFormat::kAuthors : AdapterFormat::kSafetensors;
}

void save_adapter(const fs::path& path, const Adapter& adapter, const AdapterContext& context,
                  AdapterFormat format) {
  if (format == AdapterFormat::kRAdapterRelease) {
    throw ConfigError("cannot write " + source_of(path) + ": the format '" + to_string(format) +
                      "' is only read (hint: the format 'safetensors')");
  }
  if (format == AdapterFormat::kSafetensors) return write_safetensors_adapter(path, adapter, context);
  if (adapter.as_lora() == nullptr) {
    throw ConfigError("cannot write " + source_of(path) + ": the format '" + to_string(format) +
                      "' holds LoRA alone, this is an adapter of the method '" + adapter.method() +
                      "' (hint: the format 'safetensors')");
  }
  if (context.scale <= 0.0) {
    throw ConfigError("cannot write " + source_of(path) +
                      ": the adapter is to be merged at scale 0, and the format '" + to_string(format) +
                      "' has no alpha of 0 (hint: the format 'safetensors')");
  }
  AdapterContext unscaled = context;
  unscaled.scale = 1.0;
  const LoraAdapter lora = adapter.as_lora()->scaled(context.scale);
  if (format == AdapterFormat::kAuthors) return write_authors(path, lora, unscaled);
  write_peft(path, lora, unscaled);
}

LoadedAdapter load_adapter(const fs::path& path, const model::Clip& clip, const std::string& fingerprint) {
  const std::string source = source_of(path);
  LoadedAdapter loaded = read(path, source, clip);
  if (loaded.context) {
    require_same_backbone(source, *loaded.context, clip, fingerprint);
    loaded.scale = loaded.context->scale;
  }
  return loaded;
}

void require_same_options(const Adapter& adapter, const AdapterOptions& options, const fs::path& source,
                          const std::optional<std::set<std::string>>& flags) {
  if (adapter.method() != options.method) {
    throw CheckpointError(source_of(source) + " is one of --method " + adapter.method() +
                          ", this run has --method " + options.method);
  }
  const auto saved = adapter.settings(), wanted = find_method(options.method).settings(options);
  std::string differences;
  for (const auto& [flag, value] : saved) {
    if (wanted.at(flag) == value || (flags && !flags->contains(flag))) continue;
    differences += "\n  " + flag + ": it was trained with --" + flag + " " + value + ", this run has --" +
                   flag + " " + wanted.at(flag);
  }
  if (differences.empty()) return;
  const auto* const lora = adapter.as_lora();
  const bool has_flags = lora == nullptr || summarise(*lora).options;
  const char* hint =
      "\n  (hint: no flags can say how its blocks differ; --adapter without them takes it as it is)";
  throw CheckpointError(source_of(source) + " does not fit this run:" + differences +
                        (has_flags ? "" : hint));
}

}  // namespace clip_lora::lora
