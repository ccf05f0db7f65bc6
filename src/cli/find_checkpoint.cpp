#include "clip_lora/cli/find_checkpoint.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <string_view>
#include <vector>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/checkpoint_files.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

/// A name that --backbone knows, and the repository on Hugging Face that has its weights.
struct Backbone {
  std::string_view name;
  std::string_view repository;
  bool by_openai;
};

constexpr std::array kBackbones = {
    Backbone{"ViT-B/32", "openai/clip-vit-base-patch32", true},
    Backbone{"ViT-B/16", "openai/clip-vit-base-patch16", true},
    Backbone{"ViT-L/14", "openai/clip-vit-large-patch14", true},
    Backbone{"ViT-L/14@336px", "openai/clip-vit-large-patch14-336", true},
    Backbone{"ViT-H/14", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", false},
};

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

std::optional<fs::path> environment(const char* variable) {
  const char* value = std::getenv(variable);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

/// "ViT-L/14@336px" → "ViT-L-14-336px", as OpenAI names its files.
std::string file_stem(std::string backbone) {
  std::replace(backbone.begin(), backbone.end(), '/', '-');
  std::replace(backbone.begin(), backbone.end(), '@', '-');
  return backbone;
}

/// Adds what `backbone` may be called in a folder of several checkpoints.
void add_names(std::vector<fs::path>& places, const fs::path& folder, const std::string& backbone) {
  const std::string stem = file_stem(backbone);
  for (const char* ending : {".pt", ".safetensors", ""}) places.push_back(folder / (stem + ending));
}

fs::path hugging_face_cache(const std::optional<fs::path>& home) {
  if (const auto cache = environment("HF_HUB_CACHE")) return *cache;
  if (const auto hugging_face_home = environment("HF_HOME")) return *hugging_face_home / "hub";
  return home.value_or(".") / ".cache/huggingface/hub";
}

/// The only folder in `snapshots`, or one that is not there.
fs::path only_snapshot(const fs::path& snapshots) {
  std::error_code ignored;
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(snapshots, ignored)) folders.push_back(entry.path());
  return folders.size() == 1 ? folders.front() : snapshots / "<refs/main>";
}

/// The snapshot that the cache's `main` points to: `models--<owner>--<name>/snapshots/<revision>`. What was
/// fetched by its revision has no `main`.
fs::path snapshot(const fs::path& cache, std::string_view repository) {
  std::string name(repository);
  name.replace(name.find('/'), 1, "--");
  const fs::path folder = cache / ("models--" + name);
  std::ifstream main(folder / "refs/main");
  std::string revision;
  main >> revision;
  return revision.empty() ? only_snapshot(folder / "snapshots") : folder / "snapshots" / revision;
}

/// Throws CheckpointError that lists `tried`.
[[noreturn]] void throw_not_found(const std::string& backbone, bool by_openai,
                                  const std::vector<fs::path>& tried) {
  std::string message = "no checkpoint of " + backbone + " was found; tried:";
  for (const auto& path : tried) message += "\n  " + path.string();
  throw CheckpointError(
      message + "\n  (hint: " +
      (by_openai ? "fetch it by scripts/get_checkpoint.sh " + backbone + ", or name" : "name") +
      " a file or folder by --checkpoint)");
}

/// What `backbone` means; it is a name of ours or that of a repository. The result may point into it.
Backbone known_backbone(const std::string& backbone) {
  std::vector<std::string> names;
  for (const auto& known : kBackbones) {
    if (backbone == known.name) return known;
    names.emplace_back(known.name);
  }
  if (backbone.starts_with("openai/clip-vit-") || backbone.starts_with("laion/CLIP-ViT-")) {
    return {backbone, backbone, false};
  }
  throw ConfigError("--backbone '" + backbone + "' is unknown: expected " + join_capped(names) +
                    ", or the file of another model by --checkpoint" + did_you_mean(backbone, names));
}

}  // namespace

fs::path find_checkpoint(const std::string& checkpoint, const std::string& backbone) {
  std::vector<fs::path> places;
  const bool in_folder = !checkpoint.empty();
  std::error_code ignored;
  if (in_folder) {
    if (!fs::is_directory(checkpoint, ignored) || io::holds_checkpoint(checkpoint)) return checkpoint;
    for (const char* file : io::kWeightsFiles) places.push_back(fs::path(checkpoint) / file);
    add_names(places, checkpoint, backbone);
  }
  const Backbone known = known_backbone(backbone);
  if (!in_folder) {
    const auto home = environment("HOME");
    if (const auto folder = environment("CLIP_LORA_CHECKPOINTS")) add_names(places, *folder, backbone);
    if (home) add_names(places, *home / ".cache/clip", backbone);
    places.push_back(snapshot(hugging_face_cache(home), known.repository));
  }
  for (const auto& place : places) {
    if (fs::is_directory(place, ignored) ? io::holds_checkpoint(place) : is_there(place)) return place;
  }
  throw_not_found(backbone, known.by_openai, places);
}

}  // namespace clip_lora::cli
