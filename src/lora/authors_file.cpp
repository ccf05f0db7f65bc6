// The `.pt` of the CLIP-LoRA release: {"weights": {"layer_<i>": {"q_proj": {"w_lora_A", "w_lora_B"}, …,
// "proj"}}, "metadata": {r, alpha, encoder, params, position}}, to which we add dropout_rate and clip_lora,
// the context as JSON.
#include <ATen/ATen.h>
#include <ATen/core/Dict.h>

#include <cmath>
#include <functional>

#include "adapter_context.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/json_text.hpp"
#include "clip_lora/io/torch_pickle.hpp"
#include "clip_lora/lora/summary.hpp"
#include "stored_adapter.hpp"

namespace clip_lora::lora {
namespace {

using io::new_pickle_dict;
using io::PickleDict;
using io::PickleValue;

constexpr const char* kContextKey = "clip_lora";
constexpr const char* kDropoutKey = "dropout_rate";
constexpr std::size_t kMostTensors = 100'000;  // a dictionary may be entered many times in a small file

at::Tensor stored(const at::Tensor& tensor) { return tensor.detach().cpu().contiguous(); }

PickleDict layer_dict(const AdaptedBlock& block) {
  PickleDict layer = new_pickle_dict();
  for_each_update(block.lora, [&](const Projection& projection, const ops::LowRank& update) {
    PickleDict matrices = new_pickle_dict();
    matrices.insert("w_lora_A", stored(update.a));
    matrices.insert("w_lora_B", stored(update.b));
    layer.insert(projection.name, matrices);
  });
  return layer;
}

PickleDict metadata_of(const LoraOptions& options, const AdapterContext& context) {
  c10::List<std::string> params;
  for (const auto& name : projection_names(options.projections)) params.push_back(name);
  PickleDict metadata = new_pickle_dict();
  metadata.insert("r", options.rank);
  metadata.insert("alpha", options.alpha);
  metadata.insert("encoder", to_string(options.encoder));
  metadata.insert("params", params);
  metadata.insert("position", to_string(options.position));
  metadata.insert(kDropoutKey, options.dropout);
  metadata.insert(kContextKey, io::json_text(context_json(context)));
  return metadata;
}

nlohmann::ordered_json as_json(const PickleValue& value) {
  if (value.isInt()) return value.toInt();
  if (value.isDouble()) return value.toDouble();
  if (value.isBool()) return value.toBool();
  if (value.isString()) return value.toStringRef();
  if (value.isList() || value.isTuple()) {
    auto array = nlohmann::ordered_json::array();
    const auto elements =
        value.isList() ? value.toListRef() : c10::ArrayRef<PickleValue>(value.toTupleRef().elements());
    for (const auto& element : elements) array.push_back(as_json(element));
    return array;
  }
  return value.tagKind();
}

/// The dictionary under `key`, if there is one.
std::optional<PickleDict> find_dict(const PickleValue& root, const std::string& key) {
  if (!root.isGenericDict()) return std::nullopt;
  const PickleDict dictionary = root.toGenericDict();
  const auto found = dictionary.find(key);
  if (found == dictionary.end() || !found->value().isGenericDict()) return std::nullopt;
  return found->value().toGenericDict();
}

/// Reads one file; every complaint names it.
class Reader {
 public:
  Reader(const std::filesystem::path& path, std::string source)
      : source_(std::move(source)), root_(dict(io::read_torch_archive(path).root, "the file")) {}

  [[noreturn]] void fail(const std::string& what) const { throw CheckpointError(source_ + " " + what); }

  LoraOptions options() const {
    const PickleDict metadata = section("metadata");
    LoraOptions options;
    try {
      options.rank = integer(member(metadata, "r"), "metadata.r");
      options.alpha = number(member(metadata, "alpha"), "metadata.alpha");
      options.encoder = parse_encoder(string(member(metadata, "encoder"), "metadata.encoder"));
      options.projections = parse_projections(strings(member(metadata, "params"), "metadata.params"));
      options.position = parse_position(string(member(metadata, "position"), "metadata.position"));
      if (const auto dropout = metadata.find(kDropoutKey); dropout != metadata.end()) {
        options.dropout = number(dropout->value(), "metadata.dropout_rate");
      }
      options.validate();
    } catch (const ConfigError& error) {
      fail(std::string("has impossible metadata: ") + error.what());
    }
    return options;
  }

  std::optional<AdapterContext> context() const {
    const PickleDict metadata = section("metadata");
    const auto found = metadata.find(kContextKey);
    if (found == metadata.end()) return std::nullopt;
    const std::string source = source_ + ": metadata.clip_lora";
    return read_context(JsonObject::parse(string(found->value(), "metadata.clip_lora"), source));
  }

  /// "layer_3.q_proj.w_lora_A" → its tensor: the file's three levels of dictionaries, flattened.
  io::StateDict weights() const {
    io::StateDict weights;
    each(section("weights"), "", [&](const std::string& layer, const PickleValue& projections) {
      each(dict(projections, layer), layer + ".",
           [&](const std::string& projection, const PickleValue& matrices) {
             each(dict(matrices, projection), projection + ".",
                  [&](const std::string& name, const PickleValue& matrix) {
                    if (!matrix.isTensor())
                      fail("holds " + matrix.tagKind() + " as " + name + ", expected a tensor");
                    if (weights.size() == kMostTensors)
                      fail("holds more than " + std::to_string(kMostTensors) + " tensors");
                    weights[name] = matrix.toTensor();
                  });
           });
    });
    return weights;
  }

 private:
  PickleDict section(const std::string& key) const { return dict(member(root_, key), key); }

  PickleDict dict(const PickleValue& value, const std::string& where) const {
    if (!value.isGenericDict()) fail("holds " + value.tagKind() + " as " + where + ", expected a dictionary");
    return value.toGenericDict();
  }

  PickleValue member(const PickleDict& dictionary, const std::string& key) const {
    const auto found = dictionary.find(key);
    if (found == dictionary.end()) fail("lacks '" + key + "' (hint: is it an adapter of CLIP-LoRA?)");
    return found->value();
  }

  void each(const PickleDict& dictionary, const std::string& prefix,
            const std::function<void(const std::string&, const PickleValue&)>& visit) const {
    for (const auto& entry : dictionary)
      visit(prefix + string(entry.key(), "a key of weights"), entry.value());
  }

  double number(const PickleValue& value, const std::string& where) const {
    if (!value.isInt() && !value.isDouble())
      fail("holds " + value.tagKind() + " as " + where + ", expected a number");
    return value.isInt() ? static_cast<double>(value.toInt()) : value.toDouble();
  }

  std::int64_t integer(const PickleValue& value, const std::string& where) const {
    constexpr double kLargest = 1e9;  // far above any width
    const double result = number(value, where);
    if (result != std::floor(result) || std::abs(result) > kLargest) fail("has an impossible " + where);
    return static_cast<std::int64_t>(result);
  }

  std::string string(const PickleValue& value, const std::string& where) const {
    if (!value.isString()) fail("holds " + value.tagKind() + " as " + where + ", expected a string");
    return value.toStringRef();
  }

  std::vector<std::string> strings(const PickleValue& value, const std::string& where) const {
    if (!value.isList()) fail("holds " + value.tagKind() + " as " + where + ", expected a list");
    std::vector<std::string> strings;
    for (const PickleValue& entry : value.toListRef())
      strings.push_back(string(entry, "an entry of " + where));
    return strings;
  }

  std::string source_;
  PickleDict root_;
};

/// What a file with these options holds: layers are counted over the adapted blocks.
std::vector<StoredUpdate> updates_of(const LoraOptions& options, const model::Clip& clip) {
  std::vector<StoredUpdate> updates;
  std::int64_t layer = 0;
  const auto add_tower = [&](Tower tower) {
    for (const std::int64_t index : blocks_at(options.position, architecture_of(clip, tower).layers)) {
      const std::string prefix = "layer_" + std::to_string(layer++) + ".";
      for (const Projection& projection : kProjections) {
        if (!(options.projections.*projection.flag)) continue;
        const std::string name = prefix + projection.name;
        updates.push_back({tower, index, projection, name + ".w_lora_A", name + ".w_lora_B", options.rank,
                           options.scaling()});
      }
    }
  };
  if (options.encoder != Encoder::kVision) add_tower(Tower::kText);
  if (options.encoder != Encoder::kText) add_tower(Tower::kVision);
  return updates;
}

}  // namespace

void write_authors(const std::filesystem::path& path, const LoraAdapter& adapter,
                   const AdapterContext& context) {
  const AdapterSummary summary = summarise(adapter);
  if (!summary.options) {
    throw ConfigError("cannot write '" + path.string() +
                      "' in the format authors: it has one rank, alpha, params and " +
                      "position for all blocks, but this adapter has rank " + summary.rank + ", alpha " +
                      summary.alpha + ", params " + summary.params + " and position " + summary.position +
                      " (hint: the formats peft and safetensors can say that)");
  }
  PickleDict weights = new_pickle_dict();
  std::int64_t layer = 0;
  for (const auto& block : adapter.blocks())
    weights.insert("layer_" + std::to_string(layer++), layer_dict(block));
  PickleDict root = new_pickle_dict();
  root.insert("weights", weights);
  root.insert("metadata", metadata_of(*summary.options, context));
  io::write_torch_pickle(path, root);
}

LoadedAdapter read_authors(const std::filesystem::path& path, const std::string& source,
                           const model::Clip& clip) {
  const Reader reader(path, source);
  const LoraOptions options = reader.options();
  return {assemble(source, clip, options, updates_of(options, clip), reader.weights()),
          AdapterFormat::kAuthors, reader.context()};
}

std::optional<AdapterDescription> describe_authors(const std::filesystem::path& path,
                                                   const std::string& source) {
  const PickleValue root = io::read_torch_archive(path).root;
  const auto weights = find_dict(root, "weights"), metadata = find_dict(root, "metadata");
  if (!weights || !metadata) return std::nullopt;
  nlohmann::ordered_json settings, context;
  for (const auto& entry : *metadata) {
    if (!entry.key().isString()) continue;
    const std::string key = entry.key().toStringRef();
    if (key != kContextKey) {
      settings[key] = as_json(entry.value());
    } else if (entry.value().isString()) {
      context = JsonObject::parse(entry.value().toStringRef(), source + ": metadata.clip_lora").json();
    }
  }
  return description_of(AdapterFormat::kAuthors, settings, io::nested_tensors(*weights, source + ": "),
                        context);
}

}  // namespace clip_lora::lora
