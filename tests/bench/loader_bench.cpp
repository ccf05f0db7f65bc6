// How fast pictures come: what the evaluation cache saves, and what training on photos larger than memory
// costs. A plain program, since one pass over the data is one measurement.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "bench/photos.hpp"
#include "clip_lora/core/parallel.hpp"
#include "clip_lora/data/benchmark.hpp"
#include "clip_lora/data/image_folder.hpp"
#include "clip_lora/data/loader.hpp"
#include "clip_lora/image/codec.hpp"

namespace {

using namespace clip_lora;

struct Flags {
  std::string folder;
  std::string dataset = "eurosat";
  std::string cache_folder;
  int count = 24;
  int classes = 10;
  bench::PhotoSize photo_size;
  int image_size_px = 224;
  int batch_size = 256;
  int epochs = 1;
  int workers = hardware_workers();
  double image_memory_gib = 2.0;
};

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// The largest resident memory so far.
double peak_gib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / (1 << 20);
}

std::vector<data::Item> items_below(const std::string& folder) {
  std::vector<data::Item> items;
  for (auto& path : data::list_images(folder, data::HiddenFiles::kSkip))
    items.push_back({std::move(path), 0});
  return items;
}

void report_rate(const char* what, std::size_t images, double seconds) {
  std::printf("%s: %zu images in %.2f s, %.1f images/s, peak memory %.2f GiB\n", what, images, seconds,
              static_cast<double>(images) / seconds, peak_gib());
}

void make_photos(const Flags& flags) {
  const Stopwatch watch;
  bench::write_photos(flags.folder, flags.count, flags.classes, flags.photo_size, flags.workers);
  report_rate("generated", static_cast<std::size_t>(flags.count), watch.seconds());
}

void measure_decoding(const Flags& flags) {
  const auto items = items_below(flags.folder);
  const Stopwatch watch;
  parallel_for(items.size(), flags.workers, [&](std::size_t i) {
    thread_local std::vector<std::uint8_t> memory;  // as the training loader's workers have it
    image::Image image =
        image::decode_image(items[i].image, image::Orientation::kIgnoreExif, std::move(memory));
    memory = std::move(image.rgb);
  });
  report_rate("decoding alone", items.size(), watch.seconds());
}

void measure_training(const Flags& flags) {
  const auto items = items_below(flags.folder);
  const image::Preprocessing preprocessing = {.size_px = flags.image_size_px,
                                              .resize_px = flags.image_size_px};
  const data::TrainingLoaderOptions options = {
      .batch_size = flags.batch_size,
      .workers = flags.workers,
      .image_memory_bytes = static_cast<std::uint64_t>(flags.image_memory_gib * (1U << 30))};
  const Stopwatch building;
  data::TrainingLoader loader(items, preprocessing, options);
  std::printf("loader built in %.2f s, %zu of %zu images in memory\n", building.seconds(),
              loader.images_in_memory(), loader.images());
  const Stopwatch watch;
  const std::size_t wanted = items.size() * static_cast<std::size_t>(flags.epochs);
  std::size_t seen = 0;
  while (seen < wanted) seen += static_cast<std::size_t>(loader.next().labels.size(0));
  report_rate("training loader", seen, watch.seconds());
}

/// Seconds to the first batch of a pass over `items`, printed with those of the whole pass.
double measure_pass(const char* what, const std::vector<data::Item>& items, const Flags& flags,
                    const std::filesystem::path& cache_folder) {
  const image::Preprocessing preprocessing = {.size_px = flags.image_size_px,
                                              .resize_px = flags.image_size_px};
  const Stopwatch watch;
  data::EvaluationLoader loader(
      items, preprocessing,
      {.batch_size = flags.batch_size, .workers = flags.workers, .cache_folder = cache_folder});
  loader.next();
  const double first = watch.seconds();
  while (loader.next()) continue;
  std::printf("%-22s first batch %8.2f ms, all %8.1f ms\n", what, first * 1e3, watch.seconds() * 1e3);
  return first;
}

void measure_evaluation(const Flags& flags) {
  const auto items = data::load_benchmark(flags.dataset, flags.folder).test;
  std::printf("%s: %zu images at %d px, batches of %d, %d workers\n", flags.dataset.c_str(), items.size(),
              flags.image_size_px, flags.batch_size, flags.workers);
  measure_pass("warm-up", items, flags, {});
  const auto best_of_three = [&](const char* what, const std::filesystem::path& cache_folder) {
    double best = measure_pass(what, items, flags, cache_folder);
    for (int repeat = 1; repeat < 3; ++repeat)
      best = std::min(best, measure_pass(what, items, flags, cache_folder));
    return best;
  };
  const double without = best_of_three("without cache", {});
  measure_pass("while it is made", items, flags, flags.cache_folder);
  const double with = best_of_three("with cache", flags.cache_folder);
  std::printf("first batch %.1f times as early\n", without / with);
}

}  // namespace

int main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Speed of the loaders.");
  app.require_subcommand(1);
  const auto add = [&](const char* name, const char* what, void (*run)(const Flags&)) {
    CLI::App* command = app.add_subcommand(name, what);
    command->add_option("folder", flags.folder, "folder of class folders; evaluation: --root_path")
        ->required();
    command->add_option("--workers", flags.workers)->check(CLI::PositiveNumber);
    command->callback([&flags, run] { run(flags); });
    return command;
  };
  CLI::App* photos = add("photos", "writes JPEGs into class folders", make_photos);
  photos->add_option("--count", flags.count)->check(CLI::PositiveNumber);
  photos->add_option("--classes", flags.classes)->check(CLI::PositiveNumber);
  const auto side = CLI::Range(10, 20000);  // the texture's squares are 10 pixels wide
  photos->add_option("--height", flags.photo_size.height_px, "pixels; 3000 by default")->check(side);
  photos->add_option("--width", flags.photo_size.width_px, "pixels; 4000 by default")->check(side);
  add("decode", "decodes every image", measure_decoding);
  CLI::App* training = add("training", "takes epochs from the training loader", measure_training);
  training->add_option("--epochs", flags.epochs)->check(CLI::PositiveNumber);
  training->add_option("--image_memory", flags.image_memory_gib, "GiB")->check(CLI::PositiveNumber);
  CLI::App* evaluation =
      add("evaluation", "waits for the first batch, without and with a cache", measure_evaluation);
  evaluation->add_option("--dataset", flags.dataset);
  evaluation->add_option("--cache_folder", flags.cache_folder, "should be empty")->required();
  for (CLI::App* command : {training, evaluation}) {
    command->add_option("--image_size", flags.image_size_px, "R")->check(CLI::PositiveNumber);
    command->add_option("--batch_size", flags.batch_size)->check(CLI::PositiveNumber);
  }
  CLI11_PARSE(app, argc, argv);
  return 0;
}
