#include "clip_lora/ops/patches.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "clip_lora/image/resample.hpp"
#ifdef CLIP_LORA_WITH_CUDA
#include "fallback.hpp"
#include "on_cuda.hpp"
#include "patches_kernels.hpp"
#include "views_kernels.hpp"
#endif

namespace clip_lora::ops {
namespace {

/// What the bytes are divided by. The usual 1/255 as a factor would round otherwise.
float divisor_of(const PixelNormalisation& normalisation) {
  return static_cast<float>(1.0 / normalisation.rescale_factor);
}

at::Tensor per_channel(const std::array<float, 3>& values, at::Device device) {
  return at::tensor(at::ArrayRef<float>(values)).to(device);
}

at::Tensor patch_rows_definition(const at::Tensor& pixels, std::int64_t patch,
                                 const PixelNormalisation& normalisation, at::ScalarType dtype,
                                 bool class_row) {
  const at::Device device = pixels.device();
  const at::Tensor values = pixels.to(at::kFloat);  // [B, R, R, 3]
  // A tensor: ATen multiplies by the inverse of a number on CUDA.
  values.div_(at::full({1}, divisor_of(normalisation), values.options()))
      .sub_(per_channel(normalisation.mean, device))
      .div_(per_channel(normalisation.standard_deviation, device));
  const std::int64_t images = pixels.size(0);
  const std::int64_t side = pixels.size(1) / patch;
  const at::Tensor rows = values.view({images, side, patch, side, patch, 3})
                              .permute({0, 1, 3, 5, 2, 4})  // [B, R / patch, R / patch, 3, patch, patch]
                              .to(dtype)
                              .reshape({images, side * side, 3 * patch * patch});
  return (class_row ? at::constant_pad_nd(rows, {0, 0, 1, 0}) : rows).flatten(0, 1);
}

ViewRequest request_at(const at::Tensor& requests, std::int64_t index) {
  ViewRequest request;
  std::memcpy(&request, requests.const_data_ptr<std::uint8_t>() + index * requests.size(1), sizeof request);
  return request;
}

void check_request(const ViewRequest& request, std::int64_t store_bytes, std::int64_t largest_side) {
  const auto inside = [](std::int64_t first, std::int64_t count, std::int64_t size) {
    return first >= 0 && count >= 1 && first + count <= size;
  };
  TORCH_CHECK(
      inside(request.begin, std::int64_t{request.height} * request.width * 3, store_bytes - kStorePadding),
      "a view's picture of ", request.height, " x ", request.width, " at byte ", request.begin,
      " is outside the store of ", store_bytes, " bytes, of which the last ", kStorePadding,
      " hold no picture");
  TORCH_CHECK(inside(request.top, request.box_height, request.height) &&
                  inside(request.left, request.box_width, request.width),
              "a view's box of ", request.box_height, " x ", request.box_width, " at ", request.top, ", ",
              request.left, " is outside its picture of ", request.height, " x ", request.width);
  TORCH_CHECK(std::max(request.box_height, request.box_width) <= largest_side, "a view's box of ",
              request.box_height, " x ", request.box_width, " is larger than largest_side, ", largest_side);
}

/// The box's pixels out of the store.
image::Image cut_out(const at::Tensor& store, const ViewRequest& request) {
  const at::Tensor picture =
      store.narrow(0, request.begin, std::int64_t{request.height} * request.width * 3).cpu();
  const auto* bytes = picture.const_data_ptr<std::uint8_t>();
  const std::size_t row_bytes = static_cast<std::size_t>(request.box_width) * 3;
  image::Image box{request.box_height, request.box_width, {}};
  box.rgb.resize(row_bytes * static_cast<std::size_t>(request.box_height));
  for (int row = 0; row < request.box_height; ++row) {
    const std::int64_t first = (std::int64_t{request.top + row} * request.width + request.left) * 3;
    std::memcpy(box.rgb.data() + static_cast<std::size_t>(row) * row_bytes, bytes + first, row_bytes);
  }
  return box;
}

image::Image view_of(const at::Tensor& store, const ViewRequest& request, int size_px) {
  const image::Image seen =
      image::resize(cut_out(store, request), {0, 0, request.box_height, request.box_width}, size_px, size_px,
                    image::Interpolation::kBicubic);
  return request.flip != 0 ? image::flip_horizontally(seen) : seen;
}

/// By image/ on the CPU, wherever the store is.
at::Tensor resized_views_definition(const at::Tensor& store, const at::Tensor& requests, std::int64_t size_px,
                                    std::int64_t largest_side) {
  const at::Tensor wanted = requests.cpu().contiguous();
  const at::Tensor views = at::empty({wanted.size(0), size_px, size_px, 3}, at::kByte);
  const std::int64_t view_bytes = size_px * size_px * 3;
  auto* out = views.data_ptr<std::uint8_t>();
  at::parallel_for(0, wanted.size(0), /*grain_size=*/1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const ViewRequest request = request_at(wanted, i);
      check_request(request, store.numel(), largest_side);
      const image::Image view = view_of(store, request, static_cast<int>(size_px));
      std::memcpy(out + i * view_bytes, view.rgb.data(), view.rgb.size());
    }
  });
  return views.to(store.device());
}

}  // namespace

#ifdef CLIP_LORA_WITH_CUDA
namespace on_cuda {
namespace {

at::Tensor patch_rows(const at::Tensor& pixels, std::int64_t patch, const PixelNormalisation& normalisation,
                      at::ScalarType dtype, bool class_row) {
  const std::int64_t side = pixels.size(1) / patch, rows_per_image = side * side + (class_row ? 1 : 0);
  at::Tensor rows =
      at::empty({pixels.size(0) * rows_per_image, 3 * patch * patch}, pixels.options().dtype(dtype));
  PatchRowsArguments arguments;
  arguments.pixels = pixels.const_data_ptr<std::uint8_t>();
  arguments.rows = rows.mutable_data_ptr();
  arguments.images = pixels.size(0);
  arguments.size_px = static_cast<int>(pixels.size(1));
  arguments.patch = static_cast<int>(patch);
  arguments.class_row = class_row;
  arguments.divisor = divisor_of(normalisation);
  std::ranges::copy(normalisation.mean, arguments.mean);
  std::ranges::copy(normalisation.standard_deviation, arguments.standard_deviation);
  launch_patch_rows(arguments, element_of(rows), current_stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return rows;
}

/// Why the kernels cannot make these views; empty if they can.
std::string obstacle(const at::Tensor& store, const at::Tensor& requests) {
  constexpr std::int64_t kMostRequests = 65'535;  // of a grid's third axis
  if (requests.size(0) > kMostRequests) return std::to_string(requests.size(0)) + " views at once";
  const auto is_aligned = [](const at::Tensor& bytes, std::uintptr_t alignment) {
    return reinterpret_cast<std::uintptr_t>(bytes.const_data_ptr()) % alignment == 0;
  };
  if (!is_aligned(store, sizeof(std::uint32_t))) return "the store is not aligned";
  if (!is_aligned(requests, alignof(ViewRequest))) return "the requests are not aligned";
  return "";
}

at::Tensor resized_views(const at::Tensor& store, const at::Tensor& requests, std::int64_t size_px,
                         std::int64_t largest_side) {
  at::Tensor views = at::empty({requests.size(0), size_px, size_px, 3}, store.options());
  ViewsArguments arguments;
  arguments.store = store.const_data_ptr<std::uint8_t>();
  arguments.requests = static_cast<const ViewRequest*>(requests.const_data_ptr());
  arguments.views = views.data_ptr<std::uint8_t>();
  arguments.count = static_cast<int>(requests.size(0));
  arguments.size_px = static_cast<int>(size_px);
  arguments.largest_side = static_cast<int>(largest_side);
  const std::size_t bytes = views_scratch_bytes(arguments.count, arguments.size_px, arguments.largest_side);
  const at::Tensor scratch = at::empty({static_cast<std::int64_t>(bytes)}, store.options());
  arguments.scratch = scratch.mutable_data_ptr();
  launch_resized_views(arguments, current_stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return views;
}

}  // namespace
}  // namespace on_cuda
#endif

at::Tensor patch_rows(const at::Tensor& pixels, std::int64_t patch, const PixelNormalisation& normalisation,
                      at::ScalarType dtype, bool class_row) {
  TORCH_CHECK(pixels.dim() == 4 && pixels.scalar_type() == at::kByte && pixels.size(3) == 3 &&
                  pixels.size(1) == pixels.size(2),
              "pixels should be [B, R, R, 3] uint8, got ", pixels.sizes(), " ", pixels.scalar_type());
  TORCH_CHECK(patch >= 1 && pixels.size(1) % patch == 0, "pictures of ", pixels.size(1),
              " pixels do not divide into patches of ", patch);
#ifdef CLIP_LORA_WITH_CUDA
  if (pixels.is_cuda() && pixels.numel() > 0) {
    return on_cuda::patch_rows(pixels.contiguous(), patch, normalisation, dtype, class_row);
  }
#endif
  return patch_rows_definition(pixels, patch, normalisation, dtype, class_row);
}

at::Tensor resized_views(const at::Tensor& store, const at::Tensor& requests, std::int64_t size_px,
                         std::int64_t largest_side) {
  TORCH_CHECK(store.dim() == 1 && store.scalar_type() == at::kByte && store.is_contiguous(),
              "a store should be contiguous [n] uint8, got ", store.sizes(), " ", store.scalar_type());
  TORCH_CHECK(requests.dim() == 2 && requests.scalar_type() == at::kByte && requests.is_contiguous() &&
                  requests.size(1) == sizeof(ViewRequest) && requests.device() == store.device(),
              "requests should be [B, ", sizeof(ViewRequest), "] uint8 on ", store.device(), ", got ",
              requests.sizes(), " ", requests.scalar_type(), " on ", requests.device());
  TORCH_CHECK(size_px >= 1 && largest_side >= 1, "size_px and largest_side should be positive, got ", size_px,
              " and ", largest_side);
#ifdef CLIP_LORA_WITH_CUDA
  if (store.is_cuda() && requests.size(0) > 0) {
    const std::string obstacle = on_cuda::obstacle(store, requests);
    if (obstacle.empty()) return on_cuda::resized_views(store, requests, size_px, largest_side);
    report_fallback("resized_views: " + obstacle);
  }
#endif
  return resized_views_definition(store, requests, size_px, largest_side);
}

}  // namespace clip_lora::ops
