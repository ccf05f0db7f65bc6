#include "npy.hpp"

#include <ATen/ATen.h>

#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <string>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/atomic_file.hpp"

namespace clip_lora::cli {
namespace {

static_assert(std::endian::native == std::endian::little, "the header says little-endian");

/// Magic bytes, version, length and a Python literal, in all a multiple of 64 bytes that ends in a line
/// break.
std::string header(at::IntArrayRef shape) {
  constexpr std::size_t kAlignment = 64;
  std::string begin = "\x93NUMPY";
  begin += {'\x01', '\x00'};
  std::string literal = "{'descr': '<f4', 'fortran_order': False, 'shape': (";
  for (std::size_t axis = 0; axis < shape.size(); ++axis)
    literal += (axis == 0 ? "" : ", ") + std::to_string(shape[axis]);
  literal += shape.size() == 1 ? ",), }" : "), }";
  const std::size_t used = begin.size() + 2 + literal.size() + 1;
  literal.append((kAlignment - used % kAlignment) % kAlignment, ' ');
  literal += '\n';
  begin += static_cast<char>(literal.size() & 0xFFU);
  begin += static_cast<char>(literal.size() >> 8U);
  return begin + literal;
}

}  // namespace

void write_npy(const std::filesystem::path& path, const at::Tensor& tensor) {
  TORCH_CHECK(tensor.is_cpu() && tensor.scalar_type() == at::kFloat, "expected float32 on the CPU");
  const at::Tensor whole = tensor.contiguous();
  io::write_atomically(path, [&](const std::filesystem::path& temporary) {
    errno = 0;
    std::ofstream file(temporary, std::ios::binary);
    file << header(whole.sizes());
    file.write(static_cast<const char*>(whole.const_data_ptr()),
               static_cast<std::streamsize>(whole.nbytes()));
    file.close();
    if (!file) {
      throw ConfigError("cannot write '" + path.string() +
                        "': " + (errno != 0 ? std::strerror(errno) : "unknown reason"));
    }
  });
}

}  // namespace clip_lora::cli
