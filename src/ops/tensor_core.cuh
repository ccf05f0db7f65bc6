#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

// Warp-wide products of 16-bit tiles and what feeds them (PTX's mma, ldmatrix and cp.async). They exist from
// compute capability 8.0: compiled for earlier devices, which they are not launched on, kernels of theirs
// have empty bodies.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define CLIP_LORA_TENSOR_CORE
#endif

namespace clip_lora::ops {

/// A lane's share of a 16 × 16 left operand: rows g and g + 8, columns 2t, 2t + 1 and the same plus 8, two to
/// a register, with g = lane / 4 and t = lane % 4.
using LeftFragment = std::uint32_t[4];

/// A lane's share of a 16 × 8 result: row g, columns 2t and 2t + 1, then row g + 8.
using Accumulator = float[4];

/// result += left [16, 16] · right [16, 8]; a lane holds right's rows 2t, 2t + 1 (right_0) and the same plus
/// 8 (right_1) of column g.
template <typename T>
__device__ __forceinline__ void multiply_add(Accumulator& result, const LeftFragment& left,
                                             std::uint32_t right_0, std::uint32_t right_1) {
  if constexpr (std::is_same_v<T, __half>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(result[0]), "+f"(result[1]), "+f"(result[2]), "+f"(result[3])
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right_0), "r"(right_1));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(result[0]), "+f"(result[1]), "+f"(result[2]), "+f"(result[3])
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right_0), "r"(right_1));
  }
}

/// Four 8 × 8 matrices from shared memory; lane i names the address of row i % 8 of matrix i / 8. A lane gets
/// columns 2t, 2t + 1 of row g of each.
__device__ __forceinline__ void load_matrices(std::uint32_t (&matrices)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(address)
               : "memory");
}

/// The same, transposed: a lane gets rows 2t, 2t + 1 of column g of each.
__device__ __forceinline__ void load_matrices_transposed(std::uint32_t (&matrices)[4],
                                                         std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(address)
               : "memory");
}

/// Starts copying 16 bytes to shared memory, or zeros where not `inside`.
__device__ __forceinline__ void start_copy(std::uint32_t to, const void* from, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(inside ? 16 : 0)
               : "memory");
}

/// Ends the group of copies that this thread started since the last one.
__device__ __forceinline__ void close_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until at most `kGroups` of this thread's groups of copies, the latest, are still under way.
template <int kGroups>
__device__ __forceinline__ void await_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

template <typename T>
__device__ __forceinline__ std::uint32_t pack(float low, float high) {
  std::uint32_t packed;
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 pair = __floats2half2_rn(low, high);
    packed = *reinterpret_cast<const std::uint32_t*>(&pair);
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    packed = *reinterpret_cast<const std::uint32_t*>(&pair);
  }
  return packed;
}

template <typename T>
__device__ __forceinline__ float2 unpack(std::uint32_t packed) {
  if constexpr (std::is_same_v<T, __half>) {
    return __half22float2(*reinterpret_cast<const __half2*>(&packed));
  } else {
    return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&packed));
  }
}

/// 2^x to about 2^-22 relative; 0 for -inf.
__device__ __forceinline__ float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace clip_lora::ops
