#include <gmock/gmock.h>
#include <torch/torch.h>

#include <cstdint>
#include <cstring>
#include <limits>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/safetensors.hpp"
#include "support/close.hpp"
#include "support/files.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"

namespace clip_lora::testing {
namespace {

using ::testing::HasSubstr;

/// A file by its format document: the header's length in 8 bytes, the header, the data.
std::string laid_out(const std::string& header, const std::string& data, std::uint64_t length) {
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  return bytes + header + data;
}

std::string laid_out(const std::string& header, const std::string& data) {
  return laid_out(header, data, header.size());
}

class SafetensorsFile : public ::testing::Test {
 protected:
  io::Safetensors read(const std::string& bytes) const {
    write_bytes(path_, bytes);
    return io::read_safetensors(path_);
  }
  /// The complaint about a file of `bytes`, which must name the file.
  std::string complaint(const std::string& bytes) const {
    auto message = message_of<CheckpointError>([&] { read(bytes); });
    EXPECT_THAT(message, HasSubstr("broken.safetensors"));
    return message;
  }
  /// The complaint about a one-tensor file with `entry` for tensor "weight" and 16 bytes of data.
  std::string complaint_about_entry(const std::string& entry) const {
    return complaint(laid_out(R"({"weight":)" + entry + "}", std::string(16, '\1')));
  }

  TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "broken.safetensors";
};

io::StateDict tensors_of_every_kind() {
  io::StateDict tensors;
  for (const auto type : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kShort,
                          at::kChar, at::kByte, at::kBool}) {
    for (const auto& shape : std::vector<std::vector<std::int64_t>>{{}, {0}, {3}, {2, 0, 4}, {2, 3, 5}}) {
      std::string name = c10::toString(type);
      for (const auto size : shape) name.append(".").append(std::to_string(size));
      tensors[name] = at::randint(0, 100, shape, at::kFloat).to(type);
    }
  }
  return tensors;
}

TEST_F(SafetensorsFile, ReadsBytesLaidOutByHand) {
  std::string data("\x01\x02\x03", 3);
  const float floats[] = {1.5F, -2.0F};
  data.append(reinterpret_cast<const char*>(floats), sizeof floats);
  const auto file = read(
      laid_out(R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,1],"data_offsets":[3,11]},)"
               R"("a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}   )",
               data));
  ASSERT_EQ(file.tensors.size(), 2U);
  EXPECT_TRUE(identical(file.tensors.at("a"), torch::tensor({1, 2, 3}, at::kByte)));
  EXPECT_TRUE(identical(file.tensors.at("b"), torch::tensor({1.5F, -2.0F}).view({2, 1})));
  EXPECT_EQ(file.metadata, (std::map<std::string, std::string>{{"format", "pt"}}));
}

TEST_F(SafetensorsFile, WrittenTensorsOfEveryTypeAndShapeComeBack) {
  const auto tensors = tensors_of_every_kind();
  io::write_safetensors(path_, tensors);
  const auto file = io::read_safetensors(path_);
  ASSERT_EQ(file.tensors.size(), tensors.size());
  for (const auto& [name, tensor] : tensors) EXPECT_TRUE(identical(file.tensors.at(name), tensor)) << name;
  EXPECT_TRUE(file.metadata.empty());
}

TEST_F(SafetensorsFile, AStridedViewIsWrittenAsItsValues) {
  const auto whole = at::arange(24, at::kFloat).view({4, 6});
  const auto view = whole.t().slice(0, 1, 6, 2);
  io::write_safetensors(path_, {{"view", view}});
  EXPECT_TRUE(identical(io::read_safetensors(path_).tensors.at("view"), view.contiguous()));
}

TEST_F(SafetensorsFile, MetadataAndNamesOfAnyUnicodeComeBack) {
  const std::map<std::string, std::string> metadata = {{"name", "Ünï \"quoted\"\n"}, {"empty", ""}};
  io::write_safetensors(path_, {{"гладь.0", at::ones({1})}}, metadata);
  const auto file = io::read_safetensors(path_);
  EXPECT_EQ(file.metadata, metadata);
  EXPECT_TRUE(file.tensors.contains("гладь.0"));
}

TEST_F(SafetensorsFile, AFileWithoutTensorsIsEmpty) { EXPECT_TRUE(read(laid_out("{}", "")).tensors.empty()); }

TEST_F(SafetensorsFile, ChangingALoadedTensorLeavesTheFileAlone) {
  io::write_safetensors(path_, {{"x", at::zeros({4})}});
  io::read_safetensors(path_).tensors.at("x").fill_(1.0);
  EXPECT_TRUE(identical(io::read_safetensors(path_).tensors.at("x"), at::zeros({4})));
}

TEST_F(SafetensorsFile, AMissingFileOrAFolderIsRefusedByName) {
  const auto missing =
      message_of<CheckpointError>([&] { io::read_safetensors(folder_ / "nowhere.safetensors"); });
  EXPECT_THAT(missing, HasSubstr("nowhere.safetensors"));
  const auto folder = message_of<CheckpointError>([&] { io::read_safetensors(folder_.path()); });
  EXPECT_THAT(folder, HasSubstr(folder_.path().string()));
}

TEST_F(SafetensorsFile, AnUnwritablePathIsAConfigError) {
  write_bytes(folder_ / "file", "");
  const auto path = folder_ / "file" / "inside.safetensors";
  EXPECT_THAT(message_of<ConfigError>([&] { io::write_safetensors(path, {}); }), HasSubstr("file"));
}

TEST_F(SafetensorsFile, TruncatedAnywhereIsRefused) {
  io::write_safetensors(path_, tensors_of_every_kind());
  const auto whole = read_bytes(path_);
  for (std::size_t part = 0; part < 64; ++part) complaint(whole.substr(0, whole.size() * part / 64));
  complaint(whole.substr(0, whole.size() - 1));
  complaint(whole + '\0');
}

TEST_F(SafetensorsFile, AFlippedByteOfTheHeaderIsRefusedOrHarmless) {
  io::write_safetensors(path_, {{"a", at::ones({2, 3})}, {"b", at::ones({4}, at::kLong)}}, {{"k", "v"}});
  const auto whole = read_bytes(path_);
  const auto header_end = whole.size() - 24 - 32;
  for (std::size_t at = 0; at < header_end; ++at) {
    for (const int flip : {0x01, 0x20, 0x80, 0xff}) {
      auto bytes = whole;
      bytes[at] = static_cast<char>(bytes[at] ^ flip);
      try {
        for (const auto& [name, tensor] : read(bytes).tensors) EXPECT_LE(tensor.nbytes(), 56U) << name;
      } catch (const CheckpointError&) {  // any other exception fails the test
      }
    }
  }
}

TEST_F(SafetensorsFile, AnImpossibleHeaderLengthIsRefused) {
  for (const auto length :
       {std::uint64_t{3}, std::uint64_t{1} << 31, std::uint64_t{1} << 63,
        std::numeric_limits<std::uint64_t>::max(), std::numeric_limits<std::uint64_t>::max() - 7}) {
    complaint(laid_out("{}", "", length));
  }
  complaint("");
}

TEST_F(SafetensorsFile, AHeaderThatIsNoJsonObjectIsRefused) {
  for (const std::string header : {"", "[]", "null", "3", "\"text\"", "{", "{\"a\"", "{\"a\":}", "not json",
                                   "{}{}", "{\"\xff\xfe\":1}", "{'a':1}"}) {
    complaint(laid_out(header, ""));
  }
  complaint(laid_out(std::string(200'000, '['), ""));
  std::string nested;
  for (int i = 0; i < 100'000; ++i) nested += "{\"a\":";
  complaint(laid_out(nested, ""));
}

TEST_F(SafetensorsFile, AnEntryWithoutItsThreeFieldsIsRefusedByName) {
  for (const std::string entry :
       {"3", "[]", "null", "{}", R"({"shape":[4],"data_offsets":[0,16]})",
        R"({"dtype":"F32","data_offsets":[0,16]})", R"({"dtype":"F32","shape":[4]})"}) {
    EXPECT_THAT(complaint_about_entry(entry), HasSubstr("weight"));
  }
}

TEST_F(SafetensorsFile, AnUnknownTypeIsRefusedByName) {
  for (const std::string type : {R"("F31")", R"("f32")", R"("")", "32", "null", R"(["F32"])"}) {
    const auto entry = R"({"dtype":)" + type + R"(,"shape":[4],"data_offsets":[0,16]})";
    EXPECT_THAT(complaint_about_entry(entry), HasSubstr("weight"));
  }
}

TEST_F(SafetensorsFile, AnImpossibleShapeIsRefusedByName) {
  for (const std::string shape :
       {"[-4]", "[4.0]", "[4.5]", "\"4\"", "[\"4\"]", "4", "null", "[[4]]", "[5]", "[3]", "[]", "[0]",
        "[9223372036854775807]", "[9223372036854775808]", "[18446744073709551616]", "[4294967296,4294967296]",
        "[4611686018427387905]", "[-1,-4]"}) {
    const auto entry = R"({"dtype":"F32","shape":)" + shape + R"(,"data_offsets":[0,16]})";
    EXPECT_THAT(complaint_about_entry(entry), HasSubstr("weight")) << shape;
  }
}

TEST_F(SafetensorsFile, AnEmptyTensorOfAbsurdSizesIsRefusedOrEmpty) {
  const std::string header =
      R"({"weight":{"dtype":"F32","shape":[0,4611686018427387904,4611686018427387904],"data_offsets":[0,0]}})";
  try {
    EXPECT_EQ(read(laid_out(header, "")).tensors.at("weight").numel(), 0);
  } catch (const CheckpointError& error) {
    EXPECT_THAT(error.what(), HasSubstr("weight"));
  }
}

TEST_F(SafetensorsFile, OffsetsThatLeaveTheFileAreRefusedByName) {
  for (const std::string offsets :
       {"[0,17]", "[1,17]", "[16,32]", "[8,4]", "[0,8]", "[-16,0]", "[0]", "[]", "[0,16,32]", "16",
        "[0,16.0]", "[0,\"16\"]", "[18446744073709551600,18446744073709551615]",
        "[18446744073709551615,15]"}) {
    const auto entry = R"({"dtype":"F32","shape":[4],"data_offsets":)" + offsets + "}";
    EXPECT_THAT(complaint_about_entry(entry), HasSubstr("weight")) << offsets;
  }
}

TEST_F(SafetensorsFile, TensorsThatOverlapOrLeaveAHoleAreRefused) {
  const auto two = [](const std::string& first, const std::string& second) {
    return laid_out(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + first +
                        R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + second + "}}",
                    std::string(8, '\1'));
  };
  EXPECT_EQ(read(two("[0,4]", "[4,8]")).tensors.size(), 2U);
  EXPECT_EQ(read(two("[4,8]", "[0,4]")).tensors.size(), 2U);
  complaint(two("[0,4]", "[0,4]"));
  complaint(two("[0,4]", "[2,6]"));
  complaint(two("[0,4]", "[3,7]"));
}

TEST_F(SafetensorsFile, ANameThatIsThereTwiceIsRefused) {
  EXPECT_THAT(complaint(laid_out(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                                 R"("a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
                                 std::string(8, '\1'))),
              HasSubstr("a"));
}

TEST_F(SafetensorsFile, MetadataThatIsNotTextByNameIsRefused) {
  for (const std::string metadata : {"3", "[]", "\"text\"", R"({"a":1})", R"({"a":{}})", R"({"a":null})"}) {
    EXPECT_THAT(complaint(laid_out(R"({"__metadata__":)" + metadata + "}", "")), HasSubstr("__metadata__"));
  }
}

}  // namespace
}  // namespace clip_lora::testing
