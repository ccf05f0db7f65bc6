#pragma once

namespace clip_lora {

/// The version of this library and program; the build reads it here.
inline constexpr const char* kVersion = "0.1.0";

}  // namespace clip_lora
