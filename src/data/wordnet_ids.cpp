#include <algorithm>
#include <set>

#include "clip_lora/core/errors.hpp"
#include "id_name_lines.hpp"
#include "paths.hpp"
#include "robustness_readers.hpp"
#include "text_file.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;
using Ids = std::set<std::string>;  // ascending

/// n and eight digits.
bool is_wordnet_id(const std::string& word) {
  constexpr std::size_t kLength = 9;
  return word.size() == kLength && word.front() == 'n' && is_digits(word.substr(1));
}

/// The first words of a file's lines.
Ids ids_in_file(const fs::path& file) {
  Ids ids;
  for (const std::string& line : read_lines(file)) {
    const std::string word = line.substr(0, line.find_first_of(" \t,"));
    if (is_wordnet_id(word)) ids.insert(word);
  }
  return ids;
}

/// The names of class folders; the pictures, of which ImageNet has a million, are not looked at.
Ids ids_of_folders(const fs::path& folder) {
  Ids ids;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (is_wordnet_id(entry.path().filename().string()) && is_folder(entry.path())) {
      ids.insert(entry.path().filename().string());
    }
  }
  if (error) throw DataError("folder '" + folder.string() + "' cannot be read: " + error.message());
  return ids;
}

std::vector<fs::path> sources() {
  std::vector<fs::path> paths = {"imagenet/classnames.txt",
                                 "imagenet/LOC_synset_mapping.txt",
                                 "wordnet_ids.txt",
                                 "imagenet/images/val",
                                 "imagenet/val",
                                 "imagenet/images/train",
                                 "imagenet/train"};
  for (const std::string& folder : sketch_folders()) paths.emplace_back(folder);
  return paths;
}

}  // namespace

std::vector<std::string> find_wordnet_ids(const fs::path& root_path) {
  std::vector<std::string> tried;
  for (const fs::path& source : sources()) {
    const fs::path path = root_path / source;
    std::string problem = "not there";
    if (is_there(path)) {
      const Ids ids = is_folder(path) ? ids_of_folders(path) : ids_in_file(path);
      if (ids.size() == kImageNetClasses) return {ids.begin(), ids.end()};
      problem = std::to_string(ids.size()) + " ids";
    }
    tried.push_back("'" + path.string() + "' (" + problem + ")");
  }
  throw DataError(
      "nothing tells which WordNet id is which of ImageNet's labels, expected 1,000 ids in one of " +
      join_capped(tried, tried.size()) +
      " (hint: wordnet_ids.txt is the simplest, an id such as n01440764 per line)");
}

}  // namespace clip_lora::data
