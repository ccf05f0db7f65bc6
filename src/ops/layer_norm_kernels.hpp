#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "dropout_bits.hpp"
#include "element.hpp"

namespace clip_lora::ops {

/// The widest row and the highest rank that any of the kernels takes. How wide a row of a rank may be depends
/// on the device's shared memory too: ask append_forward_shared_bytes and append_backward_fits.
constexpr int kWidestRow = 2048;
constexpr int kHighestRank = 8;

/// Up to three low-rank updates of the same rows.
struct DownUpdates {
  const float* a = nullptr;  ///< [n, D]
  int ranks[3] = {};
  int columns = 0;  ///< n rounded up to a multiple of 8; 0: no update
  DropoutDraw draw;
};

/// x: [T, D]; rows: [T, D + columns]; without weight and bias, rows are not normalised and have no
/// statistics.
struct AppendForward {
  const void* x = nullptr;
  const void* weight = nullptr;
  const void* bias = nullptr;
  float epsilon = 0;
  void* rows = nullptr;
  float* mean = nullptr;
  float* inverse_deviation = nullptr;
  std::int64_t row_count = 0;
  int width = 0;
  DownUpdates down;
};

/// d_rows: [T, D + columns]; dx, residual: [T, D] or null; d_a: [parts][n, D], null if there are no columns.
/// Each part is the sum over the rows of one block.
struct AppendBackward {
  const void* d_rows = nullptr;
  const void* x = nullptr;
  const void* weight = nullptr;
  const void* bias = nullptr;
  const float* mean = nullptr;
  const float* inverse_deviation = nullptr;
  const void* residual = nullptr;
  void* dx = nullptr;
  float* d_a = nullptr;
  std::int64_t part_stride = 0;
  int parts = 0;
  std::int64_t row_count = 0;
  int width = 0;
  DownUpdates down;
};

/// dy: [T, updates · D], rows `dy_stride` apart; a: [T, …], rows `a_stride` apart; d_b: [parts][[D, R_0], [D,
/// R_1], …].
struct UpGradient {
  const void* dy = nullptr;
  std::int64_t dy_stride = 0;
  const void* a = nullptr;
  std::int64_t a_stride = 0;
  float* d_b = nullptr;
  std::int64_t part_stride = 0;
  int parts = 0;
  std::int64_t row_count = 0;
  int width = 0;
  int updates = 0;  ///< parts of dy that are `width` wide, 1 to 3
  int ranks[3] = {};
  float scalings[3] = {};
};

/// Bytes of shared memory that a block needs, or −1 if the widths and ranks are beyond the kernel. Rows that
/// are not normalised have one update, the first.
int append_forward_shared_bytes(int width, bool normalise, const DownUpdates& down);

/// Whether the backward takes such rows on the current device, in as much shared memory as it may use.
bool append_backward_fits(int width, bool normalise, const DownUpdates& down, Element element);

void launch_append_forward(const AppendForward& arguments, Element element, int multiprocessors,
                           cudaStream_t stream);
void launch_append_backward(const AppendBackward& arguments, Element element, int multiprocessors,
                            cudaStream_t stream);
void launch_up_gradient(const UpGradient& arguments, Element element, cudaStream_t stream);

}  // namespace clip_lora::ops
