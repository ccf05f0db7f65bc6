#include "clip_lora/data/benchmark.hpp"

#include <algorithm>

#include "benchmark_list.hpp"
#include "clip_lora/core/errors.hpp"
#include "paths.hpp"

namespace clip_lora::data {

const std::vector<Benchmark>& benchmarks() {
  static const std::vector<Benchmark> all = {caltech101(), dtd(),           eurosat(),        fgvc(),
                                             food101(),    imagenet(),      oxford_flowers(), oxford_pets(),
                                             shapes(),     stanford_cars(), sun397(),         ucf101()};
  return all;
}

std::vector<std::string> benchmark_names() {
  std::vector<std::string> names;
  for (const Benchmark& benchmark : benchmarks()) names.push_back(benchmark.name);
  return names;
}

std::vector<std::string> published_benchmark_names() {
  std::vector<std::string> names = benchmark_names();
  std::erase(names, "shapes");
  return names;
}

const Benchmark* find_benchmark(const std::string& name) {
  for (const Benchmark& benchmark : benchmarks()) {
    const auto& aliases = benchmark.aliases;
    if (benchmark.name == name || std::find(aliases.begin(), aliases.end(), name) != aliases.end())
      return &benchmark;
  }
  return nullptr;
}

std::filesystem::path find_folder(const Benchmark& benchmark, const std::filesystem::path& root_path) {
  return first_folder(benchmark.name, benchmark.folders, root_path);
}

Dataset load_benchmark(const std::string& name, const std::filesystem::path& root_path) {
  const Benchmark* benchmark = find_benchmark(name);
  if (benchmark == nullptr) {
    const auto names = benchmark_names();
    throw ConfigError("unknown data set '" + name + "', expected one of " + join_capped(names, names.size()) +
                      did_you_mean(name, names));
  }
  return benchmark->read(find_folder(*benchmark, root_path));
}

}  // namespace clip_lora::data
