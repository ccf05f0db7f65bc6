#include "error_text.hpp"

#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <iostream>
#include <new>

namespace clip_lora::cli {
namespace {

const std::string kGpuIsFull = "the GPU's memory is full: ";
constexpr const char* kHowToTakeLess =
    " (hint: lower --batch_size, and --image_memory in training; --precision fp16 or bf16 takes half of "
    "fp32; nvidia-smi says who else uses the GPU)";
constexpr const char* kHowToGoOn =
    " (hint: this process cannot use the GPU any more; start it again, a training with --resume; dmesg and "
    "nvidia-smi may say what happened)";

/// "Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.21 GiB is free." of LibTorch's
/// message, whose rest is about its allocator.
std::string wanted_and_free(const std::string& message) {
  const std::size_t begin = message.find("Tried to allocate");
  if (begin == std::string::npos) return message.substr(0, message.find('\n'));
  constexpr std::string_view kLast = " is free.";
  const std::size_t free = message.find(kLast, begin);
  const std::size_t end = free == std::string::npos ? message.find('\n', begin) : free + kLast.size();
  return message.substr(begin, end - begin);
}

/// What LibTorch says first; stack frames and advice for those who build it may follow.
std::string first_line(const std::string& message) {
  const std::size_t begin = std::min(message.find_first_not_of('\n'), message.size());
  return message.substr(begin, message.find('\n', begin) - begin);
}

bool says(const std::string& message, const char* words) { return message.find(words) != std::string::npos; }

/// Whether CUDA answers every later call of the process with this error.
bool leaves_gpu_unusable(const std::string& message) {
  return message.starts_with("CUDA error") &&
         std::ranges::any_of(
             std::array{"unspecified launch failure", "illegal memory access", "illegal instruction",
                        "misaligned address", "device-side assert", "uncorrectable", "hardware stack error"},
             [&](const char* words) { return says(message, words); });
}

}  // namespace

std::string error_text(const std::exception& error) {
  const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
  const std::string message =
      of_torch == nullptr ? error.what() : first_line(of_torch->what_without_backtrace());
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr) {
    return kGpuIsFull + wanted_and_free(of_torch->what_without_backtrace()) + kHowToTakeLess;
  }
  if (message.starts_with("CUDA error: out of memory") || says(message, "CUBLAS_STATUS_ALLOC_FAILED")) {
    return kGpuIsFull + message + kHowToTakeLess;
  }
  const bool is_cpu_full = of_torch != nullptr && says(message, "can't allocate memory");
  if (is_cpu_full || dynamic_cast<const std::bad_alloc*>(&error) != nullptr) {
    return "the memory is full (hint: lower --batch_size and --workers, and --image_memory in training)";
  }
  return message + (leaves_gpu_unusable(message) ? kHowToGoOn : "");
}

void end_with_error() noexcept {
  std::set_terminate(std::abort);  // should telling it fail in turn
  try {
    if (const std::exception_ptr error = std::current_exception()) std::rethrow_exception(error);
  } catch (const std::exception& error) {
    std::cout.flush();
    std::cerr << "clip_lora: " << error_text(error) << std::endl;
    std::_Exit(1);
  } catch (...) {  // of no known kind: as without this function
  }
  std::abort();
}

}  // namespace clip_lora::cli
