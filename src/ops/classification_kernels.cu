#include "classification_kernels.hpp"
#include "element.cuh"
#include "row_vectors.cuh"

namespace clip_lora::ops {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr unsigned kAll = 0xffffffffU;
constexpr int kProductImages = 8;                     // a warp's tile of the products: images
constexpr int kProductClasses = 2;                    // … and classes
constexpr int kTextColumns = 256;                     // columns of a class's gradient that a warp forms
constexpr int kImageColumns = 32;                     // a block's tile of the images' gradient: columns
constexpr int kImageRows = 4;                         // … and images
constexpr int kImageLanes = kImageColumns / 8;        // that share a class's columns
constexpr int kImageGroups = kThreads / kImageLanes;  // of such lanes, which walk over the classes
constexpr int kInFlight = 4;                          // classes that a group reads at once

template <typename T>
__device__ __forceinline__ void load_eight(const T* from, float (&to)[8]) {
  const Eight<T> values = *reinterpret_cast<const Eight<T>*>(from);
#pragma unroll
  for (int i = 0; i < 8; ++i) to[i] = to_float(values.values[i]);
}

__device__ __forceinline__ float dot(const float (&a)[8], const float (&b)[8]) {
  float sum = 0.0F;
#pragma unroll
  for (int i = 0; i < 8; ++i) sum = fmaf(a[i], b[i], sum);
  return sum;
}

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(kAll, value, distance);
  return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    value = fmaxf(value, __shfl_xor_sync(kAll, value, distance));
  return value;
}

/// Three sums over the block at once; every thread gets them. `shared` is free again afterwards.
__device__ float3 block_sums(float3 value, float3 (&shared)[kWarps]) {
  value = {warp_sum(value.x), warp_sum(value.y), warp_sum(value.z)};
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  float3 total = {0.0F, 0.0F, 0.0F};
#pragma unroll
  for (const float3& part : shared) total = {total.x + part.x, total.y + part.y, total.z + part.z};
  __syncthreads();
  return total;
}

__device__ float block_max(float value, float (&shared)[kWarps]) {
  value = warp_max(value);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  float largest = shared[0];
#pragma unroll
  for (const float part : shared) largest = fmaxf(largest, part);
  return largest;
}

/// f · t̂ for kProductClasses classes and kProductImages images per warp, and the classes' norms.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    products_kernel(ClassificationProblem p, ClassificationScratch s) {
  const int lane = threadIdx.x % 32, first_class = (blockIdx.x * kWarps + threadIdx.x / 32) * kProductClasses;
  const int first_image = blockIdx.y * kProductImages;
  if (first_class >= p.classes) return;
  float sums[kProductClasses * kProductImages] = {}, squares[kProductClasses] = {};
  for (int column = 8 * lane; column < p.width; column += 256) {
    float t[kProductClasses][8], f[8];
#pragma unroll
    for (int k = 0; k < kProductClasses; ++k) {
      load_eight(row_of<T>(p.text_features, min(first_class + k, p.classes - 1), p.width) + column, t[k]);
      squares[k] += dot(t[k], t[k]);
    }
#pragma unroll
    for (int i = 0; i < kProductImages; ++i) {
      load_eight(row_of<T>(p.image_features, min(first_image + i, p.images - 1), p.width) + column, f);
#pragma unroll
      for (int k = 0; k < kProductClasses; ++k) sums[k * kProductImages + i] += dot(t[k], f);
    }
  }
  warp_sums(squares);
  const float sum = scattered_warp_sums(sums);
  const int index = lane / (32 / (kProductClasses * kProductImages));  // of the sum that this lane got
  const int k = index / kProductImages, c = first_class + k, image = first_image + index % kProductImages;
  const float inverse_norm = 1.0F / sqrtf(k == 0 ? squares[0] : squares[1]);
  if (c >= p.classes) return;
  if (image < p.images) s.products[static_cast<std::int64_t>(image) * p.classes + c] = sum * inverse_norm;
  if (image == 0) s.inverse_text_norms[c] = inverse_norm;
}
static_assert(kProductClasses == 2);

__device__ __forceinline__ float weight_of(const ClassificationProblem& p, std::int64_t label) {
  return p.class_weights != nullptr && label >= 0 && label < p.classes ? p.class_weights[label] : 1.0F;
}

/// Loss and its gradient in the cosines: one block per image.
template <typename T>
__global__ void __launch_bounds__(kThreads) softmax_kernel(ClassificationProblem p, ClassificationScratch s) {
  __shared__ float3 sums[kWarps];
  __shared__ float maxima[kWarps];
  const int image = blockIdx.x;
  const float* products = s.products + static_cast<std::int64_t>(image) * p.classes;
  const T* features = static_cast<const T*>(p.image_features) + static_cast<std::int64_t>(image) * p.width;

  float square = 0.0F, weights = 0.0F, largest = -INFINITY;
  for (int column = threadIdx.x; column < p.width; column += kThreads) {
    square = fmaf(to_float(features[column]), to_float(features[column]), square);
  }
  for (int i = threadIdx.x; i < p.images; i += kThreads) weights += weight_of(p, p.labels[i]);
  for (int c = threadIdx.x; c < p.classes; c += kThreads) largest = fmaxf(largest, products[c]);
  const float3 first = block_sums({square, weights, 0.0F}, sums);
  const float inverse_norm = 1.0F / sqrtf(first.x);
  const float largest_cosine = block_max(largest, maxima) * inverse_norm;

  float exponentials = 0.0F, mean = 0.0F;
  for (int c = threadIdx.x; c < p.classes; c += kThreads) {
    const float cosine = products[c] * inverse_norm;
    const float exponential = expf(p.logit_scale * (cosine - largest_cosine));
    exponentials += exponential;
    mean = fmaf(exponential, cosine, mean);
  }
  const float3 second = block_sums({exponentials, mean, 0.0F}, sums);

  const std::int64_t label = p.labels[image];
  const bool known = label >= 0 && label < p.classes;
  const float label_cosine =
      known ? products[label] * inverse_norm : NAN;  // an impossible label is seen in the loss
  const float share = weight_of(p, label) / first.y;
  const float factor = share * p.logit_scale * (p.loss_scale != nullptr ? *p.loss_scale : 1.0F);
  float* gradients = s.d_cosines + static_cast<std::int64_t>(image) * p.classes;
  for (int c = threadIdx.x; c < p.classes; c += kThreads) {
    const float probability = expf(p.logit_scale * (products[c] * inverse_norm - largest_cosine)) / second.x;
    gradients[c] = factor * (probability - (c == label ? 1.0F : 0.0F));
  }
  if (threadIdx.x == 0) {
    s.losses[image] = share * (logf(second.x) - p.logit_scale * (label_cosine - largest_cosine));
    s.projections[image] = factor * (second.y / second.x - label_cosine);
    s.inverse_image_norms[image] = inverse_norm;
  }
}

__device__ void sum_losses(const ClassificationProblem& p, const float* losses, float* loss) {
  __shared__ float3 sums[kWarps];
  float sum = 0.0F;
  for (int i = threadIdx.x; i < p.images; i += kThreads) sum += losses[i];
  sum = block_sums({sum, 0.0F, 0.0F}, sums).x;
  if (threadIdx.x == 0) *loss = sum;
}

/// Σ_c d_cosine t̂_c over this group's classes, for kImageRows images in eight columns.
template <typename T>
__device__ void sum_over_classes(const ClassificationProblem& p, const ClassificationScratch& s,
                                 int first_image, int column, float (&sums)[kImageRows][8]) {
  for (int first = threadIdx.x / kImageLanes; first < p.classes; first += kInFlight * kImageGroups) {
    Eight<T> t[kInFlight];
    float factors[kInFlight][kImageRows];
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
      const int c = min(first + k * kImageGroups, p.classes - 1);
      t[k] = *reinterpret_cast<const Eight<T>*>(row_of<T>(p.text_features, c, p.width) + column);
      const float inverse_norm = first + k * kImageGroups < p.classes ? s.inverse_text_norms[c] : 0.0F;
#pragma unroll
      for (int i = 0; i < kImageRows; ++i) {
        const std::int64_t image = min(first_image + i, p.images - 1);
        factors[k][i] = s.d_cosines[image * p.classes + c] * inverse_norm;
      }
    }
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const float value = to_float(t[k].values[j]);
#pragma unroll
        for (int i = 0; i < kImageRows; ++i) sums[i][j] = fmaf(factors[k][i], value, sums[i][j]);
      }
    }
  }
}

/// The gradient of kImageRows images in kImageColumns columns: (Σ_c d_cosine t̂_c − projection · f̂) / |f|.
template <typename T>
__device__ void image_gradients(const ClassificationProblem& p, const ClassificationScratch& s, T* d_images,
                                int tile) {
  __shared__ float partial[kWarps][kImageRows][kImageColumns];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int tiles_across = (p.width + kImageColumns - 1) / kImageColumns;
  const int first_image = tile / tiles_across * kImageRows,
            first_column = tile % tiles_across * kImageColumns;
  const int own_columns = lane % kImageLanes * 8;
  float sums[kImageRows][8] = {};
  if (first_column + own_columns < p.width) {
    sum_over_classes<T>(p, s, first_image, first_column + own_columns, sums);
  }
#pragma unroll
  for (int i = 0; i < kImageRows; ++i) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      float sum = sums[i][j];
#pragma unroll
      for (int distance = kImageLanes; distance < 32; distance *= 2)
        sum += __shfl_xor_sync(kAll, sum, distance);
      if (lane < kImageLanes) partial[warp][i][own_columns + j] = sum;
    }
  }
  __syncthreads();
  const int row = threadIdx.x / kImageColumns, column = threadIdx.x % kImageColumns,
            image = first_image + row;
  if (row >= kImageRows || image >= p.images || first_column + column >= p.width) return;
  float sum = 0.0F;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += partial[w][row][column];
  const std::int64_t at = static_cast<std::int64_t>(image) * p.width + first_column + column;
  const float inverse_norm = s.inverse_image_norms[image];
  const float unit = to_float(static_cast<const T*>(p.image_features)[at]) * inverse_norm;
  d_images[at] = from_float<T>((sum - unit * s.projections[image]) * inverse_norm);
}

/// sums += Σ factor f for the images from `first` on that the lanes hold the factors of.
template <typename T>
__device__ __forceinline__ void sum_over_images(const ClassificationProblem& p, int first, int column,
                                                float factor, float (&sums)[8]) {
  for (int begin = 0; begin < min(32, p.images - first); begin += 8) {
    Eight<T> f[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int image = min(first + begin + i, p.images - 1);
      f[i] = *reinterpret_cast<const Eight<T>*>(row_of<T>(p.image_features, image, p.width) + column);
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float of_image = __shfl_sync(kAll, factor, begin + i);
#pragma unroll
      for (int j = 0; j < 8; ++j) sums[j] = fmaf(of_image, to_float(f[i].values[j]), sums[j]);
    }
  }
}

/// The gradient of one class per warp in kTextColumns columns: (Σ_b d_cosine f̂_b − (t̂ · that) t̂) / |t|.
template <typename T>
__device__ void text_gradients(const ClassificationProblem& p, const ClassificationScratch& s, T* d_texts,
                               int tile) {
  const int tiles_across = (p.width + kTextColumns - 1) / kTextColumns;
  const int lane = threadIdx.x % 32, c = tile / tiles_across * kWarps + threadIdx.x / 32;
  const int column = tile % tiles_across * kTextColumns + 8 * lane;
  if (c >= p.classes) return;
  float sums[8] = {}, projection = 0.0F;
  for (int first = 0; first < p.images; first += 32) {
    const int own = first + lane;
    float factor = 0.0F;
    if (own < p.images) {
      const std::int64_t at = static_cast<std::int64_t>(own) * p.classes + c;
      factor = s.d_cosines[at] * s.inverse_image_norms[own];
      projection = fmaf(factor, s.products[at], projection);
    }
    sum_over_images<T>(p, first, min(column, p.width - 8), factor, sums);
  }
  projection = warp_sum(projection);
  if (column >= p.width) return;
  const std::int64_t at = static_cast<std::int64_t>(c) * p.width + column;
  const float inverse_norm = s.inverse_text_norms[c];
  float t[8];
  load_eight(static_cast<const T*>(p.text_features) + at, t);
  Eight<T> gradient;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    gradient.values[j] = from_float<T>((sums[j] - t[j] * inverse_norm * projection) * inverse_norm);
  }
  *reinterpret_cast<Eight<T>*>(d_texts + at) = gradient;
}

/// Block 0 sums the loss; then the tiles of the images' gradient, which take longest; then those of the
/// classes'.
template <typename T>
__global__ void __launch_bounds__(kThreads) gradients_kernel(ClassificationProblem p, ClassificationScratch s,
                                                             ClassificationResults r, int image_tiles) {
  const int tile = static_cast<int>(blockIdx.x) - 1;
  if (tile < 0) {
    sum_losses(p, s.losses, r.loss);
  } else if (tile < image_tiles) {
    image_gradients(p, s, static_cast<T*>(r.d_image_features), tile);
  } else {
    text_gradients(p, s, static_cast<T*>(r.d_text_features), tile - image_tiles);
  }
}

constexpr int divide_up(int a, int b) { return (a + b - 1) / b; }

}  // namespace

void launch_classification(const ClassificationProblem& p, const ClassificationScratch& scratch,
                           const ClassificationResults& results, cudaStream_t stream) {
  const int image_tiles = results.d_image_features == nullptr
                              ? 0
                              : divide_up(p.images, kImageRows) * divide_up(p.width, kImageColumns);
  const int text_tiles = results.d_text_features == nullptr
                             ? 0
                             : divide_up(p.classes, kWarps) * divide_up(p.width, kTextColumns);
  const dim3 product_tiles(divide_up(p.classes, kWarps * kProductClasses),
                           divide_up(p.images, kProductImages));
  with_type(p.element, [&](auto type) {
    using T = decltype(type);
    products_kernel<T><<<product_tiles, kThreads, 0, stream>>>(p, scratch);
    softmax_kernel<T><<<p.images, kThreads, 0, stream>>>(p, scratch);
    gradients_kernel<T>
        <<<1 + image_tiles + text_tiles, kThreads, 0, stream>>>(p, scratch, results, image_tiles);
  });
}

}  // namespace clip_lora::ops
