#include "stored_adapter.hpp"

#include <ATen/ATen.h>
#include <c10/util/StringUtil.h>

#include <set>
#include <utility>

#include "clip_lora/core/errors.hpp"

namespace clip_lora::lora {
namespace {

/// What is wrong with a stored tensor, or "".
std::string problem_with(const std::string& name, at::IntArrayRef shape, const io::StateDict& tensors) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) return name + " is missing";
  if (found->second.sizes() != shape) {
    return name + " has shape " + c10::str(found->second.sizes()) + ", expected " + c10::str(shape);
  }
  return found->second.is_floating_point() ? "" : name + " is of no floating type";
}

void check(const std::string& source, const model::Clip& clip, const std::vector<StoredUpdate>& updates,
           const io::StateDict& tensors, std::vector<std::string> problems) {
  std::set<std::string> expected;
  const auto require = [&](const std::string& name, at::IntArrayRef shape) {
    expected.insert(name);
    if (std::string problem = problem_with(name, shape, tensors); !problem.empty())
      problems.push_back(problem);
  };
  for (const auto& update : updates) {
    const std::int64_t width = architecture_of(clip, update.tower).width;
    require(update.a_name, {update.rank, width});
    require(update.b_name, {width, update.rank});
  }
  for (const auto& [name, tensor] : tensors) {
    if (!expected.contains(name)) problems.push_back(name + " is unexpected");
  }
  if (!problems.empty()) {
    throw CheckpointError(source + " does not fit this model: " + join_capped(problems) +
                          " (hint: was it trained on another backbone?)");
  }
  if (updates.empty()) throw CheckpointError(source + " holds no update");
}

/// A parameter of its own: float32 on the model's device, with a gradient.
at::Tensor parameter(const at::Tensor& stored, const model::Clip& clip) {
  at::Tensor copy = at::empty(stored.sizes(), at::TensorOptions().dtype(at::kFloat).device(clip->device()));
  copy.copy_(stored);
  return copy.requires_grad_();
}

}  // namespace

const model::TowerArchitecture& architecture_of(const model::Clip& clip, Tower tower) {
  const model::ClipArchitecture& architecture = clip->architecture();
  return tower == Tower::kText ? architecture.text : architecture.vision;
}

Adapter assemble(const std::string& source, const model::Clip& clip, const LoraOptions& options,
                 const std::vector<StoredUpdate>& updates, const io::StateDict& tensors,
                 std::vector<std::string> problems) {
  check(source, clip, updates, tensors, std::move(problems));
  const at::NoGradGuard no_grad;
  std::vector<AdaptedBlock> blocks;
  for (const auto& update : updates) {
    if (blocks.empty() || blocks.back().tower != update.tower || blocks.back().index != update.index) {
      blocks.push_back({update.tower, update.index, {}});
    }
    blocks.back().lora.*update.projection.update =
        ops::LowRank{parameter(tensors.at(update.a_name), clip), parameter(tensors.at(update.b_name), clip),
                     update.scaling, options.dropout};
  }
  return Adapter(clip, options, std::move(blocks));
}

}  // namespace clip_lora::lora
