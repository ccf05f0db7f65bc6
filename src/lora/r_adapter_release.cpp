// The checkpoints of R-Adapter's release (github.com/tjddus9597/R-Adapter-ECCV2024): {"epoch", "name",
// "state_dict", "optimizer"}, or a state dict alone. The state dict is the whole CLIP under OpenAI's names,
// behind "module.model."; each block of an adapted tower has adapter_attn and adapter_mlp besides, and, where
// it was averaged in training, adapter_attn_cache and adapter_mlp_cache, the averages, which are what the
// release evaluates. A module holds `s` [1] and `f.weight` [D, D], or, for ranks R above D alone, `d.weight`
// [R, D] and `u.weight` [D, R].
#include <ATen/ATen.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/torch_pickle.hpp"
#include "clip_lora/lora/method.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "stored_adapter.hpp"

namespace clip_lora::lora {
namespace {

/// What the release merges at, whatever its flag says.
constexpr double kScale = 0.5;

constexpr std::array<std::string_view, 2> kReleaseModules = {".adapter_attn", ".adapter_mlp"};
constexpr std::string_view kAverage = "_cache";
/// Of OpenAI's archives; no weights.
constexpr std::array<std::string_view, 4> kIgnored = {"input_resolution", "context_length", "vocab_size",
                                                      "attn_mask"};

bool is_adapters(std::string_view name) {
  return std::ranges::any_of(kReleaseModules, [&](auto module) { return name.find(module) != name.npos; });
}

bool is_average(const std::string& name) {
  return std::ranges::any_of(kReleaseModules, [&](auto module) {
    return name.find(std::string(module) + std::string(kAverage) + ".") != name.npos;
  });
}

/// The dictionary of tensors in a file.
std::optional<io::PickleDict> state_dict_in(const io::PickleValue& root) {
  if (!root.isGenericDict()) return std::nullopt;
  const io::PickleDict whole = root.toGenericDict();
  const auto found = whole.find("state_dict");
  if (found == whole.end()) return whole;
  if (!found->value().isGenericDict()) return std::nullopt;
  return found->value().toGenericDict();
}

/// CLIP's name of a tensor: without those of what is wrapped around the CLIP.
std::string clip_name(std::string_view name) {
  constexpr std::array<std::string_view, 3> kWrappers = {"module.", "image_encoder.", "model."};
  const auto is_first = [&](auto wrapper) { return name.starts_with(wrapper); };
  for (auto wrapper = std::ranges::find_if(kWrappers, is_first); wrapper != kWrappers.end();
       wrapper = std::ranges::find_if(kWrappers, is_first)) {
    name.remove_prefix(wrapper->size());
  }
  return std::string(name);
}

/// A file's tensors by CLIP's names.
struct Release {
  io::StateDict adapter;  ///< the averages alone, if there are any
  io::StateDict clip;     ///< everything else
  bool is_averaged = false;

  Encoder encoder() const {
    const auto has = [&](const char* prefix) {
      return std::ranges::any_of(adapter, [&](const auto& entry) { return entry.first.starts_with(prefix); });
    };
    const bool text = has("transformer."), vision = has("visual.");
    if (text == vision) return Encoder::kBoth;
    return text ? Encoder::kText : Encoder::kVision;
  }
};

Release release_in(const io::PickleDict& state_dict, const std::string& source) {
  Release release;
  for (const auto& entry : state_dict) {
    if (!entry.key().isString() || !entry.value().isTensor()) continue;
    const std::string known = clip_name(entry.key().toStringRef());
    release.is_averaged = release.is_averaged || is_average(known);
    io::StateDict& part = is_adapters(known) ? release.adapter : release.clip;
    if (!part.emplace(known, entry.value().toTensor()).second)
      throw CheckpointError(source + " holds " + known + " twice, behind different prefixes");
  }
  if (release.is_averaged)
    std::erase_if(release.adapter, [](const auto& entry) { return !is_average(entry.first); });
  return release;
}

/// The adapter's own tensors under the names that the release's file has for them.
io::StateDict by_release_names(const io::StateDict& adapter, bool is_averaged) {
  io::StateDict renamed;
  for (const auto& [name, tensor] : adapter) {
    const auto dot = name.rfind('.');
    const std::string module = name.substr(0, dot) + std::string(is_averaged ? kAverage : "");
    renamed[module + (name.substr(dot) == ".scale" ? ".s" : ".f.weight")] = tensor;
  }
  return renamed;
}

/// W = U·V where the file has U and V: of a rank above D, W is the smaller one.
void multiply_factors(const io::StateDict& expected, io::StateDict& stored) {
  for (const auto& [name, weight] : expected) {
    if (!name.ends_with(".f.weight") || stored.contains(name)) continue;
    const std::string module = name.substr(0, name.size() - std::string_view("f.weight").size());
    const auto up = stored.find(module + "u.weight"), down = stored.find(module + "d.weight");
    if (up == stored.end() || down == stored.end()) continue;
    const at::Tensor &u = up->second, &v = down->second;
    // As large as the file says that they are: strides of 0 could make any rank of a few bytes.
    const bool fit = u.dim() == 2 && v.dim() == 2 && u.size(0) == weight.size(0) &&
                     v.size(1) == weight.size(1) && u.size(1) == v.size(0) && u.is_contiguous() &&
                     v.is_contiguous() && u.is_floating_point() && v.is_floating_point();
    if (!fit) continue;
    stored[name] = at::matmul(u.to(at::kFloat), v.to(at::kFloat));
    stored.erase(module + "u.weight");
    stored.erase(module + "d.weight");
  }
}

/// Tensors beside the adapter's that this model has not, or in another shape.
std::vector<std::string> problems_with(const io::StateDict& stored, const io::StateDict& model) {
  std::vector<std::string> problems;
  for (const auto& [name, tensor] : stored) {
    if (std::ranges::find(kIgnored, name) != kIgnored.end()) continue;
    const auto own = model.find(name);
    if (own == model.end()) {
      problems.push_back(name + " is unexpected");
    } else if (tensor.sizes() != own->second.sizes()) {
      problems.push_back(name + " has shape " + c10::str(tensor.sizes()) + ", expected " +
                         c10::str(own->second.sizes()));
    }
  }
  return problems;
}

/// Equal but for the rounding to a half precision that either may have been through.
bool is_same_weight(const at::Tensor& stored, const at::Tensor& own) {
  const double rounding = own.scalar_type() == at::kBFloat16 ? 0x1p-8 : 0x1p-10;
  const at::Tensor expected = own.detach().cpu().to(at::kFloat);
  const at::Tensor difference = stored.cpu().to(at::kFloat).sub(expected);
  return difference.norm().item<double>() <= rounding * expected.norm().item<double>();
}

/// The matrices in the blocks, most of a model, are left out: another model differs in the rest too, and no
/// flag of the release trains them beside adapters.
void require_same_weights(const std::string& source, const io::StateDict& stored,
                          const io::StateDict& model) {
  for (const auto& [name, tensor] : stored) {
    const auto own = model.find(name);
    if (own == model.end() || (tensor.dim() > 1 && name.find(".resblocks.") != name.npos)) continue;
    if (is_same_weight(tensor, own->second)) continue;
    throw CheckpointError(
        source + " was trained on another backbone of the same shapes, or not the adapters alone: " + "the " +
        name + " that it holds is not this model's (hint: load the checkpoint that it was " + "trained on)");
  }
}

}  // namespace

bool is_r_adapter_release(const io::PickleValue& root) {
  const auto state_dict = state_dict_in(root);
  if (!state_dict) return false;
  return std::any_of(state_dict->begin(), state_dict->end(), [](const auto& entry) {
    return entry.key().isString() && is_adapters(entry.key().toStringRef());
  });
}

LoadedAdapter read_r_adapter_release(const std::filesystem::path& path, const std::string& source,
                                     const model::Clip& clip) {
  const io::PickleValue root = io::read_torch_archive(path).root;
  Release release = release_in(*state_dict_in(root), source);
  AdapterOptions options;
  options.method = "r_adapter";
  options.lora.encoder = release.encoder();
  LoadedAdapter loaded = {make_adapter(clip, options), AdapterFormat::kRAdapterRelease, {}, kScale};

  const io::StateDict own = by_release_names(loaded.adapter->state_dict(), release.is_averaged);
  const io::StateDict model = model::state_dict(clip);
  const at::NoGradGuard no_grad;
  multiply_factors(own, release.adapter);
  fill_in(source, own, release.adapter, problems_with(release.clip, model));
  require_same_weights(source, release.clip, model);
  return loaded;
}

AdapterDescription describe_r_adapter_release(const std::filesystem::path& path, const std::string& source) {
  const io::PickleValue root = io::read_torch_archive(path).root;
  const Release release = release_in(*state_dict_in(root), source);
  nlohmann::ordered_json settings;
  const io::PickleDict whole = root.toGenericDict();
  if (const auto name = whole.find("name"); name != whole.end() && name->value().isString())
    settings["name"] = name->value().toStringRef();
  if (const auto epoch = whole.find("epoch"); epoch != whole.end() && epoch->value().isInt())
    settings["epoch"] = epoch->value().toInt();
  settings["encoder"] = to_string(release.encoder());
  settings["averaged"] = release.is_averaged;
  AdapterDescription description =
      description_of(AdapterFormat::kRAdapterRelease, settings, release.adapter, nullptr);
  description.method = "r_adapter";
  return description;
}

}  // namespace clip_lora::lora
