#include "pickle_machine.hpp"

#include <ATen/core/Dict.h>
#include <ATen/core/List.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>
#include <unordered_map>

#include "pickle_globals.hpp"
#include "pickle_opcodes.hpp"

namespace clip_lora::io {
namespace {

constexpr int kDeepest = 100;
constexpr std::uint64_t kMostValues = 1'000'000;  // memo and all; the largest CLIP has below 100,000
constexpr std::uint64_t kMostReferences = 4;      // values in the whole nest, for each byte of the pickle

std::string describe(unsigned char opcode) {
  constexpr const char* kDigits = "0123456789abcdef";
  return std::string("0x") + kDigits[opcode / 16] + kDigits[opcode % 16];
}

class Machine {
 public:
  explicit Machine(const PickleSource& source)
      : source_(source),
        calls_(source.most_tensor_bytes),
        most_values_(std::min(kMostValues, 1000 + kMostReferences * source.bytes.size())) {}

  c10::IValue run() {
    try {
      while (step()) {
      }
      if (at_ != source_.bytes.size()) throw PickleError("has something after its end");
      const PickleItem result = pop();
      if (!stack_.empty() || !marks_.empty()) throw PickleError("ends with unused values");
      return result.value();
    } catch (const PickleError& error) {
      throw PickleError(error.what() + std::string(", at byte ") + std::to_string(opcode_at_));
    }
  }

 private:
  /// Reads one opcode; false after the last.
  bool step() {
    opcode_at_ = at_;
    const auto opcode = static_cast<PickleOpcode>(number<std::uint8_t>());
    switch (opcode) {
      case kStop:
        return false;
      case kProto:
        check_protocol();
        break;
      case kFrame:
        number<std::uint64_t>();  // how much to read ahead
        break;
      case kMark:
        marks_.push_back(stack_.size());
        count_value();
        break;
      case kPop:
        pop();
        break;
      case kPopMark:
        take_from_mark();
        break;
      default:
        if (!push_constant(opcode) && !use_memo(opcode) && !build_container(opcode) && !use_global(opcode)) {
          throw PickleError("has the opcode " + describe(opcode) +
                            ", which is not among those that are read");
        }
    }
    return true;
  }

  bool push_constant(PickleOpcode opcode) {
    switch (opcode) {
      case kNone:
        push({c10::IValue()});
        return true;
      case kNewTrue:
        push({c10::IValue(true)});
        return true;
      case kNewFalse:
        push({c10::IValue(false)});
        return true;
      case kBinInt:
        push({c10::IValue(std::int64_t{number<std::int32_t>()})});
        return true;
      case kBinInt1:
        push({c10::IValue(std::int64_t{number<std::uint8_t>()})});
        return true;
      case kBinInt2:
        push({c10::IValue(std::int64_t{number<std::uint16_t>()})});
        return true;
      case kLong1:
        push({c10::IValue(long_integer(number<std::uint8_t>()))});
        return true;
      case kLong4:
        push({c10::IValue(long_integer(number<std::uint32_t>()))});
        return true;
      case kBinFloat:
        push({c10::IValue(big_endian_double())});
        return true;
      case kShortBinUnicode:
      case kShortBinBytes:
      case kShortBinString:
        push_text(number<std::uint8_t>());
        return true;
      case kBinUnicode:
      case kBinBytes:
      case kBinString:
        push_text(number<std::uint32_t>());
        return true;
      case kBinUnicode8:
      case kBinBytes8:
        push_text(number<std::uint64_t>());
        return true;
      default:
        return false;
    }
  }

  bool use_memo(PickleOpcode opcode) {
    switch (opcode) {
      case kBinPut:
        remember(number<std::uint8_t>());
        return true;
      case kLongBinPut:
        remember(number<std::uint32_t>());
        return true;
      case kMemoize:
        remember(static_cast<std::uint32_t>(memo_.size()));
        return true;
      case kBinGet:
        push(remembered(number<std::uint8_t>()));
        return true;
      case kLongBinGet:
        push(remembered(number<std::uint32_t>()));
        return true;
      default:
        return false;
    }
  }

  bool build_container(PickleOpcode opcode) {
    switch (opcode) {
      case kEmptyTuple:
        push_tuple({});
        return true;
      case kTuple1:
        push_tuple(take(1));
        return true;
      case kTuple2:
        push_tuple(take(2));
        return true;
      case kTuple3:
        push_tuple(take(3));
        return true;
      case kTuple:
        push_tuple(take_from_mark());
        return true;
      case kEmptyList:
      case kEmptySet:
        push(new_list_item());
        return true;
      case kAppend:
        append(take(1));
        return true;
      case kAppends:
      case kAddItems:
        append(take_from_mark());
        return true;
      case kEmptyDict:
        push(new_dict_item());
        return true;
      case kSetItem:
        set(take(2));
        return true;
      case kSetItems:
        set(take_from_mark());
        return true;
      default:
        return false;
    }
  }

  bool use_global(PickleOpcode opcode) {
    switch (opcode) {
      case kGlobal: {
        const std::string module = line();
        push(find_global(module, line()));
        return true;
      }
      case kStackGlobal: {
        const auto names = take(2);
        push(find_global(text_of(names[0], "a global's module"), text_of(names[1], "a global's name")));
        return true;
      }
      case kReduce: {
        const auto called = take(2);
        push(calls_.call(global_of(called[0]), called[1]));
        return true;
      }
      case kNewObj: {
        const auto called = take(2);
        push(new_instance(global_of(called[0]), called[1]));
        return true;
      }
      case kBuild:
        build(take(1).front());
        return true;
      case kBinPersId:
        push({storage(take(1).front())});
        return true;
      default:
        return false;
    }
  }

  // ---- The bytes ----

  std::string_view bytes(std::uint64_t count) {
    const std::uint64_t left = source_.bytes.size() - at_;
    if (count > left) {
      throw PickleError("is cut off: " + std::to_string(count) + " bytes are expected, " +
                        std::to_string(left) + " are left");
    }
    const std::string_view result = source_.bytes.substr(at_, count);
    at_ += count;
    return result;
  }

  /// A little-endian number.
  template <typename Number>
  Number number() {
    Number value;
    std::memcpy(&value, bytes(sizeof value).data(), sizeof value);
    return value;
  }

  std::int64_t long_integer(std::uint64_t length) {
    const std::string_view digits = bytes(length);
    if (length > sizeof(std::int64_t)) {
      throw PickleError("has an integer of " + std::to_string(length) + " bytes, expected at most 8");
    }
    const bool negative = !digits.empty() && static_cast<signed char>(digits.back()) < 0;
    std::int64_t value = negative ? -1 : 0;
    std::memcpy(&value, digits.data(), length);
    return value;
  }

  double big_endian_double() {
    std::uint64_t bits = 0;
    for (const char byte : bytes(sizeof bits)) bits = bits << 8 | static_cast<unsigned char>(byte);
    return std::bit_cast<double>(bits);
  }

  std::string line() {
    const auto end = source_.bytes.find('\n', at_);
    if (end == std::string_view::npos) throw PickleError("is cut off in the name of a global");
    std::string text(bytes(end - at_));
    bytes(1);
    return text;
  }

  void check_protocol() {
    const int protocol = number<std::uint8_t>();
    if (protocol < 2 || protocol > 5) {
      throw PickleError("is of protocol " + std::to_string(protocol) + ", expected 2 to 5");
    }
  }

  // ---- The stack ----

  void count_value() {
    if (++values_ > kMostValues)
      throw PickleError("has more than " + std::to_string(kMostValues) + " values");
  }

  void push(PickleItem item) {
    count_value();
    stack_.push_back(std::move(item));
  }

  void push_text(std::uint64_t length) { push({c10::IValue(std::string(bytes(length)))}); }

  PickleItem& top() {
    if (stack_.size() <= floor()) throw PickleError("takes a value where there is none");
    return stack_.back();
  }

  /// What lies below the last mark is not to be touched.
  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }

  PickleItem pop() {
    PickleItem item = std::move(top());
    stack_.pop_back();
    return item;
  }

  std::vector<PickleItem> take_above(std::size_t first) {
    const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(first);
    std::vector<PickleItem> items(std::make_move_iterator(begin), std::make_move_iterator(stack_.end()));
    stack_.erase(begin, stack_.end());
    return items;
  }

  std::vector<PickleItem> take(std::size_t count) {
    if (stack_.size() - floor() < count) throw PickleError("takes values where there are none");
    return take_above(stack_.size() - count);
  }

  std::vector<PickleItem> take_from_mark() {
    if (marks_.empty()) throw PickleError("goes back to a mark where there is none");
    const std::size_t first = marks_.back();
    marks_.pop_back();
    return take_above(first);
  }

  void remember(std::uint32_t key) {
    count_value();  // the memo takes memory too
    memo_[key] = top();
  }

  const PickleItem& remembered(std::uint32_t key) const {
    const auto found = memo_.find(key);
    if (found == memo_.end())
      throw PickleError("refers to value " + std::to_string(key) + ", which it has not had");
    return found->second;
  }

  // ---- Containers ----

  /// Counts `parts` into what holds them; from now on they change no more.
  void add_to(PickleExtent& whole, std::span<const PickleItem> parts) const {
    for (const PickleItem& part : parts) {
      if (part.extent) part.extent->is_part = true;
      whole.values += part.extent ? part.extent->values : 1;
      whole.depth = std::max(whole.depth, part.extent ? part.extent->depth + 1 : 1);
      if (whole.values > most_values_) throw PickleError("refers to the same values too often");
      if (whole.depth > kDeepest) throw PickleError("is nested deeper than " + std::to_string(kDeepest));
    }
    if (whole.is_part) throw PickleError("changes a value that is in another one already, or in itself");
  }

  void push_tuple(std::vector<PickleItem> items) {
    auto extent = std::make_shared<PickleExtent>();
    add_to(*extent, items);
    push({std::make_shared<PickleTuple>(PickleTuple{std::move(items), std::nullopt}), std::move(extent)});
  }

  void append(std::span<const PickleItem> items) {
    const PickleItem& list = top();
    if (!list.is_value() || !std::get<c10::IValue>(list.content).isList()) {
      throw PickleError("appends to " + list.describe() + ", expected a list");
    }
    add_to(*list.extent, items);
    auto values = std::get<c10::IValue>(list.content).toList();
    for (const PickleItem& item : items) values.push_back(item.value());
  }

  void set(std::span<const PickleItem> items) {
    const PickleItem& item = top();
    if (!item.is_value() || !std::get<c10::IValue>(item.content).isGenericDict()) {
      throw PickleError("sets a member of " + item.describe() + ", expected a dictionary");
    }
    if (items.size() % 2 != 0) throw PickleError("sets a key without a value");
    add_to(*item.extent, items);
    auto dict = std::get<c10::IValue>(item.content).toGenericDict();
    for (std::size_t i = 0; i < items.size(); i += 2) insert(dict, items[i], items[i + 1]);
  }

  static void insert(c10::impl::GenericDict& dict, const PickleItem& key_item, const PickleItem& value) {
    const c10::IValue key = key_item.value();
    if (!key.isString() && !key.isInt() && !key.isDouble() && !key.isBool()) {
      throw PickleError("has " + key_item.describe() +
                        " as a key of a dictionary, expected text or a number");
    }
    if (dict.contains(key)) {
      throw PickleError("has a dictionary with the key " +
                        (key.isString() ? "'" + key.toStringRef() + "'" : c10::str(key)) + " twice");
    }
    dict.insert(key, value.value());
  }

  // ---- Classes and storages ----

  static const PickleGlobal& global_of(const PickleItem& item) {
    const auto* global = std::get_if<PickleGlobal>(&item.content);
    if (global == nullptr) throw PickleError("calls " + item.describe());
    return *global;
  }

  /// Python's `cls.__new__(cls)`.
  static PickleItem new_instance(const PickleGlobal& type, const PickleItem& arguments) {
    const bool known =
        type.kind == PickleGlobal::Kind::kTorchScriptClass || type.kind == PickleGlobal::Kind::kOrderedDict;
    if (!known || !tuple_of(arguments, "arguments of '" + type.name + "'").empty()) {
      throw PickleError("makes an instance of '" + type.name +
                        "', expected a class of TorchScript without arguments");
    }
    PickleItem instance = new_dict_item();
    instance.is_instance = type.kind == PickleGlobal::Kind::kTorchScriptClass;
    return instance;
  }

  /// Gives the instance on top its attributes.
  void build(const PickleItem& state) {
    const PickleItem& object = top();
    const auto* attributes = std::get_if<c10::IValue>(&state.content);
    const bool is_dict = attributes != nullptr && attributes->isGenericDict();
    if (!object.is_value() || !std::get<c10::IValue>(object.content).isGenericDict() || !is_dict) {
      throw PickleError("gives " + object.describe() + " the state " + state.describe() +
                        ", expected a dictionary for an instance");
    }
    if (!object.is_instance) return;  // an OrderedDict's, such as the `_metadata` of a state dict
    add_to(*object.extent, {&state, 1});
    auto dict = std::get<c10::IValue>(object.content).toGenericDict();
    for (const auto& entry : attributes->toGenericDict()) {
      count_value();  // one state may be given to many instances
      if (dict.contains(entry.key())) throw PickleError("gives an instance an attribute twice");
      dict.insert(entry.key(), entry.value());
    }
  }

  /// The persistent id ("storage", type, key, location, elements) of torch.save and torch.jit.save.
  PickleStorage storage(const PickleItem& id) {
    const auto& parts = tuple_of(id, "a persistent id");
    if (parts.size() < 5 || text_of(parts[0], "the kind of a persistent id") != "storage") {
      throw PickleError("has a persistent id that is none of a storage");
    }
    const PickleGlobal& type = global_of(parts[1]);
    if (type.kind != PickleGlobal::Kind::kStorageType)
      throw PickleError("has a storage of type '" + type.name + "'");
    const std::string key = text_of(parts[2], "the key of a storage");
    const std::int64_t elements = integer_of(parts[4], "the length of a storage");
    PickleStorage storage = source_.find_storage(key);
    storage.type = type.type;
    const std::uint64_t element_bytes = type.type ? c10::elementSize(*type.type) : 1;
    if (elements < 0 || storage.bytes % element_bytes != 0 ||
        static_cast<std::uint64_t>(elements) != storage.bytes / element_bytes) {
      throw PickleError("has the storage '" + key + "' of " + std::to_string(elements) + " elements of " +
                        std::to_string(element_bytes) + " bytes, but its entry has " +
                        std::to_string(storage.bytes) + " bytes");
    }
    return storage;
  }

  const PickleSource& source_;
  PickleCalls calls_;
  const std::uint64_t most_values_;
  std::uint64_t at_ = 0;
  std::uint64_t opcode_at_ = 0;
  std::uint64_t values_ = 0;
  std::vector<PickleItem> stack_;
  std::vector<std::size_t> marks_;
  std::unordered_map<std::uint32_t, PickleItem> memo_;
};

}  // namespace

c10::IValue run_pickle(const PickleSource& source) { return Machine(source).run(); }

}  // namespace clip_lora::io
