#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <span>

#include "clip_lora/data/loader.hpp"

namespace clip_lora::data {
namespace {

/// [B, R, R, 3] uint8 -> [B, 3, R, R] float32, both on the CPU.
at::Tensor normalise_on_cpu(const at::Tensor& pixels, const image::Preprocessing& preprocessing) {
  const at::Tensor bytes = pixels.contiguous();
  at::Tensor values = at::empty({bytes.size(0), 3, bytes.size(1), bytes.size(2)}, at::kFloat);
  const std::int64_t size = bytes.numel() / std::max<std::int64_t>(bytes.size(0), 1);  // of a picture
  at::parallel_for(0, bytes.size(0), /*grain_size=*/1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      image::normalise_chw(
          {bytes.const_data_ptr<std::uint8_t>() + row * size, static_cast<std::size_t>(size)}, preprocessing,
          values.data_ptr<float>() + row * size);
    }
  });
  return values;
}

}  // namespace

at::Tensor normalise(const at::Tensor& pixels, const image::Preprocessing& preprocessing, at::Device device,
                     at::ScalarType dtype) {
  return normalise_on_cpu(pixels.cpu(), preprocessing).to(device, dtype);
}

}  // namespace clip_lora::data
