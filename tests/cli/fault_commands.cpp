#include "cli/fault_commands.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>

#include "cli/program.hpp"
#include "clip_lora/image/codec.hpp"
#include "support/files.hpp"
#include "support/pictures.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kPictures = 24;

/// Pictures no two of which are alike.
void make_pictures(const fs::path& folder) {
  fs::create_directories(folder);
  for (int i = 0; i < kPictures; ++i)
    image::write_png(folder / (std::to_string(i) + ".png"), formula_picture(20, 20 + i));
}

void copy_folder(const fs::path& from, const fs::path& to) {
  fs::create_directories(to.parent_path());
  fs::copy(from, to, fs::copy_options::recursive);
}

/// Results without times, memory and what only says how the run was started.
std::string without_times(const std::string& text) {
  json results = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!results.is_object()) return "damaged: " + text;
  for (const char* key : {"seconds", "memory", "command", "resume"}) results.erase(key);
  if (results.contains("settings")) results["settings"].erase("resume");
  if (results.contains("training")) results["training"].erase("resumed_from");
  return results.dump();
}

std::string without_speed(const std::string& text) {
  std::istringstream lines(text);
  std::string kept;
  for (std::string line; std::getline(lines, line);) {
    json values = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (values.is_object()) values.erase("images_per_second");
    kept += (values.is_object() ? values.dump() : "damaged: " + line) + "\n";
  }
  return kept;
}

bool is_temporary(const fs::path& relative) {
  for (const auto& part : relative) {
    const std::string name = part.string();
    if (name.find(".tmp-") != std::string::npos || name.starts_with("lease.") || name.ends_with(".before"))
      return true;
  }
  // A checkpoint, and the lease of who makes a cache's file.
  return relative.filename() == "checkpoint.safetensors" || relative.stem().stem().extension() == ".pixels";
}

}  // namespace

Snapshot snapshot_of(const fs::path& folder) {
  Snapshot snapshot;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const fs::path relative = entry.path().lexically_relative(folder);
    if (is_temporary(relative)) {
      snapshot.temporary.push_back(relative.string());
      continue;
    }
    if (!entry.is_regular_file()) continue;
    const std::string bytes = read_bytes(entry.path());
    const std::string name = relative.filename().string();
    std::string& content = snapshot.files[relative.string()];
    if (name == "results.json" || name == "config.json") {
      content = without_times(bytes);
    } else if (name == "metrics.jsonl") {
      content = without_speed(bytes);
    } else {
      content = bytes;
    }
  }
  return snapshot;
}

FaultCommands::FaultCommands() {
  const Outcome trained = run_program(task_.arguments({{"--lr", "0.05"}, {"--save_predictions", ""}}));
  if (trained.exit_code != 0) throw std::runtime_error(trained.errors);
  add_runs();
  add_pictures();
  add_exports();
  add_tables();
}

const FaultCommand& FaultCommands::named(const std::string& name) const {
  for (const auto& command : commands_) {
    if (command.name == name) return command;
  }
  throw std::runtime_error("there is no command " + name);
}

void FaultCommands::prepare(const FaultCommand& command) const {
  fs::remove_all(place());
  fs::create_directories(place());
  if (command.prepare) command.prepare(place());
}

void FaultCommands::add(FaultCommand command) {
  if (command.words_again.empty()) command.words_again = command.words;
  commands_.push_back(std::move(command));
}

std::vector<std::string> FaultCommands::run_words(std::map<std::string, std::string> changes) const {
  changes.insert({{"--save_path", (place() / "results").string()}, {"--workers", "1"}, {"--quiet", ""}});
  return task_.arguments(changes);
}

void FaultCommands::add_runs() {
  const auto earlier = [this](const fs::path& folder) { copy_folder(task_.save_path(), folder / "results"); };
  const std::string results = "results/small/shapes/1shots/seed1/";
  const std::set<std::string> replaced = {results + "results.json", results + "predictions.csv",
                                          results + "metrics.jsonl"};
  add({.name = "train", .words = run_words({{"--save_predictions", ""}})});
  add({.name = "train anew",
       .words = run_words({{"--lr", "0.01"}, {"--save_predictions", ""}}),
       .prepare = earlier,
       .may_go = replaced});
  const std::map<std::string, std::string> checkpointed = {{"--n_iters", "60"}, {"--checkpoint_every", "7"}};
  auto resumed = checkpointed;
  resumed["--resume"] = "";
  add({.name = "train, resumed", .words = run_words(checkpointed), .words_again = run_words(resumed)});
  add({.name = "eval_only",
       .words = run_words({{"--lr", "0.05"}, {"--eval_only", ""}, {"--save_predictions", ""}}),
       .prepare = [=](const fs::path& folder) {
         earlier(folder);
         fs::remove(folder / results / "predictions.csv");
       }});
  add({.name = "cache_dir",
       .words = task_.arguments(
           {{"--lr", "0.05"}, {"--eval_only", ""}, {"--cache_dir", (place() / "cache").string()}})});
  add({.name = "sweep",
       .words = {"sweep",
                 "--datasets",
                 "shapes",
                 "--root_path",
                 (task_ / "data").string(),
                 "--checkpoint",
                 task_.checkpoint().string(),
                 "--shots",
                 "1",
                 "--seeds",
                 "1",
                 "2",
                 "--n_iters",
                 "8",
                 "--batch_size",
                 "4",
                 "--workers",
                 "1",
                 "--save_path",
                 (place() / "results").string(),
                 "--checkpoint_every",
                 "3"},
       .full_disk_exit_codes = {1, 2}});  // a run failed; nothing can be written at all
}

void FaultCommands::add_pictures() {
  const auto photos = [](const fs::path& folder) { make_pictures(folder / "photos"); };
  const auto words = [this](const std::string& command, const std::vector<std::string>& flags) {
    std::vector<std::string> all = {command,        (place() / "photos").string(),
                                    "--checkpoint", task_.checkpoint().string(),
                                    "--adapter",    adapter().string(),
                                    "--quiet"};
    all.insert(all.end(), flags.begin(), flags.end());
    return all;
  };
  add({.name = "predict --out",
       .words = words("predict", {"--format", "csv", "--batch_size", "4", "--force", "--out",
                                  (place() / "out.csv").string()}),
       .prepare =
           [=](const fs::path& folder) {
             photos(folder);
             write_bytes(folder / "out.csv", "an earlier one");
           },
       .keeps_temporaries = true});
  const std::string sorted = (place() / "sorted").string();
  add({.name = "predict, copy", .words = words("predict", {"--sort_into", sorted}), .prepare = photos});
  add({.name = "predict, move",
       .words = words("predict", {"--sort_into", sorted, "--mode", "move"}),
       .prepare = photos,
       .moves = true});
  for (const std::string name : {"f.safetensors", "f.npy"}) {
    add({.name = "embed " + name,
         .words = words("embed", {"--out", (place() / name).string(), "--force"}),
         .prepare =
             [=](const fs::path& folder) {
               photos(folder);
               write_bytes(folder / name, "earlier features");
               write_bytes(folder / (name + ".json"), "the list of earlier features");
             },
         .may_go = {name + ".json"}});
  }
}

void FaultCommands::add_exports() {
  struct Format {
    std::string to, out;
  };
  const std::vector<Format> formats = {{"authors", "adapter.pt"}, {"safetensors", "adapter.safetensors"},
                                       {"openai", "clip.pt"},     {"onnx", "clip.onnx"},
                                       {"peft", "peft"},          {"hf", "hf"},
                                       {"openclip", "openclip"}};
  for (const auto& [to, out] : formats) {
    // What is there before is the same of the untrained scale: files of the same names and other contents.
    const auto words = [this, to = to, out = out](const std::string& adapter) {
      return std::vector<std::string>{
          "export", "--checkpoint", task_.checkpoint().string(), "--adapter", adapter, "--to",
          to,       "--out",        (place() / out).string(),    "--force"};
    };
    add({.name = "export " + to,
         .words = words(adapter().string()),
         .prepare =
             [this, to = to, words](const fs::path& folder) {
               const fs::path kept = task_ / ("earlier_" + to);
               if (!fs::exists(kept)) {
                 const fs::path other = task_ / "other";
                 if (!fs::exists(other)) {
                   const Outcome trained = run_program(
                       task_.arguments({{"--lr", "0.01"}, {"--save_path", other.string()}, {"--quiet", ""}}));
                   ASSERT_EQ(trained.exit_code, 0) << trained.errors;
                 }
                 const fs::path weights = other / "small/shapes/1shots/seed1/lora_weights.pt";
                 const Outcome exported = run_program(words(weights.string()));
                 ASSERT_EQ(exported.exit_code, 0) << exported.errors;
                 copy_folder(folder, kept);
               }
               fs::remove_all(folder);
               copy_folder(kept, folder);
             },
         .may_go = {out + ".json"}});
  }
}

void FaultCommands::add_tables() {
  const fs::path images = task_ / "data/shapes/images";
  add({.name = "split",
       .words = {"split", images.string(), "--out", (place() / "split.json").string(), "--force"},
       .prepare = [](const fs::path& folder) { write_bytes(folder / "split.json", "an earlier split"); }});
  add({.name = "report",
       .words = {"report", task_.save_path().string(), "--out", (place() / "report").string()},
       .prepare = [](const fs::path& folder) {
         fs::create_directories(folder / "report");
         for (const char* name : {"results.csv", "scales.csv", "results.md", "report.html"})
           write_bytes(folder / "report" / name, "an earlier one");
       }});
}

}  // namespace clip_lora::testing
