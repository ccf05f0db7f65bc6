#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "clip_lora/io/state_dict.hpp"
#include "clip_lora/lora/adapter.hpp"
#include "clip_lora/lora/options.hpp"
#include "clip_lora/model/clip.hpp"

namespace clip_lora::lora {

/// A method in functions of one block: what is trained, and what the block's weights become by it. Everything
/// else, training by autograd, evaluation, saving and reading, follows from them.
struct BlockMethod {
  /// The block's own tensors, fresh, by name, of its weights (float32, as all that is passed here); those
  /// that require gradients are trained. Throws ConfigError for options that do not fit.
  std::function<io::StateDict(const model::BlockWeights& frozen, const AdapterOptions& options)> make;
  /// The block's weights with them. `scale`: see Adapter::adapted. Weights that do not change are those of
  /// `frozen`.
  std::function<model::BlockWeights(const model::BlockWeights& frozen, const io::StateDict& own,
                                    double scale)>
      adapted;
  /// Puts them where the block computes with them unmerged; unset: the block has no place for them.
  std::function<void(model::BlockAdapters& adapters, const io::StateDict& own, const AdapterOptions& options)>
      attach = {};
  /// The flags beside --method, --encoder and --position that it reads and that a saved adapter has to agree
  /// with.
  std::vector<std::string> flags = {};
  /// Those that only a training reads.
  std::vector<std::string> training_flags = {};
};

/// A way to adapt a model.
struct Method {
  std::string name;     ///< `--method`
  std::string summary;  ///< a line for the help text
  /// Other defaults of a run by this method: flags' names and values as in a configuration file.
  nlohmann::ordered_json defaults = nlohmann::ordered_json::object();
  /// The flags of AdapterOptions that it reads beside --method; others that methods read are refused with it.
  std::vector<std::string> flags;
  /// Whether there is anything to train; if not, flags of training are refused too.
  bool is_trained = true;
  /// A fresh adapter for `clip`, on its device. Throws ConfigError.
  std::function<std::shared_ptr<Adapter>(const model::Clip& clip, const AdapterOptions& options)> make;
  /// Adapter::settings() of an adapter that `options` make.
  std::function<std::map<std::string, std::string>(const AdapterOptions& options)> settings;
};

/// Every method there is, in the order of the help text.
const std::vector<Method>& methods();

/// Throws ConfigError with the nearest name.
const Method& find_method(const std::string& name);

/// A fresh adapter of options.method. Throws ConfigError.
std::shared_ptr<Adapter> make_adapter(const model::Clip& clip, const AdapterOptions& options);

/// A method of a few functions as one of methods().
Method method_of(const std::string& name, const std::string& summary, const nlohmann::ordered_json& defaults,
                 const BlockMethod& functions);

}  // namespace clip_lora::lora
