#pragma once

namespace clip_lora::ops {

/// What kernels' tiles are chosen by, of the current CUDA device.
struct DeviceLimits {
  int multiprocessors = 0;
  int shared_memory_bytes =
      0;  ///< that a block may ask for: 227 KiB on sm_90, 99 on sm_86/89/120, 64 on sm_75
  int compute_capability = 0;  ///< 90 for sm_90
};

DeviceLimits device_limits();

/// From now on device_limits() says no more than `bytes` of shared memory; 0 lifts that. For tests of tiles that
/// smaller cards get.
void cap_shared_memory(int bytes);

}  // namespace clip_lora::ops
