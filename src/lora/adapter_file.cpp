#include "clip_lora/lora/adapter_file.hpp"

#include <ATen/ATen.h>
#include <ATen/core/Dict.h>

#include <map>
#include <sstream>
#include <vector>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/torch_pickle.hpp"

namespace clip_lora::lora {
namespace {

using io::new_pickle_dict;
using io::PickleDict;
using io::PickleValue;

/// "layer_3.q_proj.w_lora_A" → its tensor: the file's three levels of dictionaries, flattened.
using FlatWeights = std::map<std::string, at::Tensor>;

FlatWeights flat_weights(const Adapter& adapter) {
  FlatWeights weights;
  int layer = 0;
  for (const auto& block : adapter.blocks()) {
    const std::string prefix = "layer_" + std::to_string(layer++) + ".";
    const auto add = [&](const char* projection, const std::optional<ops::LowRank>& update) {
      if (!update) return;
      weights[prefix + projection + ".w_lora_A"] = update->a;
      weights[prefix + projection + ".w_lora_B"] = update->b;
    };
    add("q_proj", block.lora.q);
    add("k_proj", block.lora.k);
    add("v_proj", block.lora.v);
    add("proj", block.lora.o);
  }
  return weights;
}

/// Inserts `tensor` at the dotted `name`, making the dictionaries on the way.
void insert_nested(PickleDict& dict, const std::string& name, const at::Tensor& tensor) {
  const auto dot = name.find('.');
  if (dot == std::string::npos) {
    dict.insert(name, tensor.detach().cpu().contiguous());
    return;
  }
  const std::string head = name.substr(0, dot);
  if (!dict.contains(head)) dict.insert(head, new_pickle_dict());
  PickleDict child = dict.at(head).toGenericDict();
  insert_nested(child, name.substr(dot + 1), tensor);
}

PickleDict metadata_of(const LoraOptions& options) {
  c10::List<std::string> params;
  for (const auto& name : projection_names(options.projections)) params.push_back(name);
  PickleDict metadata = new_pickle_dict();
  metadata.insert("r", options.rank);
  metadata.insert("alpha", options.alpha);
  metadata.insert("encoder", to_string(options.encoder));
  metadata.insert("params", params);
  metadata.insert("position", to_string(options.position));
  return metadata;
}

std::string shape_text(const at::Tensor& tensor) {
  std::ostringstream text;
  text << tensor.sizes();
  return text.str();
}

/// Reads one adapter file; every complaint names it.
class Reader {
 public:
  explicit Reader(const std::filesystem::path& path)
      : source_("adapter '" + path.string() + "'"), root_(read(path)) {}

  [[noreturn]] void fail(const std::string& what) const { throw CheckpointError(source_ + " " + what); }

  /// The dictionary under `key` of the file's outermost dictionary.
  PickleDict section(const std::string& key) const { return dict(member(dict(root_, "the file"), key), key); }

  /// Throws if the training settings in the file are not `options`.
  void check_metadata(const LoraOptions& options) const {
    const PickleDict metadata = section("metadata");
    std::string differences;
    const auto compare = [&](const char* key, const char* flag, const std::string& saved, const std::string& wanted) {
      if (saved == wanted) return;
      differences += "\n  " + std::string(key) + ": it was trained with " + flag + " " + saved + ", this run has " +
                     flag + " " + wanted;
    };
    compare("r", "--r", number(member(metadata, "r"), "metadata.r"), number(options.rank, "r"));
    compare("alpha", "--alpha", number(member(metadata, "alpha"), "metadata.alpha"), number(options.alpha, "alpha"));
    compare("encoder", "--encoder", string(member(metadata, "encoder"), "metadata.encoder"), to_string(options.encoder));
    compare("params", "--params", params(member(metadata, "params")), joined(projection_names(options.projections)));
    compare("position", "--position", string(member(metadata, "position"), "metadata.position"),
            to_string(options.position));
    if (!differences.empty()) fail("does not fit this run:" + differences);
  }

  FlatWeights weights() const {
    FlatWeights weights;
    flatten(section("weights"), "", weights);
    return weights;
  }

 private:
  static PickleValue read(const std::filesystem::path& path) {
    try {
      return io::read_torch_pickle(path);
    } catch (const CheckpointError& error) {
      throw CheckpointError(std::string("adapter ") + error.what());
    }
  }

  PickleDict dict(const PickleValue& value, const std::string& where) const {
    if (!value.isGenericDict()) fail("holds " + value.tagKind() + " as " + where + ", expected a dictionary");
    return value.toGenericDict();
  }

  PickleValue member(const PickleDict& dictionary, const std::string& key) const {
    const auto found = dictionary.find(key);
    if (found == dictionary.end()) fail("lacks '" + key + "' (hint: is it an adapter of CLIP-LoRA?)");
    return found->value();
  }

  std::string number(const PickleValue& value, const std::string& where) const {
    if (!value.isInt() && !value.isDouble()) fail("holds " + value.tagKind() + " as " + where + ", expected a number");
    std::ostringstream text;
    text << (value.isInt() ? static_cast<double>(value.toInt()) : value.toDouble());
    return text.str();
  }

  std::string string(const PickleValue& value, const std::string& where) const {
    if (!value.isString()) fail("holds " + value.tagKind() + " as " + where + ", expected a string");
    return value.toStringRef();
  }

  /// The saved list of projections in our order.
  std::string params(const PickleValue& value) const {
    if (!value.isList()) fail("holds " + value.tagKind() + " as metadata.params, expected a list");
    std::vector<std::string> names;
    for (const PickleValue& name : value.toListRef()) names.push_back(string(name, "an entry of metadata.params"));
    try {
      return joined(projection_names(parse_projections(names)));
    } catch (const ConfigError& error) {
      fail(std::string("has unknown metadata.params: ") + error.what());
    }
  }

  static std::string joined(const std::vector<std::string>& names) {
    std::string text;
    for (const auto& name : names) text += (text.empty() ? "" : " ") + name;
    return text;
  }

  void flatten(const PickleDict& dictionary, const std::string& prefix, FlatWeights& weights) const {
    for (const auto& entry : dictionary) {
      const std::string name = prefix + string(entry.key(), "a key of weights");
      if (entry.value().isTensor()) {
        weights[name] = entry.value().toTensor();
      } else {
        flatten(dict(entry.value(), name), name + ".", weights);
      }
    }
  }

  std::string source_;
  PickleValue root_;
};

}  // namespace

void save_adapter(const std::filesystem::path& path, const Adapter& adapter) {
  PickleDict weights = new_pickle_dict();
  for (const auto& [name, tensor] : flat_weights(adapter)) insert_nested(weights, name, tensor);
  PickleDict root = new_pickle_dict();
  root.insert("weights", weights);
  root.insert("metadata", metadata_of(adapter.options()));
  io::write_torch_pickle(path, root);
}

void load_adapter(const std::filesystem::path& path, Adapter& adapter) {
  const Reader reader(path);
  reader.check_metadata(adapter.options());
  const FlatWeights found = reader.weights();
  const FlatWeights expected = flat_weights(adapter);

  std::vector<std::string> problems;
  for (const auto& [name, tensor] : expected) {
    const auto match = found.find(name);
    if (match == found.end()) {
      problems.push_back(name + " is missing");
    } else if (match->second.sizes() != tensor.sizes()) {
      problems.push_back(name + " has shape " + shape_text(match->second) + ", expected " + shape_text(tensor));
    } else if (!match->second.is_floating_point()) {
      problems.push_back(name + " is of no floating type");
    }
  }
  for (const auto& [name, tensor] : found) {
    if (!expected.contains(name)) problems.push_back(name + " is unexpected");
  }
  if (!problems.empty()) {
    reader.fail("does not fit this model: " + join_capped(problems) + " (hint: was it trained on another backbone?)");
  }

  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : expected) tensor.copy_(found.at(name));
}

}  // namespace clip_lora::lora
