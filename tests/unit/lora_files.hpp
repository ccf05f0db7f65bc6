#pragma once

#include <gmock/gmock.h>
#include <torch/torch.h>

#include <string>
#include <vector>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/lora/adapter_file.hpp"
#include "clip_lora/lora/lora_adapter.hpp"
#include "support/close.hpp"
#include "support/files.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"
#include "support/tiny_model.hpp"

namespace clip_lora::testing {

inline lora::AdapterContext some_context() {
  return {.backbone = "ViT-X/1",
          .backbone_fingerprint = "0123456789abcdef0123456789abcdef",
          .dataset = "pets",
          .class_names = {"Abyssinian", "chien à poil \"dur\""},
          .templates = {"a photo of a {}."},
          .preprocessing = {{"size_px", 24}, {"mean", {0.5, 0.25, 0.1}}}};
}

/// A random update of a projection of `width`.
inline ops::LowRank random_update(std::int64_t width, std::int64_t rank, double scaling) {
  return {torch::randn({rank, width}).requires_grad_(), torch::randn({width, rank}).requires_grad_(), scaling,
          0.25};
}

/// An adapter that no options make: other projections, ranks and scalings in each of three blocks.
inline lora::LoraAdapter irregular_adapter(const model::Clip& clip) {
  lora::AdaptedBlock first{lora::Tower::kText, 0, {}}, second{lora::Tower::kText, 3, {}},
      third{lora::Tower::kVision, 1, {}};
  first.lora.q = random_update(128, 3, 0.7);
  second.lora.k = random_update(128, 2, 0.5);
  second.lora.o = random_update(128, 4, 1.0 / 3.0);
  third.lora.v = random_update(192, 5, 1.6);
  lora::LoraOptions options;
  options.rank_stabilised = false;
  return {clip, options, {first, second, third}};
}

/// A loaded adapter that is a LoRA.
inline lora::LoraAdapter lora_of(const lora::LoadedAdapter& loaded) {
  return dynamic_cast<const lora::LoraAdapter&>(*loaded.adapter);
}

class AdapterFiles : public ::testing::Test {
 protected:
  /// What is wrong with the file or folder, which the complaint must name.
  std::string complaint() { return complaint_for(clip_); }
  std::string complaint_for(const model::Clip& clip, const std::string& fingerprint = "") {
    auto message = message_of<CheckpointError>([&] { lora::load_adapter(path_, clip, fingerprint); });
    EXPECT_THAT(message, ::testing::HasSubstr(path_.filename().string()));
    return message;
  }
  lora::LoraAdapter load() { return lora_of(lora::load_adapter(path_, clip_, "")); }

  /// Loads after each change of the file; it must load or be refused. Returns how many were refused.
  int refused(const std::filesystem::path& file, const std::vector<std::string>& contents) {
    int count = 0;
    for (const auto& bytes : contents) {
      write_bytes(file, bytes);
      try {
        load();
      } catch (const CheckpointError&) {  // any other exception fails the test
        ++count;
      }
    }
    return count;
  }

  TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "runs" / "weights.pt";
  model::Clip clip_ = random_clip();
};

/// The first 0/64, 1/64, … 63/64 of the bytes.
inline std::vector<std::string> truncations(const std::string& bytes) {
  std::vector<std::string> all;
  for (std::size_t part = 0; part < 64; ++part) all.push_back(bytes.substr(0, bytes.size() * part / 64));
  return all;
}

/// The bytes with one of them flipped, at about `count` places.
inline std::vector<std::string> flips(const std::string& bytes, std::size_t count) {
  std::vector<std::string> all;
  for (std::size_t at = 0; at < bytes.size(); at += 1 + bytes.size() / count) {
    all.push_back(bytes);
    all.back()[at] = static_cast<char>(all.back()[at] ^ 0xff);
  }
  return all;
}

inline void expect_same_tensors(const io::StateDict& actual, const io::StateDict& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (const auto& [name, tensor] : expected) {
    ASSERT_TRUE(actual.contains(name)) << name;
    EXPECT_TRUE(identical(actual.at(name), tensor)) << name;
    EXPECT_TRUE(actual.at(name).requires_grad() && actual.at(name).is_leaf()) << name;
  }
}

}  // namespace clip_lora::testing
