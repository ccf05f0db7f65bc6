#include <filesystem>

#include "clip_lora/text/hugging_face_tokenizer.hpp"
#include "targets.hpp"

namespace clip_lora::fuzz {
namespace {

/// Pieces: vocab.json, merges.txt, tokenizer.json. An empty piece is a file that is not there.
void run(std::string_view input) {
  constexpr const char* kFiles[] = {"vocab.json", "merges.txt", "tokenizer.json"};
  const auto pieces = pieces_of(input, std::size(kFiles));
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    if (pieces[i].empty()) {
      std::filesystem::remove(scratch_folder() / kFiles[i]);
    } else {
      scratch_file(kFiles[i], pieces[i]);
    }
  }
  read_whatever_it_is([] { text::require_clip_tokenizer(scratch_folder()); });
}

std::vector<std::string> seeds() {
  const std::string deep = std::string(300, '[') + std::string(300, ']');
  return {joined({R"({"!": 0, "a": 1})", "#version: 0.2\ni n\nt h\n", ""}),
          joined({"", "", R"({"model": {"vocab": {"!": 0}, "merges": ["i n", ["t", "h"], 3]}})"}),
          joined({"", "", R"({"model": {"vocab": [], "merges": {}}, "added_tokens": []})"}),
          joined({"", "", R"({"model": null})"}),
          joined({"[]", "", ""}),
          joined({R"({"!": )" + deep + "}", "", ""})};
}

}  // namespace

const Target tokenizer_files = {"tokenizer_files", run, seeds};

}  // namespace clip_lora::fuzz
