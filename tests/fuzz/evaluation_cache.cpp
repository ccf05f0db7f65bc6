#include "data/evaluation_cache.hpp"

#include <algorithm>
#include <filesystem>

#include "support/files.hpp"
#include "targets.hpp"

namespace clip_lora::fuzz {
namespace {

constexpr int kSidePx = 4;
constexpr std::size_t kViewBytes = std::size_t{kSidePx} * kSidePx * 3;

const std::vector<data::Item>& items() {
  static const std::vector<data::Item> items = {{scratch_file("0.png", "zero").string(), 0},
                                                {scratch_file("1.png", "one").string(), 1}};
  return items;
}

image::Preprocessing preprocessing() {
  image::Preprocessing preprocessing;
  preprocessing.size_px = preprocessing.resize_px = kSidePx;
  return preprocessing;
}

/// A pass over all items, whose views are all 7 and 8; whatever the file says, these must come out.
void pass() {
  data::EvaluationCache cache(scratch_folder() / "cache", items(), preprocessing(), /*wait=*/false);
  std::vector<std::uint8_t> fresh(items().size() * kViewBytes);
  const auto kept = cache.kept_views(0);
  std::uint8_t* const pixels = kept ? kept.get() : fresh.data();
  for (std::size_t i = 0; i < items().size(); ++i) {
    std::uint8_t* const view = pixels + i * kViewBytes;
    cache.fill(i, view, [&] { std::fill_n(view, kViewBytes, static_cast<std::uint8_t>(7 + i)); });
    require(std::all_of(view, view + kViewBytes, [&](auto value) { return value == 7 + i; }),
            "a view is the picture's");
  }
  cache.finish();
}

/// The file that a first pass has made.
const std::filesystem::path& file() {
  static const std::filesystem::path path = [] {
    pass();
    return std::filesystem::directory_iterator(scratch_folder() / "cache")->path();
  }();
  return path;
}

void run(std::string_view input) {
  scratch_file("cache/" + file().filename().string(), input);
  read_whatever_it_is(pass);
}

std::vector<std::string> seeds() {
  const std::string whole = testing::read_bytes(file());
  std::string damaged = whole;
  damaged.back() ^= 1;
  return {whole, damaged, whole.substr(0, 100), whole.substr(0, 40)};
}

}  // namespace

const Target evaluation_cache = {"evaluation_cache", run, seeds};

}  // namespace clip_lora::fuzz
