#include <gmock/gmock.h>
#include <torch/torch.h>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/torch_pickle.hpp"
#include "support/close.hpp"
#include "support/files.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"

namespace clip_lora::testing {
namespace {

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
  void expect_refused() const {
    EXPECT_THAT(message_of<CheckpointError>([&] { io::read_torch_pickle(path_); }), HasSubstr("values.pt"));
  }

  TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "values.pt";
  at::Tensor matrix_ = at::randn({3, 5});
};

TEST_F(TorchPickle, GivesBackWhatWasWritten) {
  write();
  const auto outer = io::read_torch_pickle(path_).toGenericDict();
  EXPECT_EQ(outer.size(), 4U);
  const auto inner = outer.at("inner").toGenericDict();
  EXPECT_TRUE(identical(inner.at("matrix").toTensor(), matrix_));
  EXPECT_TRUE(identical(inner.at("scalar").toTensor(), at::tensor(3)));
  EXPECT_EQ(outer.at("names").toListRef()[1].toStringRef(), "k");
  EXPECT_EQ(outer.at("rank").toInt(), 2);
  EXPECT_EQ(outer.at("alpha").toDouble(), 0.5);
}

TEST_F(TorchPickle, AMissingFileOrAFolderIsRefusedByName) {
  expect_refused();
  std::filesystem::create_directory(path_);
  expect_refused();
}

TEST_F(TorchPickle, TruncatedAnywhereIsRefused) {
  write();
  const auto whole = read_bytes(path_);
  for (std::size_t part = 0; part < 64; ++part) {
    write_bytes(path_, whole.substr(0, whole.size() * part / 64));
    expect_refused();
  }
}

TEST_F(TorchPickle, AFlippedByteIsRefusedOrHarmless) {
  write();
  const auto whole = read_bytes(path_);
  for (std::size_t at = 0; at < whole.size(); at += 1 + whole.size() / 512) {
    auto bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ 0xff);
    write_bytes(path_, bytes);
    try {
      io::read_torch_pickle(path_);
    } catch (const CheckpointError&) {  // any other exception fails the test
    }
  }
}

}  // namespace
}  // namespace clip_lora::testing
