#include "stored_adapter.hpp"

#include <ATen/ATen.h>
#include <c10/util/StringUtil.h>

#include <cstdint>
#include <map>
#include <utility>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/finite.hpp"

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

/// `shapes`: of the tensors that are expected, by name.
void check(const std::string& source, const std::map<std::string, std::vector<std::int64_t>>& shapes,
           const io::StateDict& tensors, std::vector<std::string> problems) {
  for (const auto& [name, shape] : shapes) {
    if (std::string problem = problem_with(name, shape, tensors); !problem.empty())
      problems.push_back(problem);
  }
  for (const auto& [name, tensor] : tensors) {
    if (!shapes.contains(name)) problems.push_back(name + " is unexpected");
  }
  if (problems.empty()) return io::require_finite(tensors, source);
  throw CheckpointError(source + " does not fit this model: " + join_capped(problems) +
                        " (hint: was it trained on another backbone?)");
}

/// A parameter of its own: float32 on the model's device, with a gradient.
at::Tensor parameter(const at::Tensor& stored, const model::Clip& clip) {
  at::Tensor copy = at::empty(stored.sizes(), at::TensorOptions().dtype(at::kFloat).device(clip->device()));
  copy.copy_(stored);
  return copy.requires_grad_();
}

}  // namespace

std::shared_ptr<LoraAdapter> assemble(const std::string& source, const model::Clip& clip,
                                      const LoraOptions& options, const std::vector<StoredUpdate>& updates,
                                      const io::StateDict& tensors, std::vector<std::string> problems) {
  std::map<std::string, std::vector<std::int64_t>> shapes;
  for (const auto& update : updates) {
    const std::int64_t width = architecture_of(clip, update.tower).width;
    shapes[update.a_name] = {update.rank, width};
    shapes[update.b_name] = {width, update.rank};
  }
  check(source, shapes, tensors, std::move(problems));
  if (updates.empty()) throw CheckpointError(source + " holds no update");
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
  return std::make_shared<LoraAdapter>(clip, options, std::move(blocks));
}

void fill_in(const std::string& source, const io::StateDict& adapter, const io::StateDict& stored,
             std::vector<std::string> problems) {
  std::map<std::string, std::vector<std::int64_t>> shapes;
  for (const auto& [name, tensor] : adapter) shapes[name] = tensor.sizes().vec();
  check(source, shapes, stored, std::move(problems));
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : adapter) at::Tensor(tensor).copy_(stored.at(name));
}

}  // namespace clip_lora::lora
