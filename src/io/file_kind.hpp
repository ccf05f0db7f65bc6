#pragma once

#include <string>

#include "clip_lora/io/mapped_file.hpp"

namespace clip_lora::io {

/// What a file is by its first bytes.
enum class FileKind { kZip, kSafetensors, kJson, kOther };

FileKind kind_of(const MappedFile& file);

/// "a web page (hint: …)": what a file that is none of these looks like, with what to do about it.
std::string looks_like(const MappedFile& file);

}  // namespace clip_lora::io
