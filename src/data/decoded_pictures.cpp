#include "decoded_pictures.hpp"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/parallel.hpp"
#include "clip_lora/ops/view_request.hpp"

namespace clip_lora::data {
namespace {

constexpr std::uint64_t kPictureAlignment = 16;

/// A thread decodes about so much before it is uploaded: large enough for the copy's fixed cost, small enough
/// that the threads finish together. LibTorch rounds page-locked memory up to a power of two.
constexpr std::uint64_t kPieceBytes = std::uint64_t{8} << 20;

std::uint64_t aligned(std::uint64_t bytes) {
  return (bytes + kPictureAlignment - 1) / kPictureAlignment * kPictureAlignment;
}

void require_size_of_header(const std::string& path, std::size_t bytes, const image::ImageSize& header) {
  if (bytes == decoded_bytes(header)) return;
  throw DataError("image '" + path + "': decoded to " + std::to_string(bytes) + " bytes, its header said " +
                  std::to_string(header.height) + " x " + std::to_string(header.width) +
                  " pixels (hint: was it being written?)");
}

}  // namespace

/// Pictures that follow each other.
struct DecodedPictures::Piece {
  std::size_t first = 0;
  std::size_t end = 0;
  std::int64_t begin = 0;  ///< in the store
  std::int64_t bytes = 0;
};

DecodedPictures::DecodedPictures(const std::vector<Item>& items, int workers) : files_(items) {
  for (const image::ImageSize& size : read_sizes(files_, workers)) {
    pictures_.push_back({static_cast<std::int64_t>(bytes_), size});
    bytes_ += aligned(decoded_bytes(size));
    largest_side_ = std::max({largest_side_, size.height, size.width});
  }
}

std::vector<DecodedPictures::Piece> DecodedPictures::pieces() const {
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i < pictures_.size(); ++i) {
    const auto bytes = static_cast<std::int64_t>(aligned(decoded_bytes(pictures_[i].size)));
    const bool is_full =
        pieces.empty() || pieces.back().bytes + bytes > static_cast<std::int64_t>(kPieceBytes);
    if (is_full) pieces.push_back({i, i, pictures_[i].begin, 0});
    pieces.back().end = i + 1;
    pieces.back().bytes += bytes;
  }
  return pieces;
}

void DecodedPictures::decode(at::Device device, image::Orientation orientation, int workers) {
  store_ = at::empty({static_cast<std::int64_t>(bytes())}, at::TensorOptions(device).dtype(at::kByte));
  const std::vector<Piece> all = pieces();
  parallel_for(all.size(), workers, [&](std::size_t i) {
    stop_reading_if_interrupted();
    decode_piece(all[i], orientation);
  });
  if (store_.is_cpu()) return;
  const at::Device where = store_.device();
  c10::impl::VirtualGuardImpl(where.type()).synchronizeDevice(where.index());
}

void DecodedPictures::decode_piece(const Piece& piece, image::Orientation orientation) {
  thread_local std::vector<std::uint8_t> memory;  // all of a thread's pictures are decoded there
  const at::Tensor place = store_.narrow(0, piece.begin, piece.bytes);
  const at::Tensor bytes =
      store_.is_cpu() ? place
                      : at::empty({piece.bytes}, at::TensorOptions().dtype(at::kByte).pinned_memory(true));
  auto* out = bytes.data_ptr<std::uint8_t>();
  for (std::size_t i = piece.first; i < piece.end; ++i) {
    Picture& picture = pictures_[i];
    image::Image image = image::decode_image(files_.paths[i], orientation, std::move(memory));
    require_size_of_header(files_.paths[i], image.rgb.size(), picture.size);
    std::memcpy(out + (picture.begin - piece.begin), image.rgb.data(), image.rgb.size());
    picture.size = {image.height, image.width};
    memory = std::move(image.rgb);
  }
  // The page-locked memory is used again once the copy is over, which LibTorch sees to.
  if (!store_.is_cpu()) place.copy_(bytes, /*non_blocking=*/true);
}

}  // namespace clip_lora::data
