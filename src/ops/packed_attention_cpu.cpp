#include "packed_attention_cpu.hpp"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace clip_lora::ops {
namespace {

constexpr std::int64_t kLanes = 16;  // sums that a compiler may hold in vector registers

template <typename T>
T dot(const T* a, const T* b, std::int64_t count) {
  T sums[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::int64_t j = 0; j < kLanes; ++j) sums[j] += a[i + j] * b[i + j];
  }
  T sum = 0;
  for (const T part : sums) sum += part;
  for (; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

/// to += factor · from
template <typename T>
void add(T* __restrict to, const T* __restrict from, T factor, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] += factor * from[i];
}

/// What one query and one key give each other: d_query += d_score · key, d_key += d_score · query and
/// d_value += weight · d_row.
template <typename T>
void add_gradients(const T* __restrict query, const T* __restrict key, const T* __restrict d_row, T weight,
                   T d_score, std::int64_t width, T* __restrict d_query, T* __restrict d_key,
                   T* __restrict d_value) {
  for (std::int64_t i = 0; i < width; ++i) {
    d_query[i] += d_score * key[i];
    d_key[i] += d_score * query[i];
    d_value[i] += weight * d_row[i];
  }
}

/// Rows of a matrix, at one head's first column.
template <typename T>
struct Rows {
  T* data = nullptr;
  std::int64_t stride = 0;

  T* operator[](std::int64_t row) const { return data + row * stride; }
};

template <typename T>
Rows<T> rows_of(const at::Tensor& matrix, std::int64_t column) {
  return {matrix.data_ptr<T>() + column, matrix.stride(0)};
}

/// Consecutive keys and values of one head, and where their gradients are summed.
template <typename T>
struct Keys {
  Rows<T> k, v, d_k, d_v;
  std::int64_t count = 0;

  Keys narrow(std::int64_t first, std::int64_t rows) const {
    const auto from = [&](const Rows<T>& all) { return Rows<T>{all.data + first * all.stride, all.stride}; };
    return {from(k), from(v), from(d_k), from(d_v), rows};
  }
};

/// One head's attention: the scale of its scores and room for those of one query.
template <typename T>
class HeadAttention {
 public:
  HeadAttention(std::int64_t width, std::int64_t most_keys)
      : width_(width),
        scale_(T{1} / std::sqrt(static_cast<T>(width))),
        scores_(static_cast<std::size_t>(most_keys)) {}

  /// Writes what `query` attends to; returns the logarithm of the sum of its weights.
  T forward(const T* query, const Keys<T>& prefix, const Keys<T>& own, T* to) {
    T largest = -std::numeric_limits<T>::infinity();
    std::size_t i = 0;
    for (const Keys<T>* keys : {&prefix, &own}) {
      for (std::int64_t key = 0; key < keys->count; ++key) {
        const T score = scale_ * dot<T>(query, keys->k[key], width_);
        scores_[i++] = score;
        largest = std::max(largest, score);
      }
    }
    T sum = 0;
    for (std::size_t j = 0; j < i; ++j) sum += scores_[j] = std::exp(scores_[j] - largest);
    std::fill_n(to, width_, T{0});
    i = 0;
    for (const Keys<T>* keys : {&prefix, &own}) {
      for (std::int64_t key = 0; key < keys->count; ++key)
        add<T>(to, keys->v[key], scores_[i++] / sum, width_);
    }
    return largest + std::log(sum);
  }

  /// Adds a query's share to the gradients of keys and values; writes its own.
  void backward(const T* query, const T* d_row, const T* row, T log_sum, const Keys<T>& prefix,
                const Keys<T>& own, T* d_query) const {
    const T delta = dot<T>(d_row, row, width_);
    std::fill_n(d_query, width_, T{0});
    for (const Keys<T>* keys : {&prefix, &own}) {
      for (std::int64_t key = 0; key < keys->count; ++key) {
        const T weight = std::exp(scale_ * dot<T>(query, keys->k[key], width_) - log_sum);
        const T d_score = scale_ * weight * (dot<T>(d_row, keys->v[key], width_) - delta);
        add_gradients<T>(query, keys->k[key], d_row, weight, d_score, width_, d_query, keys->d_k[key],
                         keys->d_v[key]);
      }
    }
  }

 private:
  std::int64_t width_;
  T scale_;
  std::vector<T> scores_;
};

/// Sequences in groups that depend on nothing but the packing: what is summed over a group's sequences, and
/// then over groups, is summed in the same order by any number of threads.
struct Groups {
  std::int64_t sequences, size, count;

  explicit Groups(const Packing& packing)
      : sequences(packing.sequences),
        size(packing.prefix == 0 ? 1 : std::max<std::int64_t>(16, (sequences + 63) / 64)),
        count((sequences + size - 1) / size) {}
};

/// Calls run(first query, first row, rows, their common prefix's rows) for each sequence of a group. The
/// prefix, where it has queries, is the group after the last.
template <typename Run>
void for_each_sequence(const Groups& groups, std::int64_t group, const Packing& packing, Query query,
                       const Run& run) {
  if (group == groups.count) return run(0, 0, packing.prefix, 0);
  const auto* offsets = packing.offsets.const_data_ptr<std::int32_t>();
  const auto end = std::min(groups.sequences, (group + 1) * groups.size);
  for (auto i = group * groups.size; i < end; ++i) {
    const std::int64_t first = offsets[i];
    run(query == Query::kEnds ? i : first, first, offsets[i + 1] - first, packing.prefix);
  }
}

/// Calls run(group, head) for all, in parallel.
template <typename Run>
void for_each_group(const Groups& groups, Query query, std::int64_t prefix, std::int64_t heads,
                    const Run& run) {
  const auto count = groups.count + (query == Query::kEveryRow && prefix > 0 ? 1 : 0);
  at::parallel_for(0, count * heads, 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = begin; i < end; ++i) run(i / heads, i % heads);
  });
}

/// Calls run(query, keys it sees) for the queries of a sequence of `count` rows.
template <typename Run>
void for_each_query(Query query, std::int64_t first, std::int64_t count, const Run& run) {
  if (query == Query::kEnds) return run(first, count);
  for (std::int64_t i = 0; i < count; ++i) run(first + i, i + 1);
}

template <typename T>
void forward(const HeadRows& rows, Query query, const Packing& packing, std::int64_t heads,
             const Attended& to) {
  const auto width = rows.k.size(1) / heads;
  const Groups groups(packing);
  for_each_group(groups, query, packing.prefix, heads, [&](std::int64_t group, std::int64_t head) {
    const auto column = head * width;
    const auto q = rows_of<T>(rows.q, column), out = rows_of<T>(to.rows, column);
    const auto log_sums = rows_of<T>(to.log_sum_exp, head);
    const Keys<T> all = {rows_of<T>(rows.k, column), rows_of<T>(rows.v, column), {}, {}, packing.rows};
    HeadAttention<T> attention(width, packing.prefix + packing.longest);
    for_each_sequence(groups, group, packing, query,
                      [&](auto first_query, auto first, auto count, auto prefix) {
                        const Keys<T> common = all.narrow(0, prefix);
                        for_each_query(query, first_query, count, [&](std::int64_t i, std::int64_t seen) {
                          *log_sums[i] = attention.forward(q[i], common, all.narrow(first, seen), out[i]);
                        });
                      });
  });
}

template <typename T>
void backward(const at::Tensor& d_rows, const HeadRows& rows, const Attended& attended, Query query,
              const Packing& packing, std::int64_t heads, const HeadRows& gradients) {
  const auto model_width = rows.k.size(1), width = model_width / heads;
  const Groups groups(packing);
  // The prefix's gradients, a partial sum for each group of sequences: keys, then values.
  const at::Tensor sums = at::zeros({groups.count + 1, 2, packing.prefix, model_width}, rows.k.options());
  for_each_group(groups, query, packing.prefix, heads, [&](std::int64_t group, std::int64_t head) {
    const auto column = head * width;
    const auto q = rows_of<T>(rows.q, column), d_q = rows_of<T>(gradients.q, column);
    const auto out = rows_of<T>(attended.rows, column), d_out = rows_of<T>(d_rows, column);
    const auto log_sums = rows_of<T>(attended.log_sum_exp, head);
    const auto k = rows_of<T>(rows.k, column), v = rows_of<T>(rows.v, column);
    const Keys<T> all = {k, v, rows_of<T>(gradients.k, column), rows_of<T>(gradients.v, column),
                         packing.rows};
    const Keys<T> of_prefix = {k, v, rows_of<T>(sums[group][0], column), rows_of<T>(sums[group][1], column),
                               packing.prefix};
    HeadAttention<T> attention(width, 0);
    for_each_sequence(groups, group, packing, query,
                      [&](auto first_query, auto first, auto count, auto prefix) {
                        const Keys<T> own = first < packing.prefix ? of_prefix : all.narrow(first, count);
                        for (std::int64_t row = 0; row < count; ++row) {
                          std::fill_n(own.d_k[row], width, T{0});
                          std::fill_n(own.d_v[row], width, T{0});
                        }
                        for_each_query(query, first_query, count, [&](std::int64_t i, std::int64_t seen) {
                          attention.backward(q[i], d_out[i], out[i], *log_sums[i],
                                             of_prefix.narrow(0, prefix), own.narrow(0, seen), d_q[i]);
                        });
                      });
  });
  if (packing.prefix == 0) return;
  const at::Tensor sum = sums.sum(0);  // [2, P, D]
  gradients.k.narrow(0, 0, packing.prefix).copy_(sum[0]);
  gradients.v.narrow(0, 0, packing.prefix).copy_(sum[1]);
}

}  // namespace

Attended attend_on_cpu(const HeadRows& rows, Query query, const Packing& packing, std::int64_t heads) {
  Attended attended = {at::empty({rows.q.size(0), rows.k.size(1)}, rows.k.options()),
                       at::empty({rows.q.size(0), heads}, rows.k.options())};
  AT_DISPATCH_FLOATING_TYPES(rows.k.scalar_type(), "attend_on_cpu",
                             [&] { forward<scalar_t>(rows, query, packing, heads, attended); });
  return attended;
}

void attend_on_cpu_backward(const at::Tensor& d_rows, const HeadRows& rows, const Attended& attended,
                            Query query, const Packing& packing, std::int64_t heads,
                            const HeadRows& gradients) {
  AT_DISPATCH_FLOATING_TYPES(rows.k.scalar_type(), "attend_on_cpu_backward", [&] {
    backward<scalar_t>(d_rows, rows, attended, query, packing, heads, gradients);
  });
}

}  // namespace clip_lora::ops
