// Checkpoints of R-Adapter's release; those that PyTorch itself writes are in tests/peer.
#include "clip_lora/io/torch_pickle.hpp"
#include "clip_lora/lora/adapter_description.hpp"
#include "clip_lora/lora/method.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "unit/lora_files.hpp"

namespace clip_lora::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const std::string kText = "transformer.resblocks.", kVision = "visual.transformer.resblocks.";

/// A checkpoint of a model's training: `tensors_` are the whole CLIP and its adapters by CLIP's names.
class RAdapterRelease : public AdapterFiles {
 protected:
  RAdapterRelease() {
    tensors_ = model::state_dict(clip_);
    add_adapters();
  }

  /// In every block of a tower, of full rank.
  void add_adapters(const std::string& ending = "") {
    for (const std::string& tower : {kText, kVision}) {
      const std::int64_t width = tower == kText ? 128 : 192;
      for (int block = 0; block < (tower == kText ? 4 : 3); ++block) {
        for (const char* module : {".adapter_attn", ".adapter_mlp"}) {
          const std::string name = tower + std::to_string(block) + module + ending;
          tensors_[name + ".f.weight"] = torch::randn({width, width});
          tensors_[name + ".s"] = torch::rand({1});
        }
      }
    }
  }

  void remove(const std::string& part) {
    std::erase_if(tensors_, [&](const auto& entry) { return entry.first.find(part) != std::string::npos; });
  }

  io::PickleDict state_dict(const std::string& prefix = "module.model.") const {
    io::PickleDict dict = io::new_pickle_dict();
    for (const auto& [name, tensor] : tensors_) dict.insert(prefix + name, tensor.detach().contiguous());
    return dict;
  }

  void write(const io::PickleDict& state_dict) const {
    io::PickleDict root = io::new_pickle_dict();
    root.insert("epoch", 10);
    root.insert("name", "ImageNet/few_shot");
    root.insert("state_dict", state_dict);
    root.insert("optimizer", io::new_pickle_dict());
    io::write_torch_pickle(path_, root);
  }

  lora::LoadedAdapter load_release() const { return lora::load_adapter(path_, clip_, "some fingerprint"); }

  /// Whether the adapter has the file's tensors whose modules' names end so.
  void expect_is_of_file(const lora::Adapter& adapter, const std::string& ending = "") const {
    for (const auto& [name, tensor] : adapter.state_dict()) {
      const auto dot = name.rfind('.');
      const std::string own = name.substr(dot) == ".scale" ? ".s" : ".f.weight";
      EXPECT_TRUE(identical(tensor, tensors_.at(name.substr(0, dot) + ending + own))) << name;
    }
  }

  std::string complaint_of_this_file() {
    write(state_dict());
    return complaint();
  }

  io::StateDict tensors_;
};

TEST_F(RAdapterRelease, IsAnAdapterOfFullRankThatIsMergedAtTheReleasesScale) {
  write(state_dict());
  const auto loaded = load_release();
  EXPECT_EQ(loaded.format, lora::AdapterFormat::kRAdapterRelease);
  EXPECT_FALSE(loaded.context.has_value());
  EXPECT_EQ(loaded.scale, 0.5);
  lora::AdapterOptions options;
  options.method = "r_adapter";
  EXPECT_NO_THROW(lora::require_same_options(*loaded.adapter, options, path_));
  EXPECT_EQ(loaded.adapter->state_dict().size(), 7U * 2U * 2U);  // blocks, modules, W and s
  expect_is_of_file(*loaded.adapter);
}

TEST_F(RAdapterRelease, HasItsAveragesWhereThereAreAny) {
  add_adapters("_cache");
  write(state_dict());
  expect_is_of_file(*load_release().adapter, "_cache");
}

TEST_F(RAdapterRelease, IsReadWhateverIsWrappedAroundTheModel) {
  for (const char* prefix : {"", "module.", "model.", "module.model.", "module.image_encoder.model."}) {
    write(state_dict(prefix));
    expect_is_of_file(*load_release().adapter);
    io::write_torch_pickle(path_, state_dict(prefix));  // no training's state around it
    expect_is_of_file(*load_release().adapter);
  }
}

TEST_F(RAdapterRelease, IsReadWithoutTheModel) {
  std::erase_if(tensors_, [](const auto& entry) { return entry.first.find("adapter") == std::string::npos; });
  write(state_dict());
  expect_is_of_file(*load_release().adapter);
}

TEST_F(RAdapterRelease, OfOneTowerIsAnAdapterOfThatTower) {
  const io::StateDict all = tensors_;
  for (const auto encoder : {lora::Encoder::kText, lora::Encoder::kVision}) {
    tensors_ = all;
    const bool text = encoder == lora::Encoder::kText;
    std::erase_if(tensors_, [&](const auto& entry) {
      return entry.first.find("adapter") != std::string::npos && entry.first.starts_with("visual.") == text;
    });
    write(state_dict());
    const auto adapter = load_release().adapter;
    EXPECT_EQ(adapter->settings().at("encoder"), to_string(encoder));
    expect_is_of_file(*adapter);
  }
}

TEST_F(RAdapterRelease, FactorsOfARankAboveTheWidthAreMultiplied) {
  const std::string module = kText + "0.adapter_attn";
  tensors_.erase(module + ".f.weight");
  const auto up = tensors_[module + ".u.weight"] = torch::randn({128, 150});
  const auto down = tensors_[module + ".d.weight"] = torch::randn({150, 128});
  write(state_dict());
  const auto weight = load_release().adapter->state_dict().at(module + ".weight");
  EXPECT_TRUE(close(weight.detach(), at::matmul(up, down), 1e-5));
  tensors_[module + ".d.weight"] = torch::randn({151, 128});
  EXPECT_THAT(complaint_of_this_file(), AllOf(HasSubstr(module + ".f.weight is missing"),
                                              HasSubstr(module + ".u.weight is unexpected")));
}

TEST_F(RAdapterRelease, ThatDoesNotFitIsRefusedNamingAllThatIsWrong) {
  tensors_.erase(kText + "1.adapter_mlp.s");
  tensors_[kVision + "2.adapter_attn.f.weight"] = torch::zeros({128, 192});
  tensors_[kVision + "3.adapter_attn.s"] = torch::zeros({1});
  tensors_[kVision + "0.adapter_attn.f.bias"] = torch::zeros({192});
  tensors_[kVision + "1.adapter_mlp.s"] = torch::ones({1}, at::kLong);
  tensors_["classification_head.weight"] = torch::zeros({10, 48});
  tensors_["ln_final.weight"] = torch::ones({64});
  EXPECT_THAT(
      complaint_of_this_file(),
      AllOf(HasSubstr(kText + "1.adapter_mlp.s is missing"),
            HasSubstr(kVision + "2.adapter_attn.f.weight has shape [128, 192], expected [192, 192]"),
            HasSubstr(kVision + "3.adapter_attn.s is unexpected"),
            HasSubstr(kVision + "0.adapter_attn.f.bias is unexpected"),
            HasSubstr(kVision + "1.adapter_mlp.s is of no floating type"),
            HasSubstr("classification_head.weight is unexpected"),
            HasSubstr("ln_final.weight has shape [64], expected [128]"), HasSubstr("another backbone")));
}

TEST_F(RAdapterRelease, WithoutTheAveragesOfABlockIsRefused) {
  add_adapters("_cache");
  remove(kText + "2.adapter_attn_cache.");
  EXPECT_THAT(complaint_of_this_file(),
              AllOf(HasSubstr(kText + "2.adapter_attn_cache.f.weight is missing"),
                    HasSubstr(kText + "2.adapter_attn_cache.s is missing"), Not(HasSubstr("unexpected"))));
}

TEST_F(RAdapterRelease, OfWhichATensorIsThereTwiceIsRefused) {
  io::PickleDict dict = state_dict();
  dict.insert(kText + "0.adapter_mlp.s", torch::zeros({1}));
  write(dict);
  EXPECT_THAT(complaint(), AllOf(HasSubstr(kText + "0.adapter_mlp.s"), HasSubstr("twice")));
}

TEST_F(RAdapterRelease, OfAnotherBackboneIsRefused) {
  write(state_dict());
  EXPECT_THAT(complaint_for(random_clip()),
              AllOf(HasSubstr("another backbone of the same shapes"), HasSubstr("hint")));
  auto wider = tiny_architecture();
  wider.text.width = 192;
  wider.text.heads = 3;
  EXPECT_THAT(complaint_for(random_clip(wider)), HasSubstr("ln_final.bias has shape [128], expected [192]"));
}

TEST_F(RAdapterRelease, ThatTrainedOtherWeightsTooIsRefusedNamingOne) {
  for (const std::string& name : {kText + "1.ln_2.weight", kVision + "0.attn.out_proj.bias",
                                  std::string("visual.proj"), std::string("visual.class_embedding")}) {
    const auto before = tensors_.at(name);
    tensors_[name] = before * 1.002;
    EXPECT_THAT(complaint_of_this_file(), AllOf(HasSubstr(name), HasSubstr("not the adapters alone")));
    tensors_[name] = before * at::full({}, std::nan(""));
    EXPECT_THAT(complaint_of_this_file(), HasSubstr(name));
    tensors_[name] = before;
  }
}

TEST_F(RAdapterRelease, WithNaNInAnAdapterIsRefusedNamingTheTensor) {
  const std::string name = kText + "1.adapter_attn.f.weight";
  tensors_[name] = tensors_.at(name) * at::full({}, std::nan(""));
  EXPECT_THAT(complaint_of_this_file(), AllOf(HasSubstr("infinities or NaN"), HasSubstr(name)));
}

TEST_F(RAdapterRelease, OfAnyPrecisionOfFileAndModelIsReadAsFloat32) {
  for (const auto file : {at::kFloat, at::kHalf}) {
    for (auto& [name, tensor] : tensors_) tensor = tensor.to(file);
    write(state_dict());
    for (const auto model : {at::kFloat, at::kHalf, at::kBFloat16}) {
      auto clip = model::load_clip(snapshot(model::state_dict(clip_)), "a copy");
      clip->to(at::Device(at::kCPU), model);
      const auto adapter = lora::load_adapter(path_, clip, "").adapter;
      for (const auto& [name, tensor] : adapter->state_dict())
        EXPECT_EQ(tensor.scalar_type(), at::kFloat) << name;
    }
  }
}

TEST_F(RAdapterRelease, IsDescribedWithoutAModel) {
  add_adapters("_cache");
  write(state_dict());
  const auto description = lora::describe_adapter_file(path_);
  ASSERT_TRUE(description.has_value());
  EXPECT_EQ(lora::to_string(description->format), "r_adapter_release");
  EXPECT_EQ(description->method, "r_adapter");
  EXPECT_EQ(description->parameters, 2 * (4 * (128 * 128 + 1) + 3 * (192 * 192 + 1)));  // the averages alone
  EXPECT_EQ(description->settings,
            nlohmann::ordered_json(
                {{"name", "ImageNet/few_shot"}, {"epoch", 10}, {"encoder", "both"}, {"averaged", true}}));
  EXPECT_TRUE(description->context.is_null());
}

TEST_F(RAdapterRelease, IsTheSameAfterItIsSavedAsOurs) {
  write(state_dict());
  const auto adapter = load_release().adapter;
  auto context = some_context();
  context.scale = 0.5;
  lora::save_adapter(path_, *adapter, context, lora::AdapterFormat::kSafetensors);
  const auto loaded = lora::load_adapter(path_, clip_, "");
  EXPECT_EQ(loaded.scale, 0.5);
  expect_same_tensors(loaded.adapter->state_dict(), adapter->state_dict());
}

TEST_F(RAdapterRelease, IsOnlyRead) {
  write(state_dict());
  const std::string before = read_bytes(path_);
  const auto adapter = load_release().adapter;
  EXPECT_THAT(message_of<ConfigError>([&] {
                lora::save_adapter(path_, *adapter, {}, lora::parse_adapter_format("r_adapter_release"));
              }),
              AllOf(HasSubstr("only read"), HasSubstr("safetensors")));
  EXPECT_EQ(read_bytes(path_), before);
}

TEST_F(RAdapterRelease, WithoutAdaptersOrADictionaryIsNoneNamingTheFile) {
  remove("adapter");
  complaint_of_this_file();
  EXPECT_FALSE(lora::describe_adapter_file(path_).has_value());
  io::PickleDict root = io::new_pickle_dict();
  root.insert("state_dict", 3);
  io::write_torch_pickle(path_, root);
  complaint();
  io::write_torch_pickle(path_, c10::List<std::string>({"transformer.resblocks.0.adapter_attn.s"}));
  complaint();
}

TEST_F(RAdapterRelease, BrokenAnywhereIsRefused) {
  write(state_dict());
  const std::string bytes = read_bytes(path_);
  const auto refused_of = [&](const std::vector<std::string>& contents) {
    std::size_t count = 0;
    for (const auto& content : contents) {
      write_bytes(path_, content);
      try {
        load_release();
      } catch (const CheckpointError&) {  // any other exception fails the test
        ++count;
      }
    }
    return count;
  };
  EXPECT_EQ(refused_of(truncations(bytes)), 64U);
  const auto flipped = flips(bytes, 100);
  EXPECT_GT(refused_of(flipped), flipped.size() * 9 / 10);  // what is left is padding between the entries
}

}  // namespace
}  // namespace clip_lora::testing
