#include "device_limits.hpp"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>

namespace clip_lora::ops {
namespace {

std::atomic<int> shared_memory_cap = 0;

int attribute(cudaDeviceAttr name, int device) {
  int value = 0;
  cudaDeviceGetAttribute(&value, name, device);
  return value;
}

DeviceLimits limits_of(int device) {
  return {attribute(cudaDevAttrMultiProcessorCount, device),
          attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
          10 * attribute(cudaDevAttrComputeCapabilityMajor, device) +
              attribute(cudaDevAttrComputeCapabilityMinor, device)};
}

}  // namespace

DeviceLimits device_limits() {
  static std::mutex mutex;
  static std::map<int, DeviceLimits> known;
  int device = 0;
  cudaGetDevice(&device);
  const std::lock_guard lock(mutex);
  const auto entry = known.find(device);
  DeviceLimits limits = entry != known.end() ? entry->second : (known[device] = limits_of(device));
  if (const int cap = shared_memory_cap)
    limits.shared_memory_bytes = std::min(limits.shared_memory_bytes, cap);
  return limits;
}

void cap_shared_memory(int bytes) { shared_memory_cap = bytes; }

}  // namespace clip_lora::ops
