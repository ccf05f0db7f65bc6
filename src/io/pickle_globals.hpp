#pragma once

#include <cstdint>
#include <string>

#include "pickle_item.hpp"

namespace clip_lora::io {

/// The global `module`.`name`: an item to call, or for a dtype the text of its name. Throws PickleError that
/// names one which is not on the closed list.
PickleItem find_global(const std::string& module, const std::string& name);

/// Rebuilds what a pickle's calls describe. Nothing is executed: each of the few functions is known by what
/// it means.
class PickleCalls {
 public:
  /// The tensors may view up to `most_bytes` bytes in all, each counted by itself.
  explicit PickleCalls(std::uint64_t most_bytes) : most_bytes_(most_bytes), bytes_left_(most_bytes) {}

  /// The result of `function(*arguments)`.
  PickleItem call(const PickleGlobal& function, const PickleItem& arguments);

 private:
  at::Tensor tensor(const std::vector<PickleItem>& arguments, std::optional<at::ScalarType> type);

  std::uint64_t most_bytes_;
  std::uint64_t bytes_left_;
};

/// The elements of `item`, which must be a tuple; `what` names it in errors.
const std::vector<PickleItem>& tuple_of(const PickleItem& item, const std::string& what);
std::int64_t integer_of(const PickleItem& item, const std::string& what);
std::string text_of(const PickleItem& item, const std::string& what);

}  // namespace clip_lora::io
