#pragma once

#include <ATen/core/ivalue.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

// What a pickle is made of while it is read; private to the reader.
namespace clip_lora::io {

/// A complaint about a pickle, to which its reader adds the file and the place.
class PickleError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A function or class that a pickle names; one of a closed list.
struct PickleGlobal {
  enum class Kind {
    kOrderedDict,
    kSet,
    kRebuildTensor,  ///< (storage, offset, sizes, strides), and version 2's two more that say nothing of the
                     ///< values
    kRebuildTensorV3,  ///< the same with a type
    kRebuildParameter,
    kStorageType,
    kSize,
    kDevice,
    kTypedList,        ///< torch.jit._pickle.build_…list(list)
    kRestoreTypeTag,   ///< torch.jit._pickle.restore_type_tag(value, type)
    kTorchScriptClass  ///< whose instances are dictionaries
  };
  Kind kind;
  std::string name;                    ///< "torch._utils._rebuild_tensor_v2"
  std::optional<at::ScalarType> type;  ///< of a storage type; nothing for an untyped one
};

/// The bytes that tensors view.
struct PickleStorage {
  char* begin = nullptr;
  std::uint64_t bytes = 0;
  std::shared_ptr<const void> owner;   ///< of the bytes
  std::optional<at::ScalarType> type;  ///< nothing for an untyped storage
};

/// Of a container: what must stay small however often its parts are referred to.
struct PickleExtent {
  std::uint64_t values = 1;  ///< itself and all that is in it, counted as often as they appear
  int depth = 1;             ///< of the nest
  bool is_part = false;  ///< in another container, and may change no more; so nothing can come to hold itself
};

struct PickleTuple;

/// What is on a pickle's stack and in its memo.
struct PickleItem {
  std::variant<c10::IValue, PickleGlobal, PickleStorage, std::shared_ptr<PickleTuple>> content;
  std::shared_ptr<PickleExtent> extent = nullptr;  ///< of containers
  bool is_instance = false;                        ///< of a TorchScript class: a dictionary of attributes

  /// The item as it goes into a container; throws PickleError for what is no value.
  c10::IValue value() const;
  bool is_value() const { return std::holds_alternative<c10::IValue>(content); }
  /// "a tensor", "the function torch._utils._rebuild_tensor_v2": for messages.
  std::string describe() const;
};

/// A tuple may hold what is no value: the arguments of a call.
struct PickleTuple {
  std::vector<PickleItem> items;
  std::optional<c10::IValue>
      value;  ///< made when it is first needed, and once, however often it is referred to
};

PickleItem new_dict_item();
PickleItem new_list_item();

}  // namespace clip_lora::io
