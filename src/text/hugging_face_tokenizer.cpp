#include "clip_lora/text/hugging_face_tokenizer.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <vector>

#include "byte_symbols.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/text/tokenizer.hpp"
#include "embedded.hpp"

namespace clip_lora::text {
namespace {

/// Every token by its id: bytes, bytes that end a word, merges, start and end of text.
std::vector<std::string> vocabulary() {
  std::vector<std::string> tokens;
  for (const auto& [byte, symbol] : byte_symbols()) tokens.push_back(symbol);
  for (const auto& [byte, symbol] : byte_symbols()) tokens.push_back(symbol + std::string(kEndOfWord));
  for (const auto merge : lines_of(embedded_bpe_merges())) {
    const auto space = merge.find(' ');
    tokens.push_back(std::string(merge.substr(0, space)) + std::string(merge.substr(space + 1)));
  }
  tokens.push_back("<|startoftext|>");
  tokens.push_back("<|endoftext|>");
  return tokens;
}

nlohmann::ordered_json special_tokens() {
  // Hugging Face's CLIP pads with the end token; what follows the first one never matters.
  return {{"bos_token", "<|startoftext|>"},
          {"eos_token", "<|endoftext|>"},
          {"unk_token", "<|endoftext|>"},
          {"pad_token", "<|endoftext|>"}};
}

namespace fs = std::filesystem;

constexpr const char* kHint = " (hint: only CLIP's own tokenizer is there)";

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw CheckpointError("tokenizer '" + path.string() + "' cannot be read");
  return {std::istreambuf_iterator<char>(file), {}};
}

nlohmann::json read_json(const fs::path& path) {
  constexpr int kDeepest = 64;                 // a value in an error message is written by recursion
  constexpr std::size_t kLongestReason = 200;  // the parser quotes what it has read, however long that is
  const auto watch = [&](int depth, nlohmann::json::parse_event_t, const nlohmann::json&) {
    if (depth <= kDeepest) return true;
    throw CheckpointError("tokenizer '" + path.string() + "': its JSON is nested deeper than " +
                          std::to_string(kDeepest));
  };
  try {
    return nlohmann::json::parse(read_text(path), watch);
  } catch (const nlohmann::json::exception& error) {
    throw CheckpointError("tokenizer '" + path.string() +
                          "' is not JSON: " + std::string(error.what()).substr(0, kLongestReason));
  }
}

/// `ids`: a JSON object of tokens and their ids.
void require_vocabulary(const nlohmann::json& ids, const fs::path& path) {
  const std::string source = "tokenizer '" + path.string() + "': ";
  if (!ids.is_object() || ids.size() != static_cast<std::size_t>(kVocabularySize)) {
    throw CheckpointError(source + "its vocabulary has " + std::to_string(ids.is_object() ? ids.size() : 0) +
                          " tokens, expected CLIP's " + std::to_string(kVocabularySize) + kHint);
  }
  const std::vector<std::string> tokens = vocabulary();
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    const auto found = ids.find(tokens[id]);
    if (found != ids.end() && *found == id) continue;
    throw CheckpointError(source + "token '" + tokens[id] + "' " +
                          (found == ids.end() ? "is missing" : "has the id " + found->dump().substr(0, 20)) +
                          ", CLIP's has the id " + std::to_string(id) + kHint);
  }
}

/// `merges`: "a b", in order; those beyond CLIP's make no token of its vocabulary.
void require_merges(const std::vector<std::string>& merges, const fs::path& path) {
  const auto expected = lines_of(embedded_bpe_merges());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (i < merges.size() && merges[i] == expected[i]) continue;
    throw CheckpointError("tokenizer '" + path.string() + "': merge " + std::to_string(i + 1) + " is '" +
                          (i < merges.size() ? merges[i].substr(0, 80) : "") + "', CLIP's is '" +
                          std::string(expected[i]) + "'" + kHint);
  }
}

/// The lines of merges.txt, without the one that says the version.
std::vector<std::string> merges_of_text(const std::string& text) {
  std::vector<std::string> merges;
  for (const auto line : lines_of(text)) {
    if (!line.starts_with("#version")) merges.emplace_back(line);
  }
  return merges;
}

/// The merges of tokenizer.json: "a b", or ["a", "b"].
std::vector<std::string> merges_of_json(const nlohmann::json& list) {
  std::vector<std::string> merges;
  for (const auto& merge : list) {
    const bool pair = merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string();
    merges.push_back(pair                ? merge[0].get<std::string>() + " " + merge[1].get<std::string>()
                     : merge.is_string() ? merge.get<std::string>()
                                         : "");
  }
  return merges;
}

}  // namespace

void require_clip_tokenizer(const fs::path& folder) {
  const fs::path vocabulary_file = folder / "vocab.json", merges_file = folder / "merges.txt";
  const fs::path whole_file = folder / "tokenizer.json";
  if (fs::exists(vocabulary_file)) {
    require_vocabulary(read_json(vocabulary_file), vocabulary_file);
    if (fs::exists(merges_file)) require_merges(merges_of_text(read_text(merges_file)), merges_file);
  } else if (fs::exists(whole_file)) {
    const nlohmann::json tokenizer = read_json(whole_file);
    const auto model = tokenizer.is_object() ? tokenizer.value("model", nlohmann::json()) : nlohmann::json();
    require_vocabulary(model.is_object() ? model.value("vocab", nlohmann::json()) : nlohmann::json(),
                       whole_file);
    require_merges(merges_of_json(model.value("merges", nlohmann::json::array())), whole_file);
  }
}

std::map<std::string, std::string> hugging_face_tokenizer_files(int context_length) {
  nlohmann::json ids;
  const std::vector<std::string> tokens = vocabulary();
  for (std::size_t id = 0; id < tokens.size(); ++id) ids[tokens[id]] = id;

  nlohmann::ordered_json configuration = special_tokens();
  configuration["tokenizer_class"] = "CLIPTokenizer";
  configuration["model_max_length"] = context_length;
  configuration["do_lower_case"] = true;
  configuration["add_prefix_space"] = false;
  configuration["errors"] = "replace";

  return {{"vocab.json", ids.dump() + "\n"},
          {"merges.txt", "#version: 0.2\n" + std::string(embedded_bpe_merges())},
          {"tokenizer_config.json", configuration.dump(2) + "\n"},
          {"special_tokens_map.json", special_tokens().dump(2) + "\n"}};
}

}  // namespace clip_lora::text
