#pragma once

#include <cutlass/cutlass.h>
#include <cutlass/gemm/device/gemm_universal_adapter.h>

#include <cute/tensor.hpp>
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/epilogue/fusion/sm90_callbacks_tma_warpspecialized.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/kernel/gemm_universal.hpp>
#include <type_traits>

#include "device_limits.hpp"
#include "element.cuh"
#include "gelu.cuh"
#include "linear_gelu_kernels.hpp"

/// Products on Hopper's tensor cores by CUTLASS, whose epilogue is a tree of functions of registers.
///
/// CUTLASS's D = A B is our result transposed: its rows are features, its columns the rows of x. So the tile
/// that is wider in its columns is wider in x's rows: with 192 of them, ViT-B/16's 6304 rows and 3072
/// features are 792 tiles, six for each of 132 multiprocessors. One warp group multiplies while the other one
/// is in its epilogue.
namespace clip_lora::ops::hopper {

using Tile = cute::Shape<cute::_128, cute::_192, cute::_64>;  // features, rows, inputs
using Cluster = cute::Shape<cute::_2, cute::_1, cute::_1>;    // two tiles of the same rows load these once
using EpilogueTile = cute::Shape<cute::_64, cute::_64>;
using EpilogueSchedule = cutlass::epilogue::TmaWarpSpecialized;

using RowMajor = cutlass::layout::RowMajor;
using ColumnMajor = cutlass::layout::ColumnMajor;

constexpr int kAlignment = 8;  // values in 16 bytes

template <template <typename> typename Function, typename T, typename... Arguments>
using Compute = cutlass::epilogue::fusion::Sm90EVT<
    cutlass::epilogue::fusion::Sm90Compute<Function, T, float, cutlass::FloatRoundStyle::round_to_nearest>,
    Arguments...>;
using Accumulator = cutlass::epilogue::fusion::Sm90AccFetch;

/// T: of all matrices; WeightLayout: of [features, inputs]; Source: T if the tree reads a matrix of the
/// result's shape, or void.
template <typename T, typename WeightLayout, typename Source, typename Tree>
struct Product {
  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Tile, Cluster, EpilogueTile, float, float, Source,
      ColumnMajor, kAlignment, T, ColumnMajor, kAlignment, EpilogueSchedule, Tree>::CollectiveOp;
  using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, T, WeightLayout, kAlignment, T, ColumnMajor,
      kAlignment, float, Tile, Cluster,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(
          sizeof(typename Epilogue::SharedStorage))>,
      cutlass::gemm::KernelTmaWarpSpecializedPingpong>::CollectiveOp;
  using Kernel = cutlass::gemm::kernel::GemmUniversal<cute::Shape<int, int, int, int>, Mainloop, Epilogue,
                                                      cutlass::gemm::PersistentScheduler>;
  using Device = cutlass::gemm::device::GemmUniversalAdapter<Kernel>;
  using Arguments = typename Device::Arguments;
  using ResultStride = typename Kernel::StrideD;
};

/// A matrix's stride in CUTLASS's form, of which one is the constant 1.
template <typename Stride>
Stride stride(std::int64_t apart) {
  if constexpr (cute::is_static_v<cute::tuple_element_t<0, Stride>>) {
    return {cute::_1{}, apart, 0};
  } else {
    return {apart, cute::_1{}, 0};
  }
}

template <typename Product>
typename Product::Arguments arguments_of(const GeluProduct& product) {
  using Kernel = typename Product::Kernel;
  using T = typename Kernel::ElementA;
  typename Product::Arguments arguments;
  arguments.problem_shape = {product.features, product.row_count, product.inputs, 1};
  arguments.mainloop.ptr_A = static_cast<const T*>(product.weight);
  arguments.mainloop.dA = stride<typename Kernel::StrideA>(product.weight_stride);
  arguments.mainloop.ptr_B = static_cast<const T*>(product.rows);
  arguments.mainloop.dB = stride<typename Kernel::StrideB>(product.row_stride);
  arguments.epilogue.ptr_D = static_cast<T*>(product.out);
  arguments.epilogue.dD = stride<typename Kernel::StrideD>(product.features);
  cudaGetDevice(&arguments.hw_info.device_id);
  arguments.hw_info.sm_count = device_limits().multiprocessors;
  // Neighbours in time are tiles of the same rows: the whole weight stays in L2, and each row is read once.
  arguments.scheduler.raster_order = decltype(arguments.scheduler.raster_order)::AlongM;
  return arguments;
}

template <typename Product>
bool launch(const typename Product::Arguments& arguments, cudaStream_t stream) {
  constexpr auto kSuccess = cutlass::Status::kSuccess;
  typename Product::Device device;
  return Product::Device::can_implement(arguments) == kSuccess &&
         Product::Device::get_workspace_size(arguments) == 0 &&
         device.initialize(arguments, /*workspace=*/nullptr, stream) == kSuccess &&
         device.run(stream) == kSuccess;
}

/// Calls run(T{}, Function{}) with CUTLASS's type of `element` and the kind of GELU, a function of a
/// register.
template <typename Run>
bool with_type_and_gelu(Element element, bool quick, const Run& run) {
  const auto with_gelu = [&](auto type) {
    return quick ? run(type, QuickGelu<__half>{}) : run(type, ExactGelu<__half>{});  // the same in bfloat16
  };
  return element == Element::kFloat16 ? with_gelu(cutlass::half_t{}) : with_gelu(cutlass::bfloat16_t{});
}

}  // namespace clip_lora::ops::hopper
