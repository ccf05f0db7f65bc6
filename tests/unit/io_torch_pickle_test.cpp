#include <gmock/gmock.h>
#include <torch/torch.h>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/torch_pickle.hpp"
#include "support/archive_builder.hpp"
#include "support/close.hpp"
#include "support/files.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"

namespace clip_lora::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class TorchPickle : public ::testing::Test {
 protected:
  /// A file of nested dictionaries, a list, text, numbers and tensors.
  void write() const {
    auto inner = io::new_pickle_dict();
    inner.insert("matrix", matrix_);
    inner.insert("scalar", at::tensor(3));
    auto outer = io::new_pickle_dict();
    outer.insert("inner", inner);
    outer.insert("names", c10::List<std::string>({"q", "k"}));
    outer.insert("rank", std::int64_t{2});
    outer.insert("alpha", 0.5);
    io::write_torch_pickle(path_, outer);
  }
  io::PickleDict read() const { return io::read_torch_archive(path_).root.toGenericDict(); }

  void expect_what_was_written() const {
    const auto outer = read();
    EXPECT_EQ(outer.size(), 4U);
    const auto inner = outer.at("inner").toGenericDict();
    EXPECT_TRUE(identical(inner.at("matrix").toTensor(), matrix_));
    EXPECT_TRUE(identical(inner.at("scalar").toTensor(), at::tensor(3)));
    EXPECT_EQ(outer.at("names").toListRef()[1].toStringRef(), "k");
    EXPECT_EQ(outer.at("rank").toInt(), 2);
    EXPECT_EQ(outer.at("alpha").toDouble(), 0.5);
  }
  std::string complaint() const {
    auto message = message_of<CheckpointError>([&] { io::read_torch_archive(path_); });
    EXPECT_THAT(message, HasSubstr("values.pt"));
    return message;
  }

  /// The value of a pickle made by hand, with storages of four floats: 0, 1, 2, 3.
  io::PickleValue value_of(const std::string& body) const {
    write_bytes(path_, build_zip(torch_parts(pickle::whole(body), {four_floats_, four_floats_})));
    return io::read_torch_archive(path_).root;
  }
  std::string complaint_about(const std::string& body) const {
    write_bytes(path_, build_zip(torch_parts(pickle::whole(body), {four_floats_, four_floats_})));
    return complaint();
  }

  TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "values.pt";
  at::Tensor matrix_ = at::randn({3, 5});
  std::string four_floats_ =
      little_endian(0.0F) + little_endian(1.0F) + little_endian(2.0F) + little_endian(3.0F);
};

TEST_F(TorchPickle, GivesBackWhatWasWritten) {
  write();
  expect_what_was_written();
}

TEST_F(TorchPickle, ChangingALoadedTensorLeavesTheFileAlone) {
  write();
  read().at("inner").toGenericDict().at("matrix").toTensor().zero_();
  expect_what_was_written();
}

TEST_F(TorchPickle, AFileWithoutItsLastByteOrWithOneMoreIsRefused) {
  write();
  const auto whole = read_bytes(path_);
  write_bytes(path_, whole.substr(0, whole.size() - 1));
  EXPECT_THAT(complaint(), HasSubstr("truncated"));
  write_bytes(path_, whole + '\0');
  complaint();
}

TEST_F(TorchPickle, TruncatedAnywhereIsRefused) {
  write();
  const auto whole = read_bytes(path_);
  for (std::size_t part = 0; part < 64; ++part) {
    write_bytes(path_, whole.substr(0, whole.size() * part / 64));
    complaint();
  }
}

TEST_F(TorchPickle, AFlippedByteAnywhereIsRefusedOrInNoValue) {
  write();
  const auto whole = read_bytes(path_);
  int refused = 0;
  for (std::size_t at = 0; at < whole.size(); ++at) {
    auto bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ 0xff);
    write_bytes(path_, bytes);
    try {
      expect_what_was_written();  // the byte was padding, or a date
    } catch (const CheckpointError&) {
      ++refused;  // any other exception fails the test
    }
  }
  EXPECT_GT(refused, static_cast<int>(whole.size() / 4));
}

TEST_F(TorchPickle, AMissingFileOrOneOfAnotherKindIsRefusedByName) {
  complaint();
  write_bytes(path_, "<!DOCTYPE html><html>Not found</html>");
  EXPECT_THAT(complaint(), HasSubstr("web page"));
}

TEST_F(TorchPickle, ViewsOfOneStorageShareItsBytes) {
  const auto shared = pickle::storage("0", 4);
  const auto values = value_of(pickle::dict({{"rows", pickle::view(shared, 0, {2, 2}, {2, 1})},
                                             {"columns", pickle::view(shared, 0, {2, 2}, {1, 2})},
                                             {"last", pickle::view(shared, 2, {2}, {1})}}))
                          .toGenericDict();
  EXPECT_TRUE(identical(values.at("rows").toTensor(), torch::tensor({{0.0F, 1.0F}, {2.0F, 3.0F}})));
  EXPECT_TRUE(identical(values.at("columns").toTensor(), torch::tensor({{0.0F, 2.0F}, {1.0F, 3.0F}})));
  values.at("last").toTensor().fill_(7.0);
  EXPECT_EQ(values.at("rows").toTensor()[1][1].item<float>(), 7.0F);
}

TEST_F(TorchPickle, AnUntypedStorageTakesItsTypeFromTheTensor) {
  const auto bytes =
      pickle::tuple(pickle::text("storage") + pickle::global("torch.storage", "UntypedStorage") +
                    pickle::text("0") + pickle::text("cpu") + pickle::integer(16)) +
      "Q";
  const auto tensor =
      value_of(pickle::global("torch._utils", "_rebuild_tensor_v3") +
               pickle::tuple(bytes + pickle::integer(1) + pickle::integers({3}) + pickle::integers({1}) +
                             "\x89N" + pickle::global("torch", "float32")) +
               "R");
  EXPECT_TRUE(identical(tensor.toTensor(), torch::tensor({1.0F, 2.0F, 3.0F})));
}

TEST_F(TorchPickle, UnalignedStoragesAreCopied) {
  auto parts = torch_parts(pickle::whole(pickle::view(pickle::storage("0", 4), 0, {4}, {1})), {four_floats_});
  for (int shift = 0; shift < 4; ++shift) {  // entries of one more byte each, without the padding that aligns
    std::string packed;
    std::string list;
    for (const auto& part : parts) {
      const auto local = packed.size();
      packed +=
          "PK\3\4" + le16(20) + zip_fields(part) + le16(part.name.size()) + le16(0) + part.name + part.bytes;
      list += "PK\1\2" + le16(20) + le16(20) + zip_fields(part) + le16(part.name.size()) +
              std::string(12, '\0') + le32(local) + part.name;
    }
    write_bytes(path_, packed + list + "PK\5\6" + le32(0) + le16(parts.size()) + le16(parts.size()) +
                           le32(list.size()) + le32(packed.size()) + le16(0));
    EXPECT_TRUE(
        identical(io::read_torch_archive(path_).root.toTensor(), torch::tensor({0.0F, 1.0F, 2.0F, 3.0F})));
    parts[1].name += "x";
  }
}

TEST_F(TorchPickle, KeysMayBeNumbers) {
  const auto values =
      value_of("}(" + pickle::integer(7) + pickle::text("seven") + pickle::text("a") + "Nu").toGenericDict();
  EXPECT_EQ(values.at(std::int64_t{7}).toStringRef(), "seven");
  EXPECT_TRUE(values.at("a").isNone());
}

TEST_F(TorchPickle, AnInstanceOfATorchScriptClassIsTheDictionaryOfItsAttributes) {
  const auto values =
      value_of(pickle::instance("Model", pickle::dict({{"a", pickle::integer(-3)}}))).toGenericDict();
  EXPECT_EQ(values.at("a").toInt(), -3);
}

TEST_F(TorchPickle, AForbiddenGlobalIsNamedAndNothingIsCalled) {
  const auto marker = folder_ / "it_ran";
  for (const auto& [module, name] :
       std::vector<std::pair<std::string, std::string>>{{"os", "system"},
                                                        {"posix", "system"},
                                                        {"builtins", "eval"},
                                                        {"__builtin__", "exec"},
                                                        {"torch", "load"},
                                                        {"torch.hub", "load"},
                                                        {"collections", "defaultdict"},
                                                        {"torch._utils", "_rebuild_sparse_tensor"},
                                                        {"torch", "FloatStorage2"},
                                                        {"", ""}}) {
    const auto call =
        pickle::global(module, name) + pickle::tuple(pickle::text("touch " + marker.string())) + "R";
    EXPECT_THAT(complaint_about(call), HasSubstr("'" + module + "." + name + "'"));
  }
  EXPECT_FALSE(std::filesystem::exists(marker));
}

TEST_F(TorchPickle, ATensorThatLeavesItsStorageIsRefused) {
  constexpr std::int64_t kHuge = std::int64_t{1} << 62;
  const auto storage = pickle::storage("0", 4);
  const auto refused = [&](std::int64_t offset, const std::vector<std::int64_t>& sizes,
                           const std::vector<std::int64_t>& strides) {
    EXPECT_THAT(complaint_about(pickle::view(storage, offset, sizes, strides)), HasSubstr("tensor"));
  };
  refused(0, {5}, {1});
  refused(1, {4}, {1});
  refused(-1, {1}, {1});
  refused(0, {-4}, {1});
  refused(0, {2}, {4});
  refused(3, {2}, {-1});
  refused(0, {2, 2}, {1});
  refused(0, {kHuge, kHuge}, {1, 1});
  refused(0, {kHuge}, {0});  // an expanded view: any amount of memory once it is written out
  refused(0, {0, kHuge, kHuge}, {1, 1, 1});
  refused(kHuge, {2}, {kHuge});
  refused(0, std::vector<std::int64_t>(65, 1), std::vector<std::int64_t>(65, 1));
}

TEST_F(TorchPickle, AStorageThatIsNotItsEntryIsRefused) {
  for (const auto& storage :
       {pickle::storage("0", 3), pickle::storage("0", 5), pickle::storage("0", -4), pickle::storage("9", 4),
        pickle::storage("../data.pkl", 4), pickle::storage("0", 4, "DoubleStorage")}) {
    complaint_about(pickle::view(storage, 0, {1}, {1}));
  }
}

TEST_F(TorchPickle, BombsAreRefused) {
  EXPECT_THAT(complaint_about(std::string(1000, ']') + std::string(999, 'a')), HasSubstr("nested deeper"));
  EXPECT_THAT(complaint_about("]q" + std::string(1, '\0') + "h" + std::string(1, '\0') + "a"),
              HasSubstr("in itself"));
  std::string doubling = "]";  // each list holds the one before twice
  for (char i = 0; i < 60; ++i) doubling = doubling + "q" + i + "0](h" + i + "h" + i + "e";
  EXPECT_THAT(complaint_about(doubling), HasSubstr("too often"));
  std::string tuples = ")";
  for (char i = 0; i < 60; ++i) tuples = tuples + "q" + i + "h" + i + "\x86";
  EXPECT_THAT(complaint_about(tuples), HasSubstr("too often"));
  EXPECT_THAT(complaint_about("](" + std::string(1'500'000, 'N') + "e"), HasSubstr("more than"));
  std::string memo = "N";  // one value, put away again and again
  for (std::uint64_t i = 0; i < 1'100'000; ++i) memo += "r" + le32(i);
  EXPECT_THAT(complaint_about(memo), HasSubstr("more than"));
  EXPECT_THAT(complaint_about("X\xff\xff\xff\x7f"), HasSubstr("cut off"));
  EXPECT_THAT(complaint_about("\x8a\xff" + std::string(255, '\1')), HasSubstr("integer"));
}

TEST_F(TorchPickle, ADictionaryWithAKeyTwiceIsRefusedByName) {
  EXPECT_THAT(complaint_about(pickle::dict({{"a", "N"}, {"a", "N"}})),
              AllOf(HasSubstr("'a'"), HasSubstr("twice")));
}

TEST_F(TorchPickle, AnArchiveOfTheOtherByteOrderIsRefused) {
  auto parts = torch_parts(pickle::whole("N"), {});
  parts[1].bytes = "big";
  write_bytes(path_, build_zip(parts));
  EXPECT_THAT(complaint(), HasSubstr("'big'"));
}

TEST_F(TorchPickle, CompressedCodeOfTorchScriptIsUnpacked) {
  const std::string code = "def forward(self):\n" + std::string(500, ' ') + "return torch.gelu(x)\n";
  auto parts = torch_parts(pickle::whole(pickle::instance("Model", "}")), {});
  parts.push_back({"archive/constants.pkl", pickle::whole(")")});
  parts.push_back({"archive/code/__torch__.py", deflate(code), 8});
  parts.back().size = static_cast<std::int64_t>(code.size());
  parts.back().crc = zlib_crc(code);
  write_bytes(path_, build_zip(parts));
  const auto read = io::read_torch_archive(path_);
  EXPECT_TRUE(read.is_torchscript);
  EXPECT_EQ(read.code, code + "\n");
}

}  // namespace
}  // namespace clip_lora::testing
