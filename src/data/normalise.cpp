#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "clip_lora/data/loader.hpp"

namespace clip_lora::data {
namespace {

at::Tensor per_channel(const std::array<float, 3>& values, at::Device device) {
  return at::tensor(at::ArrayRef<float>(values)).view({1, 3, 1, 1}).to(device);
}

/// [B, R, R, 3] uint8 -> [B, 3, R, R] float32, both on the CPU.
at::Tensor normalise_on_cpu(const at::Tensor& pixels, const image::Preprocessing& preprocessing) {
  const at::Tensor bytes = pixels.contiguous();
  const at::Tensor values = at::empty({bytes.size(0), 3, bytes.size(1), bytes.size(2)}, at::kFloat);
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
  if (device.is_cpu()) return normalise_on_cpu(pixels, preprocessing).to(dtype);
  // [B, R, R, 3] -> [B, 3, R, R]
  const auto values = pixels.to(device).permute({0, 3, 1, 2}).to(at::kFloat).contiguous();
  // Divided, as torchvision does it: for the usual 1/255 the product would round otherwise.
  values.div_(1.0 / preprocessing.rescale_factor)
      .sub_(per_channel(preprocessing.mean, device))
      .div_(per_channel(preprocessing.standard_deviation, device));
  return values.to(dtype);
}

}  // namespace clip_lora::data
