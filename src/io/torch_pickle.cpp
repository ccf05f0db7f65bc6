#include "clip_lora/io/torch_pickle.hpp"

#include <ATen/core/Dict.h>
#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/jit/serialization/pickler.h>

#include <bit>
#include <cstddef>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <string>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/atomic_file.hpp"
#include "clip_lora/io/mapped_file.hpp"
#include "file_kind.hpp"
#include "pickle_machine.hpp"
#include "zip_archive.hpp"

namespace clip_lora::io {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are read as they are stored");

constexpr std::uint64_t kSmallFile = 64ULL << 20;    // up to which every CRC-32 is checked
constexpr std::uint64_t kMostPickle = 256ULL << 20;  // bytes of data.pkl
constexpr std::uint64_t kMostByteOrder = 16;         // bytes of "little" or "big"
constexpr std::uint64_t kMostCode = 64ULL << 20;     // bytes of all of TorchScript's sources
constexpr std::uint64_t kAlignment = 64;             // torch.save's own
constexpr std::uint64_t kViewsOfTheFile = 4;         // how often tensors may share storages

/// Reads one archive; every complaint names it.
class ArchiveReader {
 public:
  explicit ArchiveReader(const std::filesystem::path& path)
      : source_("PyTorch archive '" + path.string() + "': "),
        file_(open(path)),
        zip_(file_, source_),
        folder_(find_folder()) {}

  TorchArchive read() {
    if (file_->size() <= kSmallFile) zip_.check_all();
    check_byte_order();
    TorchArchive archive;
    archive.root = read_pickle();
    archive.is_torchscript = zip_.contains(folder_ + "constants.pkl");
    if (archive.is_torchscript) archive.code = read_code();
    return archive;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { throw CheckpointError(source_ + what); }

  std::shared_ptr<const MappedFile> open(const std::filesystem::path& path) const {
    auto file = std::make_shared<const MappedFile>(path);
    if (kind_of(*file) != FileKind::kZip) {
      fail("it is no zip archive; it looks like " + looks_like(*file));
    }
    return file;
  }

  /// The folder within the archive that everything is in, with its slash.
  std::string find_folder() const {
    std::string folder;
    for (const auto& [name, entry] : zip_.entries()) {
      const std::string top = name.substr(0, name.find('/') + 1);
      if (top.empty() || (!folder.empty() && top != folder)) {
        fail("entry '" + name + "' is not in the one folder of a PyTorch archive" +
             (folder.empty() ? "" : ", '" + folder + "'"));
      }
      folder = top;
    }
    return folder;
  }

  void check_byte_order() const {
    const std::string name = folder_ + "byteorder";
    if (!zip_.contains(name)) return;  // older than the record
    const std::string order = zip_.checked(name, kMostByteOrder);
    if (order != "little")
      fail("it was written with byte order '" + order.substr(0, 16) + "', expected 'little'");
  }

  PickleValue read_pickle() {
    const std::string name = folder_ + "data.pkl";
    if (!zip_.contains(name))
      fail("it lacks the entry '" + name + "' (hint: is it a zip archive of something else?)");
    if (zip_.stored(name).size() > kMostPickle) {
      fail("entry '" + name + "' has " + std::to_string(zip_.stored(name).size()) +
           " bytes, expected at most " + std::to_string(kMostPickle));
    }
    const std::string pickle = zip_.checked(name, kMostPickle);
    const PickleSource source{pickle, [this](const std::string& key) { return find_storage(key); },
                              kViewsOfTheFile * file_->size()};
    try {
      return run_pickle(source);
    } catch (const PickleError& error) {
      fail("its pickle '" + name + "' " + error.what());
    }
  }

  /// The storage `key` in the mapped file, or once copied out of it if it is not aligned there.
  PickleStorage find_storage(const std::string& key) {
    if (const auto found = storages_.find(key); found != storages_.end()) return found->second;
    const std::string_view bytes = zip_.stored(folder_ + "data/" + key);
    PickleStorage storage{file_->bytes() + (bytes.data() - file_->bytes()), bytes.size(), file_,
                          std::nullopt};
    if (reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(std::max_align_t) != 0 && !bytes.empty()) {
      const std::shared_ptr<void> copy(
          ::operator new (bytes.size(), std::align_val_t{kAlignment}),
          [](void* memory) { ::operator delete (memory, std::align_val_t{kAlignment}); });
      std::memcpy(copy.get(), bytes.data(), bytes.size());
      storage.begin = static_cast<char*>(copy.get());
      storage.owner = copy;
    }
    storages_.emplace(key, storage);
    return storage;
  }

  std::string read_code() const {
    std::string code;
    for (const auto& [name, entry] : zip_.entries()) {
      if (!name.starts_with(folder_ + "code/") || !name.ends_with(".py")) continue;
      code += zip_.checked(name, kMostCode - code.size()) + "\n";
      if (code.size() >= kMostCode) fail("its code has more than " + std::to_string(kMostCode) + " bytes");
    }
    return code;
  }

  std::string source_;
  std::shared_ptr<const MappedFile> file_;
  ZipArchive zip_;
  std::string folder_;
  std::map<std::string, PickleStorage> storages_;
};

/// The longest name of a tensor.
constexpr std::size_t kLongestName = 512;

void add_nested(const PickleDict& dictionary, const std::string& prefix, const std::string& source,
                StateDict& tensors) {
  for (const auto& entry : dictionary) {
    if (!entry.key().isString()) continue;
    const std::string name = prefix + entry.key().toStringRef();
    if (name.size() > kLongestName) {
      throw CheckpointError(source + "a tensor or module in '" + prefix + "' has a name of " +
                            std::to_string(name.size()) + " bytes, expected at most " +
                            std::to_string(kLongestName));
    }
    if (entry.value().isGenericDict()) add_nested(entry.value().toGenericDict(), name + ".", source, tensors);
    if (entry.value().isTensor() && !tensors.emplace(name, entry.value().toTensor()).second)
      throw CheckpointError(source + "tensor '" + name + "' is there twice");
  }
}

}  // namespace

PickleDict new_pickle_dict() { return PickleDict(c10::StringType::get(), c10::AnyType::get()); }

TorchArchive read_torch_archive(const std::filesystem::path& path) { return ArchiveReader(path).read(); }

StateDict nested_tensors(const PickleDict& dictionary, const std::string& source) {
  StateDict tensors;
  add_nested(dictionary, "", source, tensors);
  return tensors;
}

void write_torch_pickle(const std::filesystem::path& path, const PickleValue& value) {
  std::string pickled;
  // LibTorch's pickle_save would add type tags, which torch.load(weights_only=True) refuses.
  torch::jit::Pickler pickler([&](const char* bytes, std::size_t size) { pickled.append(bytes, size); },
                              /*tensor_table=*/nullptr, /*type_renamer=*/nullptr,
                              /*memoized_class_types=*/nullptr,
                              /*get_tensor_id=*/nullptr, /*tag_aggregates=*/false);
  pickler.protocol();
  pickler.pushIValue(value);
  pickler.stop();

  std::string archive;
  caffe2::serialize::PyTorchStreamWriter writer([&](const void* bytes, std::size_t size) {
    archive.append(static_cast<const char*>(bytes), size);
    return size;
  });
  writer.writeRecord("data.pkl", pickled.data(), pickled.size());
  std::size_t index = 0;
  for (const at::Tensor& tensor : pickler.tensorData()) {
    writer.writeRecord("data/" + std::to_string(index++), tensor.data_ptr(), tensor.nbytes());
  }
  writer.writeEndOfFile();
  write_atomically(path, archive);
}

}  // namespace clip_lora::io
