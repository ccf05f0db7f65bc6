#pragma once

#include <ATen/core/ivalue.h>

#include <filesystem>
#include <string>

#include "clip_lora/io/state_dict.hpp"

namespace clip_lora::io {

/// A nest of dictionaries, lists, strings, numbers and tensors, as Python's `torch.save` and `torch.load`
/// know it.
using PickleValue = c10::IValue;
using PickleDict = c10::impl::GenericDict;

/// An empty dictionary with string keys.
PickleDict new_pickle_dict();

/// What a PyTorch zip archive holds.
struct TorchArchive {
  /// Dictionaries, lists, tuples, numbers, strings, None and tensors; an instance of a TorchScript class is
  /// the dictionary of its attributes. Tensors view the file's mapped pages, whatever device they were saved
  /// from.
  PickleValue root;
  bool is_torchscript = false;
  std::string code;  ///< the concatenated `code/…/*.py` of a TorchScript archive
};

/// Reads what torch.save (zip format, since PyTorch 1.6) or torch.jit.save wrote, with a restricted pickle
/// reader: a closed list of opcodes and globals, and nothing is ever called. Sizes are checked against the
/// file before memory is taken; of files up to 64 MiB the CRC-32 of every entry that is not compressed is
/// checked, of larger ones the pickle's (torch.load checks none). Dictionaries may have any simple keys.
/// Throws CheckpointError, naming the file, the entry or the global, what was expected and what is there.
/// Formats: PKWARE APPNOTE 6.3 (zip, zip64), Python's pickletools (protocols 2 to 5), torch/serialization.py.
TorchArchive read_torch_archive(const std::filesystem::path& path);

/// The tensors in nested dictionaries under dotted names. `source` begins the CheckpointError for a name of over 512 bytes
/// (a long one would be repeated for all that lies under it) or one that is there twice.
StateDict nested_tensors(const PickleDict& dictionary, const std::string& source);

/// Writes a PyTorch zip pickle that `torch.load(weights_only=True)` reads. Atomic. Tensors: CPU, contiguous.
/// Throws ConfigError if the path cannot be written.
void write_torch_pickle(const std::filesystem::path& path, const PickleValue& value);

}  // namespace clip_lora::io
