#pragma once

#include <type_traits>

namespace clip_lora::ops {

/// The quick functions are exact to float16's and bfloat16's rounding, not to float32's.
template <typename T>
__device__ __forceinline__ float sigmoid(float x) {
  if constexpr (std::is_same_v<T, float>) return 1.0F / (1.0F + expf(-x));
  return __fdividef(1.0F, 1.0F + __expf(-x));
}

/// x · sigmoid(1.702 x)
template <typename T>
struct QuickGelu {
  static constexpr float kSlope = 1.702F;
  static __device__ float value(float h) { return h * sigmoid<T>(kSlope * h); }
  static __device__ float derivative(float h) {
    const float s = sigmoid<T>(kSlope * h);
    return s * (1.0F + kSlope * h * (1.0F - s));
  }
};

/// x · Φ(x)
template <typename T>
struct ExactGelu {
  static constexpr bool kFloat32 = std::is_same_v<T, float>;

  /// exp(−x²/2)
  static __device__ __forceinline__ float bell(float x) {
    return kFloat32 ? expf(-0.5F * x * x) : __expf(-0.5F * x * x);
  }

  /// Φ(x). In low precision by Abramowitz & Stegun's 7.1.26: an error below 1.5e-7 in half of erff's time.
  static __device__ __forceinline__ float distribution(float x, float bell_of_x) {
    if constexpr (kFloat32) return 0.5F * (1.0F + erff(x * 0.70710678F));
    const float t = __fdividef(1.0F, fmaf(0.3275911F * 0.70710678F, fabsf(x), 1.0F));
    float sum = fmaf(t, 1.061405429F, -1.453152027F);
    sum = fmaf(t, sum, 1.421413741F);
    sum = fmaf(t, sum, -0.284496736F);
    sum = fmaf(t, sum, 0.254829592F);
    const float tail = 0.5F * t * sum * bell_of_x;
    return x < 0.0F ? tail : 1.0F - tail;
  }

  static __device__ float value(float x) { return x * distribution(x, bell(x)); }
  static __device__ float derivative(float x) {
    const float bell_of_x = bell(x);
    return distribution(x, bell_of_x) + x * 0.39894228F * bell_of_x;  // φ(x) = exp(−x²/2) / √(2π)
  }
};

}  // namespace clip_lora::ops
