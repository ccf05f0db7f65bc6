#include "cli/sweep_task.hpp"

#include <algorithm>
#include <chrono>
#include <sstream>
#include <thread>

#include "support/files.hpp"

namespace clip_lora::testing {

namespace fs = std::filesystem;

namespace {

fs::path metrics_under_way(const fs::path& folder) {
  if (!fs::exists(folder)) return {};
  std::error_code ignored;  // files come and go
  for (fs::recursive_directory_iterator entry(folder, ignored), end; entry != end; entry.increment(ignored)) {
    const fs::path& path = entry->path();
    const bool is_under_way =
        path.filename() == "metrics.jsonl" && !fs::exists(path.parent_path() / "results.json");
    if (is_under_way && read_bytes(path).find('\n') != std::string::npos) return path;
  }
  return {};
}

}  // namespace

std::vector<std::string> SweepTask::arguments(const std::string& folder,
                                              const std::map<std::string, std::string>& changes) const {
  std::map<std::string, std::string> flags = {{"--datasets", "shapes"},
                                              {"--root_path", (task_ / "data").string()},
                                              {"--checkpoint", task_.checkpoint().string()},
                                              {"--shots", "1 2"},
                                              {"--seeds", "1 2"},
                                              {"--n_iters", "4"},
                                              {"--batch_size", "4"},
                                              {"--workers", "1"},
                                              {"--save_path", (task_ / folder).string()}};
  for (const auto& [flag, value] : changes) flags[flag] = value;
  std::vector<std::string> words = {"sweep"};
  for (const auto& [flag, value] : flags) {
    words.push_back(flag);
    std::istringstream stream(value);
    for (std::string word; stream >> word;) words.push_back(word);
  }
  return words;
}

std::vector<std::string> finished_runs(const fs::path& folder) {
  std::vector<std::string> runs;
  if (!fs::exists(folder)) return runs;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.path().filename() == "results.json")
      runs.push_back(entry.path().parent_path().lexically_relative(folder).string());
  }
  std::sort(runs.begin(), runs.end());
  return runs;
}

std::map<std::string, Result> results_below(const fs::path& folder) {
  std::map<std::string, Result> results;
  for (const auto& run : finished_runs(folder)) {
    Result& result = results[run];
    result.results = nlohmann::json::parse(read_bytes(folder / run / "results.json"));
    for (const char* key : {"seconds", "memory", "adapter", "command"}) result.results.erase(key);
    for (const char* key : {"save_path", "cache_dir"}) result.results["settings"].erase(key);
    result.results["training"].erase("resumed_from");
    result.adapter = read_bytes(folder / run / "lora_weights.pt");
  }
  return results;
}

std::vector<double> memory_by_seed(const SweepTask& task, int runs, const std::string& key) {
  std::vector<double> bytes;
  for (int seed = 1; seed <= runs; ++seed) {
    const auto file = task / ("results/small/shapes/1shots/seed" + std::to_string(seed) + "/results.json");
    bytes.push_back(nlohmann::json::parse(read_bytes(file)).at("memory").at(key));
  }
  return bytes;
}

std::vector<std::string> leftovers_below(const fs::path& folder) {
  std::vector<std::string> found;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const bool is_left = name.find(".tmp-") != std::string::npos ||
                         name.find("lease.") != std::string::npos || name.ends_with(".before") ||
                         name == "checkpoint.safetensors" || name == "error.json";
    if (is_left) found.push_back(entry.path().lexically_relative(folder).string());
  }
  return found;
}

fs::path wait_for_metrics_under_way(const fs::path& folder) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (std::chrono::steady_clock::now() < deadline) {
    if (fs::path file = metrics_under_way(folder); !file.empty()) return file;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return {};
}

std::string first_line(const fs::path& file) {
  const std::string text = read_bytes(file);
  return text.substr(0, text.find('\n'));
}

std::size_t count_lines(const std::string& text, const std::string& word) {
  std::istringstream stream(text);
  std::size_t count = 0;
  for (std::string line; std::getline(stream, line);) count += line.starts_with(word) ? 1 : 0;
  return count;
}

std::vector<std::string> on_host(const std::string& host, const std::vector<std::string>& arguments) {
  std::vector<std::string> words = {"CLIP_LORA_HOSTNAME=" + host, CLIP_LORA_PROGRAM};
  words.insert(words.end(), arguments.begin(), arguments.end());
  return words;
}

}  // namespace clip_lora::testing
