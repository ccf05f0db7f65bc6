#include "clip_lora/io/safetensors.hpp"
#include "clip_lora/io/torch_pickle.hpp"
#include "clip_lora/lora/adapter_description.hpp"
#include "unit/lora_files.hpp"

namespace clip_lora::testing {
namespace {

using lora::AdapterFormat;
using lora::describe_adapter_file;
using ::testing::HasSubstr;

class AdapterDescription : public AdapterFiles {
 protected:
  lora::AdapterDescription described(AdapterFormat format, const lora::LoraAdapter& adapter) {
    path_ = folder_ / lora::to_string(format);
    lora::save_adapter(path_, adapter, some_context(), format);
    const auto description = describe_adapter_file(path_);
    EXPECT_TRUE(description.has_value());
    return description.value_or(lora::AdapterDescription{});
  }
};

TEST_F(AdapterDescription, SaysOfEveryFormatWhatIsInIt) {
  const lora::LoraAdapter adapter = irregular_adapter(clip_);
  for (const auto format : {AdapterFormat::kPeft, AdapterFormat::kSafetensors}) {
    const auto description = described(format, adapter);
    EXPECT_EQ(description.format, format);
    EXPECT_EQ(description.dtypes, std::vector<std::string>{"float32"});
    EXPECT_EQ(description.context, lora::context_json(some_context()));
    std::int64_t parameters = 0;
    std::vector<std::int64_t> ranks;
    for (const auto& update : description.updates) {
      parameters += update.parameters;
      ranks.push_back(update.rank);
      EXPECT_TRUE(update.non_zero);
    }
    EXPECT_EQ(parameters, adapter.parameter_count());
    EXPECT_THAT(ranks, ::testing::UnorderedElementsAre(3, 2, 4, 5));
  }
}

TEST_F(AdapterDescription, OfAFreshAdapterSaysThatItChangesNothing) {
  lora::LoraOptions options;
  options.rank = 3;
  const auto description = described(AdapterFormat::kAuthors, lora::LoraAdapter(clip_, options));
  EXPECT_EQ(description.settings.at("r"), 3);
  EXPECT_FALSE(description.settings.contains("clip_lora"));
  EXPECT_EQ(description.context, lora::context_json(some_context()));
  ASSERT_FALSE(description.updates.empty());
  for (const auto& update : description.updates) EXPECT_FALSE(update.non_zero) << update.block;
}

TEST_F(AdapterDescription, OfWhatIsNoAdapterIsNothing) {
  std::filesystem::create_directories(folder_ / "folder");
  write_bytes(folder_ / "text", "neither weights nor an adapter");
  io::write_safetensors(folder_ / "checkpoint.safetensors", {{"weight", torch::ones({2})}});
  io::PickleDict tensors = io::new_pickle_dict();
  tensors.insert("weight", torch::ones({2}));
  io::write_torch_pickle(folder_ / "checkpoint.pt", tensors);
  for (const char* name : {"folder", "text", "checkpoint.safetensors", "checkpoint.pt", "missing"}) {
    EXPECT_FALSE(describe_adapter_file(folder_ / name).has_value()) << name;
  }
}

TEST_F(AdapterDescription, OfABrokenFolderNamesTheFile) {
  described(AdapterFormat::kPeft, lora::LoraAdapter(clip_, {}));
  write_bytes(path_ / "clip_lora.json", "{");
  EXPECT_THAT(message_of<CheckpointError>([&] { describe_adapter_file(path_); }),
              HasSubstr("clip_lora.json: it is not JSON"));
  write_bytes(path_ / "adapter_config.json", "[]");
  EXPECT_THAT(message_of<CheckpointError>([&] { describe_adapter_file(path_); }),
              HasSubstr("adapter_config.json: it is a JSON array"));
}

}  // namespace
}  // namespace clip_lora::testing
