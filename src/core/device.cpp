#include "clip_lora/core/device.hpp"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/cuda.h>
#ifdef CLIP_LORA_WITH_CUDA
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#endif

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <limits>

#include "clip_lora/core/errors.hpp"

namespace clip_lora {
namespace {

constexpr std::string_view kCudaPrefix = "cuda:";

int cuda_device_count() { return static_cast<int>(torch::cuda::device_count()); }

at::Device cuda_device(const std::string& name) {
  int index = 0;
  if (name != "cuda") {
    const char* begin = name.data() + kCudaPrefix.size();
    const char* end = name.data() + name.size();
    const auto [parsed, error] = std::from_chars(begin, end, index);
    if (error != std::errc{} || parsed != end || index < 0) {
      throw ConfigError("--device '" + name + "': expected auto, cpu, cuda or cuda:N");
    }
  }
  const int count = cuda_device_count();
  if (index >= count) {
    throw ConfigError(
        "--device '" + name + "': " +
        (count == 0 ? "no CUDA device was found (hint: --device cpu, or check the driver with nvidia-smi)"
                    : "this machine has CUDA devices 0 to " + std::to_string(count - 1)));
  }
  return {at::kCUDA, static_cast<c10::DeviceIndex>(index)};
}

}  // namespace

at::Device parse_device(const std::string& name) {
  if (name == "cpu") return at::kCPU;
  if (name == "auto") return cuda_device_count() > 0 ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  if (name == "cuda" || name.starts_with(kCudaPrefix)) return cuda_device(name);
  throw ConfigError("--device '" + name + "': expected auto, cpu, cuda or cuda:N" +
                    did_you_mean(name, {"auto", "cpu", "cuda"}));
}

void make_current(at::Device device) {
  if (device.is_cuda()) c10::impl::VirtualGuardImpl(device.type()).setDevice(device);
}

at::ScalarType parse_precision(const std::string& name, at::Device device) {
  if (name == "auto") return device.is_cuda() ? at::kHalf : at::kFloat;
  if (name == "fp32") return at::kFloat;
  if (name == "bf16") return at::kBFloat16;
  if (name == "fp16") {
    if (device.is_cpu())
      throw ConfigError("--precision fp16 needs a CUDA device (hint: --precision fp32 or bf16)");
    return at::kHalf;
  }
  throw ConfigError("--precision '" + name + "': expected auto, fp32, fp16 or bf16" +
                    did_you_mean(name, {"auto", "fp32", "fp16", "bf16"}));
}

std::string precision_name(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return "fp32";
    case at::kHalf:
      return "fp16";
    case at::kBFloat16:
      return "bf16";
    default:
      TORCH_CHECK(false, "no compute type: ", type);
  }
}

std::string describe_device(at::Device device) {
  if (device.is_cpu()) return "cpu (" + std::to_string(at::get_num_threads()) + " threads)";
#ifdef CLIP_LORA_WITH_CUDA
  return device.str() + " " + at::cuda::getDeviceProperties(device.index())->name;
#else
  return device.str();
#endif
}

std::int64_t free_memory_bytes(at::Device device) {
#ifdef CLIP_LORA_WITH_CUDA
  if (device.is_cuda()) {
    const c10::cuda::CUDAGuard guard(device);
    std::size_t free = 0, total = 0;
    C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
    const std::int64_t allocated = stats.allocated_bytes[0].current,
                       reserved = stats.reserved_bytes[0].current;
    const double fraction = c10::cuda::CUDACachingAllocator::getMemoryFraction(device.index());
    const auto limit = static_cast<std::int64_t>(fraction * static_cast<double>(total));
    return std::min(static_cast<std::int64_t>(free) + reserved - allocated, limit - allocated);
  }
#endif
  TORCH_CHECK(device.is_cpu(), "free_memory_bytes: ", device);
  return std::numeric_limits<std::int64_t>::max();
}

std::int64_t total_memory_bytes(at::Device device) {
  TORCH_CHECK(device.is_cuda(), "total_memory_bytes: ", device);
#ifdef CLIP_LORA_WITH_CUDA
  return static_cast<std::int64_t>(at::cuda::getDeviceProperties(device.index())->totalGlobalMem);
#else
  return 0;
#endif
}

void be_deterministic(bool deterministic) {
  static int usual_threads = 0;  // of who has never asked for it, nothing is touched
  if (!deterministic && usual_threads == 0) return;
  if (usual_threads == 0) usual_threads = at::get_num_threads();
  at::set_num_threads(deterministic ? 1 : usual_threads);
  at::Context& context = at::globalContext();
  if (deterministic)
    ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);  // else cuBLAS is refused
  context.setDeterministicAlgorithms(deterministic, /*warn_only=*/false);
  context.setDeterministicFillUninitializedMemory(false);
}

std::optional<std::int64_t> peak_memory_bytes([[maybe_unused]] at::Device device) {
#ifdef CLIP_LORA_WITH_CUDA
  if (device.is_cuda()) {
    return c10::cuda::CUDACachingAllocator::getDeviceStats(device.index()).allocated_bytes[0].peak;
  }
#endif
  return std::nullopt;
}

void reset_peak_memory([[maybe_unused]] at::Device device) {
#ifdef CLIP_LORA_WITH_CUDA
  if (device.is_cuda()) c10::cuda::CUDACachingAllocator::resetPeakStats(device.index());
#endif
}

void seed_everything(std::int64_t seed) { at::manual_seed(static_cast<std::uint64_t>(seed)); }

}  // namespace clip_lora
