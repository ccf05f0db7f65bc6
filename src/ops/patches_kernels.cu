#include <cstdint>

#include "element.cuh"
#include "patches_kernels.hpp"

namespace clip_lora::ops::on_cuda {
namespace {

constexpr int kValues = 256;  // of a byte

template <typename T, int kCount>
struct alignas(sizeof(T) * kCount < 16 ? sizeof(T) * kCount : 16) Neighbours {
  T values[kCount];
};

/// The bytes of kCount pixels that follow each other.
template <int kCount>
struct alignas(kCount % 8 == 0   ? 8
               : kCount % 2 == 0 ? 2
                                 : 1) PixelBytes {
  std::uint8_t rgb[kCount * 3];
};

/// A block makes the rows of one strip of patches from left to right: both its bytes and its rows follow each
/// other. kPatch is the patch's side, or 0 where only the arguments know it; a thread moves kVector
/// neighbours of a patch's line in all three channels.
template <typename T, int kPatch, int kVector>
__global__ void patch_rows_kernel(const __grid_constant__ PatchRowsArguments arguments) {
  __shared__ T normalised[3][kValues];
  for (int i = threadIdx.x; i < 3 * kValues; i += blockDim.x) {
    const int channel = i / kValues;
    const float value = __fdiv_rn(static_cast<float>(i % kValues), arguments.divisor);
    normalised[channel][i % kValues] = from_float<T>(
        __fdiv_rn(__fsub_rn(value, arguments.mean[channel]), arguments.standard_deviation[channel]));
  }
  __syncthreads();

  const int patch = kPatch > 0 ? kPatch : arguments.patch;
  const int size_px = arguments.size_px;
  const int patches = size_px / patch;  // of a strip
  const int plane = patch * patch;
  const int vectors = patch / kVector;  // of a patch's line
  const std::int64_t strip = blockIdx.x;
  const std::uint8_t* pixels = arguments.pixels + strip * patch * size_px * 3;
  const std::int64_t images_before = strip / patches;
  const std::int64_t class_rows = arguments.class_row ? images_before + 1 : 0;
  T* rows = static_cast<T*>(arguments.rows) + (strip * patches + class_rows) * plane * 3;
  if (arguments.class_row && strip % patches == 0) {
    for (int i = threadIdx.x; i < plane * 3; i += blockDim.x) rows[i - plane * 3] = from_float<T>(0.0F);
  }
  for (int i = threadIdx.x; i < patches * patch * vectors; i += blockDim.x) {
    const int column = i % vectors * kVector;  // in the patch
    const int line = i / vectors % patch;
    const int index = i / (vectors * patch);
    const auto bytes =
        *reinterpret_cast<const PixelBytes<kVector>*>(pixels + (line * size_px + index * patch + column) * 3);
    T* to = rows + index * plane * 3 + line * patch + column;
    for (int channel = 0; channel < 3; ++channel, to += plane) {
      Neighbours<T, kVector> values;
#pragma unroll
      for (int k = 0; k < kVector; ++k) values.values[k] = normalised[channel][bytes.rgb[k * 3 + channel]];
      *reinterpret_cast<Neighbours<T, kVector>*>(to) = values;
    }
  }
}

template <typename T, int kPatch, int kVector>
void launch_patch_rows_of(const PatchRowsArguments& arguments, cudaStream_t stream) {
  const std::int64_t strips = arguments.images * (arguments.size_px / arguments.patch);
  const int pieces = arguments.size_px * arguments.patch / kVector;
  const int threads = pieces < 512 ? (pieces + 31) / 32 * 32 : 512;
  patch_rows_kernel<T, kPatch, kVector><<<static_cast<unsigned>(strips), threads, 0, stream>>>(arguments);
}

}  // namespace

void launch_patch_rows(const PatchRowsArguments& arguments, Element element, cudaStream_t stream) {
  with_type(element, [&](auto zero) {
    using T = decltype(zero);
    const bool aligned = reinterpret_cast<std::uintptr_t>(arguments.pixels) % 8 == 0;
    if (aligned && arguments.patch == 16) return launch_patch_rows_of<T, 16, 8>(arguments, stream);
    if (aligned && arguments.patch == 32) return launch_patch_rows_of<T, 32, 8>(arguments, stream);
    if (aligned && arguments.patch == 14) return launch_patch_rows_of<T, 14, 2>(arguments, stream);
    launch_patch_rows_of<T, 0, 1>(arguments, stream);
  });
}

}  // namespace clip_lora::ops::on_cuda
