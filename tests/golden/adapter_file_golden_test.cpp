#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "clip_lora/lora/adapter_file.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "support/close.hpp"
#include "support/golden.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_model.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const fs::path kSource = CLIP_LORA_SOURCE_DIR;

fs::path python() { return kSource / ".deps" / "venv" / "bin" / "python"; }

#define CLIP_LORA_NEEDS_PYTHON()                                                                \
  if (!fs::exists(python())) {                                                                  \
    GTEST_SKIP() << "there is no Python with PyTorch at " << python() << " (scripts/setup.sh)"; \
  }                                                                                             \
  static_assert(true)

/// What Python's torch.load(weights_only=True) finds in `file`.
json load_in_python(const fs::path& file, const TemporaryFolder& folder) {
  const auto output = folder / (file.stem().string() + ".json");
  const auto script = kSource / "tests" / "golden" / "read_adapter.py";
  const auto command = python().string() + " -W ignore '" + script.string() + "' '" + file.string() +
                       "' > '" + output.string() + "'";
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
  std::ifstream stream(output);
  return json::parse(stream);
}

void expect_equal(const json& loaded, const at::Tensor& tensor, const std::string& what) {
  EXPECT_EQ(loaded["dtype"], "torch.float32") << what;
  EXPECT_EQ(loaded["shape"], json(tensor.sizes().vec())) << what;
  const auto flat = tensor.detach().flatten();
  EXPECT_EQ(loaded["values"].get<std::vector<float>>(),
            std::vector<float>(flat.data_ptr<float>(), flat.data_ptr<float>() + flat.numel()))
      << what;
}

model::Clip golden_clip() { return model::load_clip(golden_tensors("tiny_clip.safetensors"), "tiny_clip"); }

TEST(AdapterFile, LoadsWhatTheReferenceWrote) {
  CLIP_LORA_NEEDS_TEST_DATA();
  const auto loaded = lora::load_adapter(golden_file("reference_lora_weights.pt"), golden_clip(), "any");
  EXPECT_EQ(loaded.format, lora::AdapterFormat::kAuthors);
  EXPECT_FALSE(loaded.context.has_value());
  const lora::Adapter& adapter = *loaded.adapter;
  lora::require_same_options(adapter, {}, "");
  const auto expected = below(golden_tensors("trajectory.safetensors"), "final/");
  ASSERT_EQ(adapter.state_dict().size(), expected.size());
  for (const auto& [name, tensor] : expected)
    EXPECT_TRUE(identical(adapter.state_dict().at(name), tensor)) << name;
}

TEST(AdapterFile, SavedAgainTheReferencesAdapterReadsInPythonAsTheReferences) {
  CLIP_LORA_NEEDS_TEST_DATA();
  CLIP_LORA_NEEDS_PYTHON();
  const TemporaryFolder folder;
  const auto loaded = lora::load_adapter(golden_file("reference_lora_weights.pt"), golden_clip(), "");
  lora::save_adapter(folder / "ours.pt", *loaded.adapter, {});
  const json ours = load_in_python(folder / "ours.pt", folder);
  const json reference = load_in_python(golden_file("reference_lora_weights.pt"), folder);
  EXPECT_EQ(ours["weights"], reference["weights"]);
  for (const auto& [key, value] : reference["metadata"].items())
    EXPECT_EQ(ours["metadata"][key], value) << key;
}

TEST(AdapterFile, ReadsInPythonWithTheDocumentedKeysAndTheSameTensors) {
  CLIP_LORA_NEEDS_PYTHON();
  const TemporaryFolder folder;
  lora::LoraOptions options;
  options.rank = 3;
  options.alpha = 1.5;
  options.projections = {.q = true, .k = false, .v = false, .o = true};
  options.position = lora::Position::kUp;
  const lora::LoraAdapter adapter(random_clip(), options);
  randomise(adapter);
  lora::AdapterContext context;
  context.backbone = "ViT-X/1";
  lora::save_adapter(folder / "adapter.pt", adapter, context);
  const json loaded = load_in_python(folder / "adapter.pt", folder);

  const json metadata = {
      {"r", 3}, {"alpha", 1.5}, {"encoder", "both"}, {"params", {"q", "o"}}, {"position", "up"}};
  for (const auto& [key, value] : metadata.items()) EXPECT_EQ(loaded["metadata"][key], value) << key;
  // Text tower first: blocks 2 and 3 of its four, then block 2 of the vision tower's three.
  const auto tensors = adapter.state_dict();
  const std::vector<std::string> blocks = {"transformer.resblocks.2.attn.", "transformer.resblocks.3.attn.",
                                           "visual.transformer.resblocks.2.attn."};
  ASSERT_EQ(loaded["weights"].size(), blocks.size());
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const json& layer = loaded["weights"]["layer_" + std::to_string(i)];
    ASSERT_EQ(layer.size(), 2U);
    for (const std::string projection : {"q_proj", "proj"}) {
      for (const std::string matrix : {"w_lora_A", "w_lora_B"}) {
        const auto name = blocks[i] + projection + "." + matrix;
        expect_equal(layer[projection][matrix], tensors.at(name), name);
      }
    }
  }
}

}  // namespace
}  // namespace clip_lora::testing
