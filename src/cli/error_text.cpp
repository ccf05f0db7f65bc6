#include "error_text.hpp"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <new>

namespace clip_lora::cli {
namespace {

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

}  // namespace

std::string error_text(const std::exception& error) {
  if (const auto* full = dynamic_cast<const c10::OutOfMemoryError*>(&error)) {
    return "the GPU's memory is full: " + wanted_and_free(full->what_without_backtrace()) +
           " (hint: lower --batch_size, and --image_memory in training; --precision fp16 or bf16 takes half "
           "of fp32; "
           "nvidia-smi says who else uses the GPU)";
  }
  const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
  const bool is_cpu_full =
      of_torch != nullptr &&
      std::string(of_torch->what_without_backtrace()).find("can't allocate memory") != std::string::npos;
  if (is_cpu_full || dynamic_cast<const std::bad_alloc*>(&error) != nullptr) {
    return "the memory is full (hint: lower --batch_size and --workers, and --image_memory in training)";
  }
  if (of_torch == nullptr) return error.what();
  std::string message = of_torch->what_without_backtrace();
  message.resize(std::min(message.find('\n'), message.size()));  // what follows is for LibTorch's developers
  if (!message.starts_with("CUDA error")) return message;
  return message +
         " (hint: the GPU cannot be used any more by this process; start it again, and a training with "
         "--resume; "
         "dmesg and nvidia-smi may say what happened)";
}

void end_with_error() noexcept {
  try {
    if (const std::exception_ptr error = std::current_exception()) std::rethrow_exception(error);
  } catch (const std::exception& error) {
    std::cerr << "clip_lora: " << error_text(error) << std::endl;
    std::_Exit(1);
  } catch (...) {  // of no known kind: as without this function
  }
  std::abort();
}

}  // namespace clip_lora::cli
