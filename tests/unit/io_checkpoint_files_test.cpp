#include <gmock/gmock.h>
#include <torch/torch.h>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/checkpoint_files.hpp"
#include "clip_lora/io/safetensors.hpp"
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

class CheckpointFiles : public ::testing::Test {
 protected:
  std::string complaint(const std::filesystem::path& path) const {
    return message_of<CheckpointError>([&] { io::read_checkpoint_files(path); });
  }
  std::string complaint_about(const std::string& bytes) const {
    write_bytes(folder_ / "file.pt", bytes);
    return complaint(folder_ / "file.pt");
  }
  void expect_tensors(const io::CheckpointFiles& files) const {
    ASSERT_EQ(files.tensors.size(), 2U);
    EXPECT_TRUE(identical(files.tensors.at("a.weight"), weight_));
    EXPECT_TRUE(identical(files.tensors.at("b"), bias_));
  }
  io::PickleDict state_dict(const std::string& prefix = "") const {
    auto dict = io::new_pickle_dict();
    dict.insert(prefix + "a.weight", weight_);
    dict.insert(prefix + "b", bias_);
    return dict;
  }

  TemporaryFolder folder_;
  at::Tensor weight_ = at::randn({3, 4});
  at::Tensor bias_ = at::randn({4}).to(at::kBFloat16);
};

TEST_F(CheckpointFiles, ASafetensorsFileIsKnownByItsContent) {
  io::write_safetensors(folder_ / "any.name", {{"a.weight", weight_}, {"b", bias_}}, {{"k", "v"}});
  const auto files = io::read_checkpoint_files(folder_ / "any.name");
  EXPECT_EQ(files.container, io::Container::kSafetensors);
  EXPECT_EQ(files.metadata.at("k"), "v");
  EXPECT_EQ(files.path, folder_ / "any.name");
  expect_tensors(files);
}

TEST_F(CheckpointFiles, AFolderHoldsACheckpointOnceItHasAnyFileOfWeights) {
  write_bytes(folder_ / "config.json", "{}");
  EXPECT_FALSE(io::holds_checkpoint(folder_ / ""));
  EXPECT_FALSE(io::holds_checkpoint(folder_ / "missing"));
  for (const char* name : io::kWeightsFiles) {
    write_bytes(folder_ / name, "");
    EXPECT_TRUE(io::holds_checkpoint(folder_ / "")) << name;
    std::filesystem::remove(folder_ / name);
  }
}

TEST_F(CheckpointFiles, StateDictsAreFoundWhereTheyAreNested) {
  for (const std::string prefix : {"", "module."}) {
    for (const std::vector<std::string>& keys :
         std::vector<std::vector<std::string>>{{}, {"state_dict"}, {"model"}, {"model", "state_dict"}}) {
      io::PickleDict root = state_dict(prefix);
      for (const auto& key : keys) {
        auto outer = io::new_pickle_dict();
        outer.insert(key, root);
        outer.insert("epoch", std::int64_t{3});
        root = outer;
      }
      io::write_torch_pickle(folder_ / "x.safetensors", root);
      const auto files = io::read_checkpoint_files(folder_ / "x.safetensors");
      EXPECT_EQ(files.container, io::Container::kTorchZip);
      expect_tensors(files);
    }
  }
}

TEST_F(CheckpointFiles, ModulesOfTorchScriptGiveDottedNamesAndTheirCode) {
  const std::string bytes(static_cast<const char*>(weight_.data_ptr()), weight_.nbytes());
  const auto tensor = pickle::view(pickle::storage("0", 12), 0, {3, 4}, {4, 1});
  auto parts = torch_parts(
      pickle::whole(pickle::instance(
          "Outer", pickle::dict({{"training", "\x88"},
                                 {"a", pickle::instance("Inner", pickle::dict({{"weight", tensor}}))}}))),
      {bytes});
  parts.push_back({"archive/constants.pkl", pickle::whole(")")});
  parts.push_back({"archive/code/__torch__.py", "class Outer"});
  write_bytes(folder_ / "x.pt", build_zip(parts));
  const auto files = io::read_checkpoint_files(folder_ / "x.pt");
  EXPECT_EQ(files.container, io::Container::kTorchScript);
  ASSERT_EQ(files.tensors.size(), 1U);
  EXPECT_TRUE(identical(files.tensors.at("a.weight"), weight_));
  EXPECT_THAT(files.torchscript_code, HasSubstr("class Outer"));
}

TEST_F(CheckpointFiles, ShardsAreOneStateDictWithTheDocumentsBesideThem) {
  io::write_safetensors(folder_ / "s1.safetensors", {{"a.weight", weight_}});
  io::write_safetensors(folder_ / "s2.safetensors", {{"b", bias_}});
  write_bytes(folder_ / "model.safetensors.index.json",
              R"({"weight_map":{"a.weight":"s1.safetensors","b":"s2.safetensors"}})");
  write_bytes(folder_ / "config.json", R"({"model_type":"clip"})");
  for (const auto& path : {folder_.path(), folder_ / "model.safetensors.index.json"}) {
    const auto files = io::read_checkpoint_files(path);
    EXPECT_EQ(files.container, io::Container::kShardedSafetensors);
    EXPECT_EQ(files.documents.at("config.json").at("model_type"), "clip");
    expect_tensors(files);
  }
}

TEST_F(CheckpointFiles, AFolderIsReadForItsFirstKnownFile) {
  EXPECT_THAT(complaint(folder_.path()),
              AllOf(HasSubstr(folder_.path().string()), HasSubstr("model.safetensors"),
                    HasSubstr("open_clip_pytorch_model.bin")));
  io::write_torch_pickle(folder_ / "pytorch_model.bin", state_dict());
  EXPECT_EQ(io::read_checkpoint_files(folder_.path()).container, io::Container::kTorchZip);
  io::write_safetensors(folder_ / "open_clip_model.safetensors", {{"a.weight", weight_}, {"b", bias_}});
  write_bytes(folder_ / "open_clip_config.json", "{}");
  const auto files = io::read_checkpoint_files(folder_.path());
  EXPECT_EQ(files.container, io::Container::kSafetensors);
  EXPECT_TRUE(files.documents.contains("open_clip_config.json"));
  expect_tensors(files);
}

TEST_F(CheckpointFiles, WhatIsNoCheckpointIsNamed) {
  EXPECT_THAT(complaint(folder_ / "nowhere"), HasSubstr("does not exist"));
  EXPECT_THAT(complaint_about(""), HasSubstr("empty file"));
  EXPECT_THAT(complaint_about("\n<html><body>404"), HasSubstr("web page"));
  EXPECT_THAT(complaint_about("version https://git-lfs.github.com/spec/v1\n"), HasSubstr("Git LFS pointer"));
  EXPECT_THAT(complaint_about("\x1f\x8b\x08"), HasSubstr("gzip"));
  EXPECT_THAT(complaint_about("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."),
              HasSubstr("before 1.6"));
  EXPECT_THAT(complaint_about(std::string(257, '\0') + "ustar"), HasSubstr("tar archive"));
  EXPECT_THAT(complaint_about("\x80\x04}."), HasSubstr("pickle"));
  EXPECT_THAT(complaint_about("hello"), HasSubstr("text file"));
  EXPECT_THAT(complaint_about(std::string(100, '\xee')), HasSubstr("unknown kind"));
  EXPECT_THAT(complaint_about(R"({"model_type":"clip"})"), HasSubstr("weight_map"));
}

TEST_F(CheckpointFiles, AnArchiveWithoutTensorsSaysWhatItHolds) {
  auto root = io::new_pickle_dict();
  root.insert("weights", state_dict());
  io::write_torch_pickle(folder_ / "adapter.pt", root);
  EXPECT_THAT(complaint(folder_ / "adapter.pt"), AllOf(HasSubstr("adapter.pt"), HasSubstr("weights")));
}

TEST_F(CheckpointFiles, AnIndexThatLeadsElsewhereIsRefused) {
  write_bytes(folder_ / "model.safetensors.index.json",
              R"({"weight_map":{"a.weight":"../../x.safetensors"}})");
  EXPECT_THAT(complaint(folder_.path()), AllOf(HasSubstr("a.weight"), HasSubstr("../../x.safetensors")));
}

TEST_F(CheckpointFiles, AnIndexThatItsShardsContradictIsRefusedWithTheNames) {
  io::write_safetensors(folder_ / "s1.safetensors", {{"a.weight", weight_}, {"unlisted", bias_}});
  write_bytes(folder_ / "model.safetensors.index.json",
              R"({"weight_map":{"a.weight":"s1.safetensors","b":"s1.safetensors"}})");
  EXPECT_THAT(complaint(folder_.path()),
              AllOf(HasSubstr("unlisted"), HasSubstr("b is not in s1.safetensors")));
}

}  // namespace
}  // namespace clip_lora::testing
