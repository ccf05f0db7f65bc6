#pragma once

#include "clip_lora/ops/packing.hpp"
#include "clip_lora/ops/sequence_attention.hpp"

namespace clip_lora::ops {

/// Rows of queries, keys and values: views whose last dimension is contiguous, float32 or float64, on the
/// CPU.
struct HeadRows {
  at::Tensor q;  ///< [T, D] where every row is a query, else [N, D]: one query for each sequence
  at::Tensor k;  ///< [T, D]
  at::Tensor v;  ///< [T, D]
};

/// Which rows are queries: all, each of which sees itself and earlier rows, or one per sequence, which sees
/// all of it.
enum class Query { kEveryRow, kEnds };

/// Attention straight over packed rows, sequence by sequence: nothing is gathered or padded. log_sum_exp has
/// a row for each query, [., H], and the inputs' type.
Attended attend_on_cpu(const HeadRows& rows, Query query, const Packing& packing, std::int64_t heads);

/// Writes the gradients to `gradients`, shaped like `rows`.
void attend_on_cpu_backward(const at::Tensor& d_rows, const HeadRows& rows, const Attended& attended,
                            Query query, const Packing& packing, std::int64_t heads,
                            const HeadRows& gradients);

}  // namespace clip_lora::ops
