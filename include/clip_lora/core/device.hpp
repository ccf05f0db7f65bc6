#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <string>

namespace clip_lora {

/// The device of `--device auto|cpu|cuda[:N]`; auto is the first CUDA device if there is one, else the CPU.
/// Throws ConfigError for anything else, and for a CUDA device that is not there (naming how many are).
at::Device parse_device(const std::string& name);

/// The compute type of `--precision auto|fp32|fp16|bf16` on `device`: auto is fp16 on CUDA and fp32 on the CPU.
/// Throws ConfigError for anything else, and for fp16 on the CPU.
at::ScalarType parse_precision(const std::string& name, at::Device device);

/// Makes a CUDA device the calling thread's, as all operations expect of the device that their tensors are on.
/// Nothing for the CPU.
void make_current(at::Device device);

/// "fp32", "fp16" or "bf16".
std::string precision_name(at::ScalarType type);

/// "cpu (2 threads)" or "cuda:0 NVIDIA H200".
std::string describe_device(at::Device device);

/// Bytes that LibTorch can still allocate on a device: free ones and those that its allocator keeps, within its
/// limit. The largest number on the CPU.
std::int64_t free_memory_bytes(at::Device device);

/// All of a CUDA device's memory, whoever uses it.
std::int64_t total_memory_bytes(at::Device device);

/// Whether what is computed from now on is the same, bit for bit, each time: on CPUs of a kind whatever their number
/// of cores, since it is computed by one thread, and on GPUs of a kind by operations that have a fixed order, those
/// that have none being errors. Otherwise as many threads as there were in the beginning.
void be_deterministic(bool deterministic);

/// The most bytes that tensors took on a CUDA device at any time since reset_peak_memory(); nothing on the CPU.
std::optional<std::int64_t> peak_memory_bytes(at::Device device);
void reset_peak_memory(at::Device device);

/// Seeds LibTorch's generators of all devices.
void seed_everything(std::int64_t seed);

}  // namespace clip_lora
