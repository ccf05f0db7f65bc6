#pragma once

#include <string>
#include <string_view>
#include <vector>

// Files whose outer form a fuzzer would hardly keep right while it changes what is in them.
namespace clip_lora::fuzz {

/// An input that begins with a brace is the header of a safetensors file, up to its last brace, and then
/// data: the length in front of it is put there. Anything else is a file as it is.
std::string safetensors_file(std::string_view input);

/// An input that begins as a pickle does is put into a PyTorch archive, as TorchScript's if it ends in 's',
/// with the storages "0" to "3" of 16, 24, 1024 and 1536 bytes. Anything else is a file as it is.
std::string torch_archive(std::string_view input);

/// An archive of a pickle and those storages. Its entries have no checksums, as some zip writers leave them
/// out, so that a changed byte is looked at.
std::string unchecked_archive(const std::string& pickle, bool is_torchscript = false);

}  // namespace clip_lora::fuzz
