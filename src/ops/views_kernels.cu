#include <cstdint>

#include "views_kernels.hpp"

namespace clip_lora::ops::on_cuda {
namespace {

// Resized views. Sums of bytes times weights of 24 bits are computed by instructions that add up four
// products of 8-bit numbers: a weight is split into high · 2^16 + middle · 2^8 + low, of which only high has
// a sign. The sums are the same integers as without.

constexpr int kFractionBits = 22;
constexpr int kHalf = 1 << (kFractionBits - 1);
constexpr double kSupport = 2.0;  // of the bicubic kernel

/// Four weights that follow each other, a byte each.
struct alignas(16) FourWeights {
  std::uint32_t high;
  std::uint32_t middle;
  std::uint32_t low;
  std::uint32_t unused;
};

/// The source pixels that one output pixel is a weighted sum of, in groups of four; weights of those outside
/// the picture are zero.
struct Taps {
  int first;   ///< source pixel of the first group
  int groups;  ///< how many follow each other
};

enum Axis { kHorizontal, kVertical, kAxes };

/// Where the filters of B requests lie: Taps[B][axis][R], then FourWeights[B][axis][group][R].
struct FilterTable {
  Taps* taps;
  FourWeights* weights;
  int size_px;
  int groups;  ///< there is room for, of each output pixel

  __host__ __device__ Taps* taps_of(int request, Axis axis) const {
    return taps + (static_cast<std::int64_t>(request) * kAxes + axis) * size_px;
  }
  __host__ __device__ FourWeights* weights_of(int request, Axis axis) const {
    return weights + (static_cast<std::int64_t>(request) * kAxes + axis) * groups * size_px;
  }
};

__host__ __device__ constexpr std::size_t taps_bytes(int count, int size_px) {
  return (sizeof(Taps) * kAxes * count * size_px + 15) / 16 * 16;
}

/// Groups of a filter that shrinks `side` pixels to size_px: 2 · support · scale + 1 pixels, and three before
/// them.
int groups_at_most(int side, int size_px) {
  const double scale = side > size_px ? static_cast<double>(side) / size_px : 1.0;
  return (static_cast<int>(2.0 * kSupport * scale) + 1 + 3 + 3) / 4;
}

/// Keys' cubic convolution kernel with a = −0.5. Every operation is rounded by itself, as on the CPU.
__device__ __forceinline__ double bicubic_kernel(double x) {
  x = fabs(x);
  const double near = __dadd_rn(__dmul_rn(1.5, x), -2.5);
  const double far = __dadd_rn(__dmul_rn(__dadd_rn(x, -5.0), x), 8.0);
  if (x < 1.0) return __dadd_rn(__dmul_rn(__dmul_rn(near, x), x), 1.0);
  return x < 2.0 ? __dmul_rn(__dadd_rn(__dmul_rn(far, x), -4.0), -0.5) : 0.0;
}

__device__ int to_fixed_point(double weight) {
  const double scaled = __dmul_rn(weight, 1 << kFractionBits);
  return static_cast<int>(__dadd_rn(scaled, scaled < 0 ? -0.5 : 0.5));
}

/// The filter of output pixel `index` of an axis; image/resample.cpp's make_filter.
struct TapWeights {
  static constexpr int kAtOnce = 8;

  double centre;
  double inverse_scale;
  int first;
  int end;
  double sum;

  __device__ TapWeights(int source_size, int size_px, int index) {
    const double scale = __ddiv_rn(source_size, size_px);
    const double filter_scale = scale > 1.0 ? scale : 1.0;
    const double support = __dmul_rn(kSupport, filter_scale);
    centre = __dmul_rn(__dadd_rn(index, 0.5), scale);
    inverse_scale = __ddiv_rn(1.0, filter_scale);
    first = max(0, static_cast<int>(__dadd_rn(__dadd_rn(centre, -support), 0.5)));
    end = min(source_size, static_cast<int>(__dadd_rn(__dadd_rn(centre, support), 0.5)));
    sum = 0.0;
    for (int x = first; x < end; x += kAtOnce) {  // in order, but weights do not wait for each other
      double weights[kAtOnce];
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) weights[k] = x + k < end ? exact(x + k) : 0.0;
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) sum = __dadd_rn(sum, weights[k]);
    }
  }

  __device__ double exact(int x) const {
    return bicubic_kernel(__dmul_rn(__dadd_rn(__dadd_rn(x, -centre), 0.5), inverse_scale));
  }

  /// Of source pixel x, fixed point; zero outside the taps.
  __device__ int fixed_point(int x) const {
    return x >= first && x < end ? to_fixed_point(__ddiv_rn(exact(x), sum)) : 0;
  }
};

/// A thread per output row or column. Vertical groups begin at multiples of four rows.
__global__ void filters_kernel(const ViewRequest* requests, FilterTable table) {
  const int index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= table.size_px) return;
  const Axis axis = blockIdx.y == kHorizontal ? kHorizontal : kVertical;
  const int request = blockIdx.z;
  const int side = axis == kHorizontal ? requests[request].box_width : requests[request].box_height;
  const TapWeights filter(side, table.size_px, index);
  const int first = axis == kHorizontal ? filter.first : filter.first & ~3;
  const int groups = min(table.groups, (filter.end - first + 3) / 4);
  table.taps_of(request, axis)[index] = {first, groups};
  FourWeights* weights = table.weights_of(request, axis) + index;
  for (int group = 0; group < groups; ++group, weights += table.size_px) {
    FourWeights four = {};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const std::uint32_t weight = filter.fixed_point(first + 4 * group + k);
      four.high |= (weight >> 16 & 255U) << 8 * k;
      four.middle |= (weight >> 8 & 255U) << 8 * k;
      four.low |= (weight & 255U) << 8 * k;
    }
    *weights = four;
  }
}

/// Sums of four unsigned bytes times four weights each.
struct WeightedSum {
  int high = 0;
  std::uint32_t middle = 0;
  std::uint32_t low = 0;

  __device__ __forceinline__ void add(std::uint32_t bytes, const FourWeights& weights) {
    asm("dp4a.u32.s32 %0, %1, %2, %0;" : "+r"(high) : "r"(bytes), "r"(weights.high));
    middle = __dp4a(bytes, weights.middle, middle);
    low = __dp4a(bytes, weights.low, low);
  }
  __device__ __forceinline__ int total() const {
    return (high << 16) + static_cast<int>((middle << 8) + low);
  }
};

/// The pixels that two sums round to in the lower half, `first` lowest, and the lower half of `behind` in the
/// upper one.
__device__ __forceinline__ std::uint32_t two_pixels(int first, int second, std::uint32_t behind) {
  std::uint32_t packed;
  asm("cvt.pack.sat.u8.s32.b32 %0, %1, %2, %3;"
      : "=r"(packed)
      : "r"((second + kHalf) >> kFractionBits), "r"((first + kHalf) >> kFractionBits), "r"(behind));
  return packed;
}

__device__ __forceinline__ std::uint8_t to_pixel(int sum) {
  return static_cast<std::uint8_t>(min(max((sum + kHalf) >> kFractionBits, 0), 255));
}

/// A request's box in the store.
struct BoxBytes {
  const std::uint32_t* words;  ///< around the picture's first byte
  std::uint32_t origin;        ///< byte of the box's first pixel from there
  std::uint32_t row_bytes;     ///< of the picture

  __device__ BoxBytes(const std::uint8_t* store, const ViewRequest& request)
      : words(reinterpret_cast<const std::uint32_t*>(store + (request.begin & ~std::int64_t{3}))),
        origin(static_cast<std::uint32_t>(request.begin & 3) +
               3U * (static_cast<std::uint32_t>(request.top) * request.width + request.left)),
        row_bytes(3U * request.width) {}

  __device__ __forceinline__ std::uint32_t pixel_byte(int row, int column) const {
    return origin + row * row_bytes + 3U * column;
  }
  __device__ const std::uint8_t* pixel(int row, int column) const {
    return reinterpret_cast<const std::uint8_t*>(words) + pixel_byte(row, column);
  }
};

/// Reads a row's pixels in groups of four, wherever they begin, by aligned words.
class PixelStream {
 public:
  __device__ __forceinline__ void open(const BoxBytes& box, int row, int column) {
    const std::uint32_t byte = box.pixel_byte(row, column);
    words_ = box.words + byte / 4;
    shift_ = byte % 4 * 8;
    word_ = words_[0];
  }

  /// The next group by channel, red, green, blue. Reads up to kStorePadding bytes behind the pixels that
  /// there are.
  __device__ __forceinline__ void take(std::uint32_t (&channels)[3]) {
    const std::uint32_t second = words_[1];
    const std::uint32_t third = words_[2];
    const std::uint32_t next = words_[3];
    const std::uint32_t a = __funnelshift_r(word_, second, shift_);  // r0 g0 b0 r1
    const std::uint32_t b = __funnelshift_r(second, third, shift_);  // g1 b1 r2 g2
    const std::uint32_t c = __funnelshift_r(third, next, shift_);    // b2 r3 g3 b3
    word_ = next;
    words_ += 3;
    channels[0] = __byte_perm(__byte_perm(a, b, 0x0630), c, 0x5210);
    channels[1] = __byte_perm(__byte_perm(a, b, 0x0741), c, 0x6210);
    channels[2] = __byte_perm(__byte_perm(a, b, 0x0052), c, 0x7410);
  }

 private:
  const std::uint32_t* words_;
  std::uint32_t shift_;
  std::uint32_t word_;
};

/// Pillow takes the passes in the other order for a picture over a hundred times as tall as wide.
__device__ bool shrinks_vertically_first(const ViewRequest& request, int size_px) {
  return request.box_height > std::int64_t{100} * request.box_width && size_px < request.box_height;
}

__device__ int weight_at(const FourWeights* weights, int size_px, int tap) {
  const FourWeights four = weights[static_cast<std::int64_t>(tap / 4) * size_px];
  const int shift = tap % 4 * 8;
  const int high = static_cast<std::int8_t>(four.high >> shift & 255U);
  return high * (1 << 16) + static_cast<int>((four.middle >> shift & 255U) << 8 | (four.low >> shift & 255U));
}

/// A rare request's pixel, without haste: columns first, then the row of what they gave.
__device__ __noinline__ void write_pixel_columns_first(const ViewsArguments& arguments,
                                                       const FilterTable& table, int request_index, int y,
                                                       int x, int filter_x) {
  const ViewRequest& request = arguments.requests[request_index];
  const BoxBytes box(arguments.store, request);
  const int size_px = table.size_px;
  const Taps across = table.taps_of(request_index, kHorizontal)[filter_x];
  const Taps down = table.taps_of(request_index, kVertical)[y];
  const FourWeights* across_weights = table.weights_of(request_index, kHorizontal) + filter_x;
  const FourWeights* down_weights = table.weights_of(request_index, kVertical) + y;
  int sums[3] = {};
  for (int i = 0; i < 4 * across.groups && across.first + i < request.box_width; ++i) {
    int column_sums[3] = {};
    for (int k = 0; k < 4 * down.groups && down.first + k < request.box_height; ++k) {
      const int weight = weight_at(down_weights, size_px, k);
      const std::uint8_t* pixel = box.pixel(down.first + k, across.first + i);
      for (int channel = 0; channel < 3; ++channel) column_sums[channel] += weight * pixel[channel];
    }
    const int weight = weight_at(across_weights, size_px, i);
    for (int channel = 0; channel < 3; ++channel) {
      sums[channel] += weight * to_pixel(column_sums[channel]);
    }
  }
  std::uint8_t* out =
      arguments.views + ((static_cast<std::int64_t>(request_index) * size_px + y) * size_px + x) * 3;
  for (int channel = 0; channel < 3; ++channel) out[channel] = to_pixel(sums[channel]);
}

/// A block makes kRows × kColumns output pixels. Source rows are filtered along x into shared memory, kChunk
/// groups of four at a time, a group to a word; then the output rows' sums along y go on. Most views need one
/// chunk.
template <int kRows, int kColumns, int kThreads, int kChunk, int kQuads>
class ViewTile {
 public:
  static constexpr int kLine = kColumns * 3;  // values of a row
  static constexpr int kSpan = kLine / kQuads;
  static constexpr int kThreadsOfRow = kSpan / 4;
  static_assert(kLine % (4 * kQuads) == 0 && kRows * kThreadsOfRow <= kThreads);

  struct Shared {
    alignas(16) std::uint32_t filtered[kChunk][kLine];
    alignas(16) int sums[kRows][kLine];  // of the chunks so far
  };

  __device__ ViewTile(const ViewsArguments& arguments, const FilterTable& table, Shared& shared)
      : arguments_(arguments),
        table_(table),
        shared_(shared),
        index_(blockIdx.z),
        request_(arguments.requests[blockIdx.z]),
        box_(arguments.store, request_),
        left_(blockIdx.x * kColumns),
        top_(blockIdx.y * kRows) {}

  __device__ void make() {
    if (shrinks_vertically_first(request_, table_.size_px)) return make_columns_first();
    const Taps* taps = table_.taps_of(index_, kVertical);
    const Taps bottom = taps[min(top_ + kRows, table_.size_px) - 1];
    const int first = taps[top_].first / 4;
    const int end = bottom.first / 4 + bottom.groups;
    for (int begin = first; begin < end; begin += kChunk) {
      filter_rows(begin, min(kChunk, end - begin));
      __syncthreads();
      add_rows(begin, begin == first, begin + kChunk >= end);
      __syncthreads();
    }
  }

 private:
  /// The column of the filters that output column x shows.
  __device__ int filter_column(int x) const { return request_.flip != 0 ? table_.size_px - 1 - x : x; }

  __device__ void filter_rows(int begin, int groups) {
    for (int i = threadIdx.x; i < groups * kColumns; i += kThreads) {
      const int column = i % kColumns;
      if (left_ + column < table_.size_px) {
        filter_four_rows(4 * (begin + i / kColumns), filter_column(left_ + column),
                         &shared_.filtered[i / kColumns][column * 3]);
      }
    }
  }

  /// One output column of four source rows, of which two are in registers at a time.
  __device__ __forceinline__ void filter_four_rows(int row, int column, std::uint32_t* out) const {
    const Taps taps = table_.taps_of(index_, kHorizontal)[column];
    const FourWeights* weights = table_.weights_of(index_, kHorizontal) + column;
    std::uint32_t packed[3] = {};
#pragma unroll 1
    for (int pair = 2; pair >= 0; pair -= 2) {
      WeightedSum sums[2][3];
      if (taps.groups == 2) {  // in most views
        add_groups<2>(row + pair, taps, weights, sums);
      } else {
        add_groups<0>(row + pair, taps, weights, sums);
      }
#pragma unroll
      for (int channel = 0; channel < 3; ++channel) {
        packed[channel] = two_pixels(sums[0][channel].total(), sums[1][channel].total(), packed[channel]);
      }
    }
#pragma unroll
    for (int channel = 0; channel < 3; ++channel) out[channel] = packed[channel];
  }

  /// The weighted sums of two source rows. kGroups is the number of groups where the compiler is to know it,
  /// else 0.
  template <int kGroups>
  __device__ __forceinline__ void add_groups(int row, Taps taps, const FourWeights* weights,
                                             WeightedSum (&sums)[2][3]) const {
    PixelStream rows[2];
#pragma unroll
    for (int k = 0; k < 2; ++k) rows[k].open(box_, min(row + k, request_.box_height - 1), taps.first);
    const int groups = kGroups > 0 ? kGroups : taps.groups;
#pragma unroll(kGroups > 0 ? kGroups : 1)
    for (int group = 0; group < groups; ++group, weights += table_.size_px) {
      const FourWeights four = *weights;
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        std::uint32_t channels[3];
        rows[k].take(channels);
#pragma unroll
        for (int channel = 0; channel < 3; ++channel) sums[k][channel].add(channels[channel], four);
      }
    }
  }

  /// A thread has kQuads times four neighbouring values of one output row.
  __device__ void add_rows(int begin, bool is_first, bool is_last) {
    const int line = threadIdx.x / kThreadsOfRow;
    const int row = top_ + line;
    if (line >= kRows || row >= table_.size_px) return;
    const int column = threadIdx.x % kThreadsOfRow * 4;
    WeightedSum sums[kQuads][4];
    const Taps taps = table_.taps_of(index_, kVertical)[row];
    const FourWeights* weights = table_.weights_of(index_, kVertical) + row;
    const int taps_first = taps.first / 4;
    const int end = min(taps_first + taps.groups, begin + kChunk);
#pragma unroll 1
    for (int group = max(taps_first, begin); group < end; ++group) {
      const FourWeights four = weights[(group - taps_first) * table_.size_px];
#pragma unroll
      for (int quad = 0; quad < kQuads; ++quad) {
        const uint4 values =
            *reinterpret_cast<const uint4*>(&shared_.filtered[group - begin][column + quad * kSpan]);
        sums[quad][0].add(values.x, four);
        sums[quad][1].add(values.y, four);
        sums[quad][2].add(values.z, four);
        sums[quad][3].add(values.w, four);
      }
    }
#pragma unroll
    for (int quad = 0; quad < kQuads; ++quad) {
      int4& kept = *reinterpret_cast<int4*>(&shared_.sums[line][column + quad * kSpan]);
      int4 totals = is_first ? int4{} : kept;
      totals.x += sums[quad][0].total();
      totals.y += sums[quad][1].total();
      totals.z += sums[quad][2].total();
      totals.w += sums[quad][3].total();
      if (is_last) {
        write(row, left_ * 3 + column + quad * kSpan, totals);
      } else {
        kept = totals;
      }
    }
  }

  /// Four values of the view's row.
  __device__ __forceinline__ void write(int row, int first, int4 sums) const {
    const int line = table_.size_px * 3;
    if (first >= line) return;
    std::uint8_t* out =
        arguments_.views + (static_cast<std::int64_t>(index_) * table_.size_px + row) * line + first;
    const std::uint32_t pixels = two_pixels(sums.x, sums.y, two_pixels(sums.z, sums.w, 0));
    if (line % 4 == 0) {
      *reinterpret_cast<std::uint32_t*>(out) = pixels;
    } else {
      for (int k = 0; k < 4 && first + k < line; ++k) out[k] = pixels >> 8 * k & 255U;
    }
  }

  __device__ void make_columns_first() const {
    for (int i = threadIdx.x; i < kRows * kColumns; i += kThreads) {
      const int y = top_ + i / kColumns;
      const int x = left_ + i % kColumns;
      if (y >= table_.size_px || x >= table_.size_px) continue;
      write_pixel_columns_first(arguments_, table_, index_, y, x, filter_column(x));
    }
  }

  const ViewsArguments& arguments_;
  const FilterTable& table_;
  Shared& shared_;
  int index_;  // of the request
  ViewRequest request_;
  BoxBytes box_;
  int left_;
  int top_;
};

template <int kRows, int kColumns, int kThreads, int kChunk, int kQuads, int kMinBlocks>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    views_kernel(const __grid_constant__ ViewsArguments arguments,
                 const __grid_constant__ FilterTable table) {
  using Tile = ViewTile<kRows, kColumns, kThreads, kChunk, kQuads>;
  __shared__ typename Tile::Shared shared;
  Tile(arguments, table, shared).make();
}

template <int kRows, int kColumns, int kThreads, int kChunk, int kQuads, int kMinBlocks>
void launch_views(const ViewsArguments& arguments, const FilterTable& table, cudaStream_t stream) {
  const auto tiles = [&](int side) { return static_cast<unsigned>((arguments.size_px + side - 1) / side); };
  const dim3 grid(tiles(kColumns), tiles(kRows), static_cast<unsigned>(arguments.count));
  views_kernel<kRows, kColumns, kThreads, kChunk, kQuads, kMinBlocks>
      <<<grid, kThreads, 0, stream>>>(arguments, table);
}

void launch_filters(const ViewsArguments& arguments, const FilterTable& table, cudaStream_t stream) {
  constexpr int kThreads = 64;
  const dim3 grid(static_cast<unsigned>((arguments.size_px + kThreads - 1) / kThreads), kAxes,
                  static_cast<unsigned>(arguments.count));
  filters_kernel<<<grid, kThreads, 0, stream>>>(arguments.requests, table);
}

FilterTable table_in(const ViewsArguments& arguments) {
  auto* scratch = static_cast<std::uint8_t*>(arguments.scratch);
  return {reinterpret_cast<Taps*>(scratch),
          reinterpret_cast<FourWeights*>(scratch + taps_bytes(arguments.count, arguments.size_px)),
          arguments.size_px, groups_at_most(arguments.largest_side, arguments.size_px)};
}

}  // namespace

std::size_t views_scratch_bytes(int count, int size_px, int largest_side) {
  const auto groups = static_cast<std::size_t>(groups_at_most(largest_side, size_px));
  return taps_bytes(count, size_px) + sizeof(FourWeights) * kAxes * count * size_px * groups;
}

void launch_resized_views(const ViewsArguments& arguments, cudaStream_t stream) {
  const FilterTable table = table_in(arguments);
  launch_filters(arguments, table, stream);
  launch_views<32, 32, 192, 16, 4, 4>(arguments, table, stream);
}

}  // namespace clip_lora::ops::on_cuda
