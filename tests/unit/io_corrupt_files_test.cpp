#include <gmock/gmock.h>
#include <sys/resource.h>
#include <torch/torch.h>

#include <functional>
#include <iostream>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/checkpoint_files.hpp"
#include "clip_lora/io/safetensors.hpp"
#include "clip_lora/io/torch_pickle.hpp"
#include "support/archive_builder.hpp"
#include "support/close.hpp"
#include "support/files.hpp"
#include "support/temporary_folder.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using Parts = std::vector<ZipPart>;

/// What may become of a damaged file.
enum class Damage {
  kFatal,     ///< it must be refused
  kPerhaps,   ///< or, where nothing that counts was hit, give the very same tensors
  kArbitrary  ///< or give other tensors, if a name or a value is what was hit; but no larger ones
};

#ifdef __SANITIZE_THREAD__
constexpr long kMostKib = 8 << 20;  // the sanitizer keeps several bytes for each
#else
constexpr long kMostKib = 2 << 20;
#endif

/// Counts what is tried; every file goes through read_checkpoint_files.
class CorruptFiles : public ::testing::Test {
 protected:
  void TearDown() override {
    std::cout << "[ files tried ] " << tried_ << ", refused " << refused_ << "\n";
    RecordProperty("files_tried", tried_);
    struct rusage usage {};
    ::getrusage(RUSAGE_SELF, &usage);
    // LibTorch itself takes some 300 MiB, the largest bombs less; none may take what it claims to hold.
    EXPECT_LT(usage.ru_maxrss, kMostKib) << "KiB at the highest";
  }

  io::StateDict tensors() const {
    return {{"bias", torch::arange(3, at::kHalf)}, {"weight", torch::arange(6, at::kFloat).view({2, 3})}};
  }

  std::string safetensors() const {
    io::write_safetensors(folder_ / "whole.safetensors", tensors(), {{"format", "pt"}});
    return read_bytes(folder_ / "whole.safetensors");
  }
  /// As LibTorch's own writer lays it out, with zip64 records.
  std::string torch_zip() const {
    auto dict = io::new_pickle_dict();
    for (const auto& [name, tensor] : tensors()) dict.insert(name, tensor);
    io::write_torch_pickle(folder_ / "whole.pt", dict);
    return read_bytes(folder_ / "whole.pt");
  }
  std::vector<std::string> storages() const {
    std::vector<std::string> bytes;
    for (const auto& [name, tensor] : tensors())
      bytes.emplace_back(static_cast<const char*>(tensor.data_ptr()), tensor.nbytes());
    return bytes;
  }
  std::string members() const {
    return pickle::dict({{"bias", pickle::view(pickle::storage("0", 3, "HalfStorage"), 0, {3}, {1})},
                         {"weight", pickle::view(pickle::storage("1", 6), 0, {2, 3}, {3, 1})}});
  }
  Parts parts_of(const std::string& body) const { return torch_parts(pickle::whole(body), storages()); }
  Parts script_parts() const {
    auto parts = parts_of(pickle::instance("Model", members()));
    parts.push_back({"archive/constants.pkl", pickle::whole(")")});
    const std::string code = "def forward(self):" + std::string(200, ' ') + "pass\n";
    parts.push_back({"archive/code/__torch__.py", deflate(code), 8});
    parts.back().size = static_cast<std::int64_t>(code.size());
    parts.back().crc = zlib_crc(code);
    return parts;
  }

  /// Reads `path`, which `what` describes.
  void expect(Damage damage, const std::string& what, const fs::path& path) {
    ++tried_;
    try {
      const auto files = io::read_checkpoint_files(path);
      if (damage == Damage::kFatal) ADD_FAILURE() << what << " was read";
      if (damage == Damage::kPerhaps) expect_whole(files.tensors, what);
      for (const auto& [name, tensor] : files.tensors) EXPECT_LE(tensor.numel(), 12) << what;
    } catch (const CheckpointError& error) {
      ++refused_;
      EXPECT_THAT(error.what(), ::testing::HasSubstr(folder_.path().string())) << what;
    } catch (const std::exception& error) {
      ADD_FAILURE() << what << " made something else than a CheckpointError: " << error.what();
    }
  }
  void try_bytes(Damage damage, const std::string& what, const std::string& bytes) {
    const auto path = folder_ / "broken.bin";
    write_bytes(path, bytes);
    expect(damage, what, path);
  }
  void try_pickle(Damage damage, const std::string& what, const std::string& body) {
    try_bytes(damage, what, build_zip(parts_of(body)));
  }
  void try_truncations(const std::string& what, const std::string& whole) {
    for (std::size_t part = 0; part < 64; ++part) {
      try_bytes(Damage::kFatal, what + " cut to " + std::to_string(part) + "/64",
                whole.substr(0, whole.size() * part / 64));
    }
    try_bytes(Damage::kFatal, what + " without its last byte", whole.substr(0, whole.size() - 1));
  }
  void try_flips(Damage damage, const std::string& what, const std::string& whole, std::size_t end) {
    for (std::size_t at = 0; at < end; ++at) {
      for (const int flip : {0x01, 0x80, 0xff}) {
        auto bytes = whole;
        bytes[at] = static_cast<char>(bytes[at] ^ flip);
        try_bytes(damage, what + " with byte " + std::to_string(at) + " xor " + std::to_string(flip), bytes);
      }
    }
  }
  void expect_whole(const io::StateDict& found, const std::string& what) const {
    EXPECT_EQ(found.size(), tensors().size()) << what;
    for (const auto& [name, tensor] : tensors()) {
      ASSERT_TRUE(found.contains(name)) << what;
      EXPECT_TRUE(identical(found.at(name), tensor)) << what;
    }
  }

  TemporaryFolder folder_;
  int tried_ = 0;
  int refused_ = 0;
};

TEST_F(CorruptFiles, WholeOnesAreRead) {
  const std::vector<std::string> all = {safetensors(), torch_zip(), build_zip(parts_of(members())),
                                        build_zip(script_parts())};
  for (const auto& bytes : all) {
    write_bytes(folder_ / "whole", bytes);
    expect_whole(io::read_checkpoint_files(folder_ / "whole").tensors, "a whole file");
  }
}

TEST_F(CorruptFiles, TruncatedOnesAreRefused) {
  try_truncations("safetensors", safetensors());
  try_truncations("torch zip", torch_zip());
  try_truncations("hand-made zip", build_zip(parts_of(members())));
  try_truncations("TorchScript", build_zip(script_parts()));
}

TEST_F(CorruptFiles, AFlippedByteIsRefusedOrChangesNothing) {
  const auto zip = torch_zip();
  try_flips(Damage::kPerhaps, "torch zip", zip, zip.size());
  const auto script = build_zip(script_parts());
  try_flips(Damage::kPerhaps, "TorchScript", script, script.size());
  const auto file = safetensors();
  std::uint64_t header = 0;
  std::memcpy(&header, file.data(), sizeof header);
  try_flips(Damage::kFatal, "safetensors' length", file, 7);
  try_flips(Damage::kArbitrary, "safetensors' header", file, 8 + header);
}

TEST_F(CorruptFiles, AnyByteInAPickleOfRightChecksumIsHarmless) {
  const std::string body = members();
  for (std::size_t at = 0; at < body.size(); ++at) {
    try_pickle(Damage::kFatal, "a pickle cut at " + std::to_string(at), body.substr(0, at));
    for (const int flip : {0x01, 0x02, 0x20, 0xff}) {
      auto bytes = body;
      bytes[at] = static_cast<char>(bytes[at] ^ flip);
      try_pickle(Damage::kArbitrary,
                 "a pickle with byte " + std::to_string(at) + " xor " + std::to_string(flip), bytes);
    }
  }
  for (int opcode = 0; opcode < 256; ++opcode) {
    const std::string code(1, static_cast<char>(opcode));
    for (const std::string& around :
         {std::string(), std::string("}("), std::string("NNN"), std::string(")]")}) {
      try_pickle(Damage::kFatal, "opcode " + std::to_string(opcode) + " after '" + around + "'",
                 around + code);
    }
  }
}

TEST_F(CorruptFiles, HeadersOfSafetensorsThatLieAreRefused) {
  const std::string data(16, '\1');
  const auto laid_out = [&](const std::string& header) {
    return little_endian(std::uint64_t{header.size()}) + header + data;
  };
  for (const auto length :
       {std::uint64_t{1} << 63, ~std::uint64_t{0}, std::uint64_t{1} << 32, std::uint64_t{17}}) {
    try_bytes(Damage::kFatal, "header length " + std::to_string(length), little_endian(length) + "{}" + data);
  }
  const std::string good = R"("dtype":"F32","shape":[4],"data_offsets":[0,16])";
  const auto with = [&](const std::string& from, const std::string& to) {
    auto text = good;
    return R"({"w":{)" + text.replace(text.find(from), from.size(), to) + "}}";
  };
  for (const std::string shape : {"[-4]", "[9223372036854775807]", "[4294967296,4294967296]", "\"4\"",
                                  "[[4]]", "[4.0]", "{}", "[5]", "[]"}) {
    try_bytes(Damage::kFatal, "shape " + shape, laid_out(with("[4]", shape)));
  }
  for (const std::string type : {"\"F33\"", "\"f32\"", "32", "null", "[\"F32\"]", "\"torch.float32\""}) {
    try_bytes(Damage::kFatal, "dtype " + type, laid_out(with("\"F32\"", type)));
  }
  for (const std::string offsets :
       {"[0,17]", "[16,0]", "[-16,0]", "[0,9223372036854775808]", "[0]", "{}", "[8,24]", "[4,16]"}) {
    try_bytes(Damage::kFatal, "offsets " + offsets, laid_out(with("[0,16]", offsets)));
  }
  try_bytes(Damage::kFatal, "a name twice", laid_out(R"({"w":{)" + good + R"(},"w":{)" + good + "}}"));
  try_bytes(Damage::kFatal, "a field twice", laid_out(R"({"w":{"dtype":"U8",)" + good + "}}"));
  try_bytes(Damage::kFatal, "an overlap", laid_out(R"({"v":{)" + good + R"(},"w":{)" + good + "}}"));
  try_bytes(Damage::kFatal, "a hole", laid_out(R"({"w":{"dtype":"U8","shape":[4],"data_offsets":[12,16]}})"));
  try_bytes(Damage::kFatal, "a deep shape",
            laid_out(with("[4]", std::string(100'000, '[') + std::string(100'000, ']'))));
  std::string axes = "[4";
  for (int i = 0; i < 100'000; ++i) axes += ",1";
  try_bytes(Damage::kFatal, "a shape of 100,001 axes", laid_out(with("[4]", axes + "]")));
}

TEST_F(CorruptFiles, PicklesThatLieAreRefused) {
  const std::string forbidden = pickle::tuple(pickle::text("true")) + "R";
  for (const char* module :
       {"os", "posix", "subprocess", "builtins", "__builtin__", "sys", "torch.hub", "numpy", "runpy"}) {
    try_pickle(Damage::kFatal, std::string("forbidden ") + module,
               pickle::global(module, "system") + forbidden);
    try_pickle(Damage::kFatal, "the same by name",
               pickle::text(module) + pickle::text("system") + "\x93" + forbidden);
  }
  try_pickle(Damage::kFatal, "an endless global", "c" + std::string(100'000, 'x'));
  for (const std::string& bomb :
       {std::string(100'000, '('), std::string(100'000, ')'), std::string(5'000'000, ']'),
        std::string(5'000'000, 'N'), "(" + std::string(2'000'000, '}') + "t",
        std::string(100'000, ']') + std::string(99'999, 'a'), ")" + std::string(100'000, '\x85'),
        std::string("X\xff\xff\xff\xff"), "\x8d" + std::string(8, '\xff'), "\x8e" + std::string(8, '\x7f'),
        std::string("\x8b\xff\xff\xff\x7f"), "r" + le32(0xffffffff),
        "Nr" + le32(0xffffffff) + "0j" + le32(0xfffffffe)}) {
    try_pickle(Damage::kFatal, "a bomb of " + std::to_string(bomb.size()) + " bytes", bomb);
  }
  std::string copies = "(";  // a tuple of many values, made into a list's part again and again
  for (int i = 0; i < 200'000; ++i) copies += 'N';
  copies += "tq" + std::string(1, '\1') + "0(";
  for (int i = 0; i < 200'000; ++i) copies += "]h\1a";
  try_pickle(Damage::kFatal, "many copies of a tuple", copies + "t");
  std::string states = "}(";  // the attributes of one instance, given to many
  for (int i = 0; i < 50'000; ++i) states += pickle::integer(i) + "N";
  states += "uq" + std::string(1, '\1') + "0" + pickle::global("__torch__", "M") +
            "q\2"
            "0(";
  for (int i = 0; i < 100'000; ++i) states += "h\2)\x81h\1b";
  try_pickle(Damage::kFatal, "many instances of one state", states + "t");
  std::string views = "}(";  // tensors that share one storage more often than can be meant
  for (int i = 0; i < 3000; ++i)
    views += pickle::integer(i) + pickle::view(pickle::storage("1", 6), 0, {6}, {1});
  try_pickle(Damage::kFatal, "numbers as names of tensors", views + "u");
  for (const char* root : {"N", "]", ")", "K\1", "}", "U\1a"}) {
    try_pickle(Damage::kFatal, "a root that is no dictionary of tensors", root);
  }
  for (const std::string& id :
       {std::string("N"), std::string(")"), pickle::tuple(pickle::text("storage")),
        pickle::tuple(pickle::text("x") + "NNNN"), pickle::tuple(pickle::text("storage") + "NNNN"),
        pickle::tuple(pickle::text("storage") + pickle::global("collections", "OrderedDict") + "NNN")}) {
    try_pickle(Damage::kFatal, "a persistent id", id + "Q");
  }
}

TEST_F(CorruptFiles, ArchivesThatLieAreRefused) {
  const Parts good = parts_of(members());
  const auto try_changed = [&](const std::string& what, const std::function<void(Parts&)>& change) {
    for (const Parts& whole : {good, script_parts()}) {
      auto parts = whole;
      change(parts);
      try_bytes(Damage::kFatal, what, build_zip(parts));
    }
  };
  for (std::size_t at = 0; at < good.size(); ++at) {
    try_changed("a compressed entry", [&](Parts& parts) {
      parts[at].size = static_cast<std::int64_t>(parts[at].bytes.size());
      parts[at].crc = zlib_crc(parts[at].bytes);
      parts[at].bytes = deflate(parts[at].bytes);
      parts[at].method = 8;
    });
    for (const int method : {1, 9, 12, 14, 93, 99}) {
      try_changed("method " + std::to_string(method),
                  [&](Parts& parts) { parts[at].method = static_cast<std::uint16_t>(method); });
    }
    try_changed("an encrypted entry", [&](Parts& parts) { parts[at].flags |= 1; });
    try_changed("a duplicate", [&](Parts& parts) { parts.push_back(parts[at]); });
    try_changed("a wrong checksum", [&](Parts& parts) { parts[at].crc = 1; });
    try_changed("another name in the list", [&](Parts& parts) { parts[at].list_name = "archive/x"; });
    for (const std::int64_t size : {0, 1, 1 << 30, 0x7fffffff}) {
      try_changed("size " + std::to_string(size), [&](Parts& parts) {
        parts[at].size = size + (parts[at].bytes.size() == static_cast<std::size_t>(size) ? 1 : 0);
      });
    }
    for (const std::int64_t local : {std::int64_t{at == 0 ? 1 : 0}, std::int64_t{1} << 20,
                                     std::int64_t{0xfffffffe}, std::int64_t{0xffffffff}}) {
      try_changed("an entry at " + std::to_string(local), [&](Parts& parts) { parts[at].local = local; });
    }
  }
  try_changed("no pickle", [](Parts& parts) { parts.erase(parts.begin()); });
  try_changed("no storage", [](Parts& parts) { parts.erase(parts.begin() + 2); });
  try_changed("big-endian", [](Parts& parts) { parts[1].bytes = "big"; });
  try_changed("two folders", [](Parts& parts) { parts.push_back({"other/data.pkl", "x"}); });
  try_changed("no folder", [](Parts& parts) { parts.push_back({"data.pkl", "x"}); });
  try_bytes(Damage::kFatal, "nothing", build_zip({}));
  try_bytes(Damage::kFatal, "a comment", build_zip(good, "hello"));
  try_bytes(Damage::kFatal, "something in front", "PK\3\4" + build_zip(good));
  try_bytes(Damage::kFatal, "something behind", build_zip(good) + "x");
  try_bytes(Damage::kFatal, "two archives", build_zip(good) + build_zip(good));
  auto long_names = parts_of(pickle::instance(
      "Model", pickle::dict({{std::string(1000, 'm'), pickle::instance("Inner", members())}})));
  long_names.push_back({"archive/constants.pkl", pickle::whole(")")});
  try_bytes(Damage::kFatal, "a module whose name all its tensors would have", build_zip(long_names));
  auto bomb = script_parts();
  const std::string zeros(40 << 20, ' ');
  for (int i = 0; i < 3; ++i) {
    bomb.push_back({"archive/code/" + std::to_string(i) + ".py", deflate(zeros), 8});
    bomb.back().size = static_cast<std::int64_t>(zeros.size());
    bomb.back().crc = zlib_crc(zeros);
  }
  try_bytes(Damage::kFatal, "code that unpacks to 120 MiB", build_zip(bomb));
}

TEST_F(CorruptFiles, ShardsAndFoldersThatLieAreRefused) {
  io::write_safetensors(folder_ / "a.safetensors", {{"bias", tensors().at("bias")}});
  io::write_safetensors(folder_ / "b.safetensors", {{"weight", tensors().at("weight")}});
  const auto index = folder_ / "model.safetensors.index.json";
  const auto try_index = [&](Damage damage, const std::string& text) {
    write_bytes(index, text);
    expect(damage, "index " + text.substr(0, 100), index);
    expect(damage, "a folder with the index " + text.substr(0, 100), folder_.path());
  };
  const std::string whole =
      R"({"metadata":{},"weight_map":{"bias":"a.safetensors","weight":"b.safetensors"}})";
  write_bytes(index, whole);
  expect_whole(io::read_checkpoint_files(folder_.path()).tensors, "whole shards");
  for (std::size_t part = 0; part < 64; ++part)
    try_index(Damage::kFatal, whole.substr(0, whole.size() * part / 64));
  for (std::size_t at = 0; at < whole.size(); ++at) {
    auto bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ 0x01);
    try_index(Damage::kPerhaps, bytes);
  }
  for (const std::string shard :
       {"\"../../etc/passwd\"", "\"/etc/passwd\"", "\"sub/a.safetensors\"", "\"..\"", "\".\"", "\"\"", "3",
        "null", "[]", "\"nowhere.safetensors\"", "\"b.safetensors\"", "\"a.safetensors\\u0000\"",
        "\"model.safetensors.index.json\""}) {
    try_index(Damage::kFatal, R"({"weight_map":{"bias":)" + shard + R"(,"weight":"b.safetensors"}})");
  }
  for (const std::string text :
       {"[]", "3", "null", "{}", R"({"weight_map":[]})", R"({"weight_map":{}})",
        R"({"weight_map":"a.safetensors"})", R"({"weight_map":{"bias":"a.safetensors"},"weight_map":{}})",
        R"({"weight_map":{"weight":"b.safetensors","bias":"a.safetensors","x":"a.safetensors"}})"}) {
    try_index(Damage::kFatal, text);
  }
  write_bytes(index, whole);
  for (const char* document : {"config.json", "preprocessor_config.json", "open_clip_config.json"}) {
    for (const std::string& text :
         {std::string(), std::string("[]"), std::string("{"), std::string("\"x\""),
          std::string("{\"a\":1,\"a\":2}"),
          "{\"a\":" + std::string(1'000'000, '[') + std::string(1'000'000, ']') + "}",
          std::string("\x80\x02}.")}) {
      write_bytes(folder_ / document, text);
      expect(Damage::kFatal, std::string(document) + " of " + text.substr(0, 50), folder_.path());
    }
    fs::remove(folder_ / document);
  }
  const auto shard = read_bytes(folder_ / "a.safetensors");
  for (std::size_t part = 0; part < 64; ++part) {
    write_bytes(folder_ / "a.safetensors", shard.substr(0, shard.size() * part / 64));
    expect(Damage::kFatal, "a shard cut to " + std::to_string(part) + "/64", folder_.path());
  }
  fs::remove(index);
  expect(Damage::kFatal, "a folder without weights", folder_.path());
  fs::create_directory(folder_ / "model.safetensors");
  expect(Damage::kFatal, "a folder for weights", folder_.path());
}

}  // namespace
}  // namespace clip_lora::testing
