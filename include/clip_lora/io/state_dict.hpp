#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

namespace clip_lora::io {

/// Tensors by their checkpoint names, in the names' order.
using StateDict = std::map<std::string, at::Tensor>;

}  // namespace clip_lora::io
