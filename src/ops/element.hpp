#pragma once

namespace clip_lora::ops {

/// The floating types that kernels are made for, in headers without LibTorch.
enum class Element { kFloat16, kBFloat16, kFloat32 };

}  // namespace clip_lora::ops
