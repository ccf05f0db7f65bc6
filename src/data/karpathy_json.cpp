#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "caption_files.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/json_text.hpp"
#include "text_file.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// Takes each image as soon as its JSON is whole, and keeps no more of it than is asked for: COCO's file has
/// seven million words and their places in it.
class KarpathyReader {
 public:
  explicit KarpathyReader(const fs::path& file) : file_(file) {}

  CaptionFile read() {
    const auto text = read_text_file(file_);
    if (!text) fail("it is missing or cannot be read");
    const Json rest = parse(*text);
    if (!rest.is_object()) fail(std::string("it is a JSON ") + rest.type_name() + ", expected an object");
    if (!has_images_)
      fail("it has no list 'images' (hint: Karpathy's splits have filename, split, sentences)");
    if (found_.images.empty()) fail("its list 'images' is empty");
    if (const auto name = rest.find("dataset"); name != rest.end() && name->is_string()) {
      found_.name = name->get<std::string>();
    }
    return std::move(found_);
  }

 private:
  using Event = Json::parse_event_t;

  /// What there is besides the images.
  Json parse(const std::string& text) {
    constexpr std::size_t kLongestReason = 200;
    try {
      return Json::parse(text,
                         [this](int depth, Event event, Json& value) { return keep(depth, event, value); });
    } catch (const Json::exception& error) {
      fail("it is not JSON, or not all of it is there: " +
           std::string(error.what()).substr(0, kLongestReason));
    }
  }

  bool keep(int depth, Event event, const Json& value) {
    constexpr int kDeepest = 64;  // what breaks a format is written into a message, which recurses
    if (depth > kDeepest) fail("its JSON is nested deeper than " + std::to_string(kDeepest));
    if (depth == 1 && event == Event::key) is_in_images_ = value == "images";
    if (!is_in_images_) return true;
    if (depth == 1 && event == Event::array_start) has_images_ = true;
    const bool is_whole = event == Event::value || event == Event::object_end || event == Event::array_end;
    if (depth != 2 || !is_whole || !has_images_) return true;
    take(value);
    return false;
  }

  void take(const Json& json) {
    const std::string entry = "images[" + std::to_string(found_.images.size()) + "]";
    if (!json.is_object()) {
      fail(entry + " is " + io::brief(json) + ", expected an object with filename, split and sentences");
    }
    ListedImage image;
    image.file = read_path(json, entry);
    const std::string named = entry + " '" + image.file + "'";
    image.split = read_split(json, named);
    image.captions = read_captions(json, named);
    const auto [known, is_new] = known_.emplace(image.file, found_.images.size());
    if (!is_new) fail(named + " is images[" + std::to_string(known->second) + "], too, expected it once");
    found_.images.push_back(std::move(image));
  }

  std::string read_path(const Json& json, const std::string& entry) const {
    const std::string name = read_string(json, "filename", entry);
    if (name.empty()) fail(entry + " has an empty filename");
    return json.contains("filepath") ? (fs::path(read_string(json, "filepath", entry)) / name).string()
                                     : name;
  }

  std::string read_split(const Json& json, const std::string& entry) const {
    std::string split = read_string(json, "split", entry);
    if (split == "restval") return "train";  // COCO's validation images that are in neither val nor test
    if (split == "train" || split == "val" || split == "test") return split;
    fail(entry + " has the split '" + split + "', expected train, restval, val or test");
  }

  std::vector<std::string> read_captions(const Json& json, const std::string& entry) const {
    const auto sentences = json.find("sentences");
    if (sentences == json.end() || !sentences->is_array()) fail(entry + " has no list 'sentences'");
    if (sentences->empty()) fail(entry + " has no captions, expected at least one");
    std::vector<std::string> captions;
    for (std::size_t i = 0; i < sentences->size(); ++i) {
      const std::string place = entry + " sentences[" + std::to_string(i) + "]";
      if (!(*sentences)[i].is_object()) fail(place + " is no object with the caption as 'raw'");
      captions.push_back(read_string((*sentences)[i], "raw", place));
      if (trimmed(captions.back()).empty()) fail(place + " is an empty caption");
    }
    return captions;
  }

  std::string read_string(const Json& json, const std::string& key, const std::string& entry) const {
    const auto found = json.find(key);
    if (found == json.end()) fail(entry + " has no '" + key + "'");
    if (!found->is_string())
      fail(entry + " has the " + key + " " + io::brief(*found) + ", expected a string");
    return found->get<std::string>();
  }

  [[noreturn]] void fail(const std::string& reason) const {
    throw DataError("caption file '" + file_.string() + "': " + reason);
  }

  const fs::path& file_;
  bool is_in_images_ = false;
  bool has_images_ = false;
  CaptionFile found_;
  std::unordered_map<std::string, std::size_t> known_;  // index of the image by its file
};

}  // namespace

CaptionFile read_karpathy_json(const fs::path& file) { return KarpathyReader(file).read(); }

}  // namespace clip_lora::data
