#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <ostream>

#include "clip_lora/io/safetensors.hpp"
#include "clip_lora/lora/adapter_description.hpp"
#include "clip_lora/lora/method.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "support/wrapped_adapter.hpp"
#include "unit/lora_files.hpp"

namespace clip_lora::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

/// Options of a method, and a name for the test.
struct MethodCase {
  std::string name;
  lora::AdapterOptions options;

  friend std::ostream& operator<<(std::ostream& stream, const MethodCase& self) {
    return stream << self.name;
  }
};

lora::AdapterOptions options_of(const std::string& method) {
  lora::AdapterOptions options;
  options.method = method;
  return options;
}

/// Every method there is, and what else its options can make of it.
std::vector<MethodCase> method_cases() {
  std::vector<MethodCase> cases;
  for (const auto& method : lora::methods()) cases.push_back({method.name, options_of(method.name)});
  cases.push_back({"r_adapter_of_rank_3", options_of("r_adapter")});
  cases.back().options.r_adapter.rank = 3;
  cases.push_back({"r_adapter_in_part", options_of("r_adapter")});
  cases.back().options.lora.encoder = lora::Encoder::kText;
  cases.back().options.lora.position = lora::Position::kUp;
  return cases;
}

class EveryMethod : public AdapterFiles, public ::testing::WithParamInterface<MethodCase> {
 protected:
  struct Features {
    at::Tensor images;
    at::Tensor texts;
  };
  Features features() {
    const at::NoGradGuard no_grad;
    return {clip_->encode_image(images_), clip_->encode_text(prompts_)};
  }
  std::shared_ptr<lora::Adapter> fresh() const { return lora::make_adapter(clip_, GetParam().options); }
  std::shared_ptr<lora::Adapter> random() const {
    auto adapter = fresh();
    randomise(*adapter);
    return adapter;
  }
  static void expect_identical(const Features& actual, const Features& expected, const char* what) {
    EXPECT_TRUE(identical(actual.images, expected.images)) << what;
    EXPECT_TRUE(identical(actual.texts, expected.texts)) << what;
  }

  at::Tensor images_ = random_images(tiny_architecture(), 3);
  model::Prompts prompts_ = model::make_prompts(random_prompt_rows(tiny_architecture(), {5, 9, 3}));
};

INSTANTIATE_TEST_SUITE_P(, EveryMethod, ::testing::ValuesIn(method_cases()),
                         [](const auto& test) { return test.param.name; });

TEST_P(EveryMethod, FreshChangesNotABit) {
  const auto plain = features();
  const auto adapter = fresh();
  if (adapter->attach(clip_)) expect_identical(features(), plain, "attached");
  lora::detach(clip_);
  const lora::MergedScope merged(clip_, *adapter);
  expect_identical(features(), plain, "merged");
}

TEST_P(EveryMethod, OfScaleZeroChangesNotABit) {
  const auto plain = features();
  const auto adapter = random();
  const lora::MergedScope merged(clip_, *adapter, 0.0);
  expect_identical(features(), plain, "merged");
}

TEST_P(EveryMethod, MergedEqualsUnmerged) {
  const auto plain = features();
  const auto adapter = random();
  if (!adapter->attach(clip_)) GTEST_SKIP() << "nothing is attached, only merged";
  const auto attached = features();
  EXPECT_FALSE(close(attached.texts, plain.texts, 1e-2));  // or else this test would see nothing
  EXPECT_EQ(bool(close(attached.images, plain.images, 1e-2)), !adapter->adapts(lora::Tower::kVision));
  const lora::MergedScope merged(clip_, *adapter);
  const auto now = features();
  EXPECT_TRUE(close(now.images, attached.images, 1e-5));
  EXPECT_TRUE(close(now.texts, attached.texts, 1e-5));
}

TEST_P(EveryMethod, MergedScopeGivesEveryBitBack) {
  const auto adapter = random();
  const auto before = snapshot(model::state_dict(clip_));
  adapter->attach(clip_);
  const auto as_before = features();
  bool anything_changed = false;
  {
    const lora::MergedScope merged(clip_, *adapter, 0.7);
    for (const auto& [name, tensor] : model::state_dict(clip_)) {
      anything_changed = anything_changed || !identical(tensor, before.at(name));
    }
  }
  EXPECT_EQ(anything_changed, adapter->parameter_count() > 0);
  for (const auto& [name, tensor] : model::state_dict(clip_))
    EXPECT_TRUE(identical(tensor, before.at(name))) << name;
  expect_identical(features(), as_before, "what was attached is attached again");
}

/// One of which the second block cannot be merged, or becomes what no weight can be.
class Unmergeable final : public WrappedAdapter {
 public:
  Unmergeable(const lora::Adapter& adapter, bool throws) : WrappedAdapter(adapter), throws_(throws) {}
  model::BlockWeights adapted(std::size_t place, const model::BlockWeights& frozen,
                              double scale) const override {
    auto weights = WrappedAdapter::adapted(place, frozen, scale);
    if (place == 0) return weights;
    if (throws_) throw DataError("no more memory");
    weights.c_proj_bias = weights.c_proj_bias.to_sparse();  // the last one that is put in
    return weights;
  }

 private:
  bool throws_;
};

TEST_P(EveryMethod, ThatCannotBeMergedToItsEndLeavesTheModelAsItWas) {
  const auto adapter = random();
  const auto before = snapshot(model::state_dict(clip_));
  adapter->attach(clip_);
  const auto as_before = features();
  const auto merge = [&](bool throws) { lora::MergedScope(clip_, Unmergeable(*adapter, throws)); };
  EXPECT_THROW(merge(true), DataError);
  EXPECT_ANY_THROW(merge(false));
  for (const auto& [name, tensor] : model::state_dict(clip_))
    EXPECT_TRUE(identical(tensor, before.at(name))) << name;
  expect_identical(features(), as_before, "what was attached is attached again");
}

TEST_P(EveryMethod, IsOnTheModelsDeviceInFloat32AndTrainsPartOfWhatIsSaved) {
  clip_->to(at::kHalf);
  const auto adapter = fresh();
  const auto saved = adapter->state_dict();
  for (const auto& [name, tensor] : saved) EXPECT_EQ(tensor.scalar_type(), at::kFloat) << name;
  for (const auto& parameter : adapter->parameters()) {
    EXPECT_TRUE(parameter.requires_grad() && parameter.is_leaf());
    EXPECT_TRUE(
        std::ranges::any_of(saved, [&](const auto& entry) { return entry.second.is_same(parameter); }));
  }
  const lora::MergedScope merged(clip_, *adapter);
  for (const auto& [name, tensor] : model::state_dict(clip_))
    EXPECT_EQ(tensor.scalar_type(), at::kHalf) << name;
}

TEST_P(EveryMethod, SavedAndLoadedIsTheSameWithTheMethodInTheFile) {
  const auto adapter = random();
  lora::save_adapter(path_, *adapter, some_context(), lora::AdapterFormat::kSafetensors);
  EXPECT_EQ(io::read_safetensors(path_).metadata.at("method"), GetParam().options.method);
  EXPECT_EQ(lora::describe_adapter_file(path_)->method, GetParam().options.method);
  const auto loaded = lora::load_adapter(path_, clip_, some_context().backbone_fingerprint);
  EXPECT_EQ(loaded.context, some_context());
  EXPECT_EQ(loaded.adapter->method(), adapter->method());
  EXPECT_EQ(loaded.adapter->places(), adapter->places());
  EXPECT_EQ(loaded.adapter->settings(), adapter->settings());
  const auto tensors = loaded.adapter->state_dict(), expected = adapter->state_dict();
  ASSERT_EQ(tensors.size(), expected.size());
  for (const auto& [name, tensor] : expected) {
    EXPECT_TRUE(identical(tensors.at(name), tensor)) << name;
    EXPECT_EQ(tensors.at(name).requires_grad(), tensor.requires_grad()) << name;
  }
  EXPECT_NO_THROW(lora::require_same_options(*loaded.adapter, GetParam().options, path_));
}

TEST_P(EveryMethod, HasTheSettingsThatItsOptionsSay) {
  const auto& options = GetParam().options;
  EXPECT_EQ(fresh()->settings(), lora::find_method(options.method).settings(options));
  EXPECT_EQ(fresh()->settings().at("method"), options.method);
}

TEST_P(EveryMethod, GivenToARunOfAnotherIsRefusedNamingBoth) {
  const auto adapter = fresh();
  for (const auto& method : lora::methods()) {
    if (method.name == adapter->method()) continue;
    const auto message = message_of<CheckpointError>(
        [&] { lora::require_same_options(*adapter, options_of(method.name), path_); });
    EXPECT_THAT(message, AllOf(HasSubstr("weights.pt"), HasSubstr("--method " + adapter->method()),
                               HasSubstr("--method " + method.name)));
  }
}

TEST_P(EveryMethod, TheFormatsOfLoraRefuseOtherMethods) {
  const auto adapter = fresh();
  for (const auto format : {lora::AdapterFormat::kAuthors, lora::AdapterFormat::kPeft}) {
    const auto save = [&] { lora::save_adapter(path_, *adapter, some_context(), format); };
    if (adapter->method() == "lora") {
      EXPECT_NO_THROW(save());
      std::filesystem::remove_all(path_);
    } else {
      EXPECT_THAT(message_of<ConfigError>(save), AllOf(HasSubstr("weights.pt"), HasSubstr(adapter->method()),
                                                       HasSubstr(lora::to_string(format))));
      EXPECT_FALSE(std::filesystem::exists(path_));
    }
  }
}

TEST_P(EveryMethod, WithTensorsThatDoNotFitIsRefusedNamingThemAll) {
  const auto adapter = random();
  if (adapter->state_dict().empty()) GTEST_SKIP() << "has no tensors";
  lora::save_adapter(path_, *adapter, some_context(), lora::AdapterFormat::kSafetensors);
  auto file = io::read_safetensors(path_);
  for (auto& [name, tensor] : file.tensors) tensor = tensor.clone();  // the file will be written again
  const std::string first = file.tensors.begin()->first, last = file.tensors.rbegin()->first;
  const auto refused_with = [&](const std::function<void(io::StateDict&)>& change) {
    auto tensors = file.tensors;
    change(tensors);
    io::write_safetensors(path_, tensors, file.metadata);
    return complaint();
  };
  EXPECT_THAT(refused_with([&](auto& tensors) {
                tensors.erase(first);
                tensors["extra"] = at::ones({2});
                tensors[last] = at::ones({7, 7, 7});
              }),
              AllOf(HasSubstr(first + " is missing"), HasSubstr("extra is unexpected"),
                    HasSubstr(last + " has shape [7, 7, 7], expected [")));
  EXPECT_THAT(refused_with([&](auto& tensors) { tensors[first] = tensors[first].to(at::kInt); }),
              HasSubstr(first + " is of no floating type"));
}

TEST_P(EveryMethod, BrokenAnywhereIsRefused) {
  lora::save_adapter(path_, *random(), some_context(), lora::AdapterFormat::kSafetensors);
  const std::string whole = read_bytes(path_);
  const auto is_refused = [&](const std::string& bytes) {
    write_bytes(path_, bytes);
    try {
      lora::load_adapter(path_, clip_, "");
    } catch (const CheckpointError&) {  // any other exception fails the test
      return true;
    }
    return false;
  };
  for (const auto& bytes : truncations(whole)) EXPECT_TRUE(is_refused(bytes)) << bytes.size();
  EXPECT_TRUE(is_refused(whole.substr(0, whole.size() - 1)));
  std::uint64_t header_length = 0;
  std::memcpy(&header_length, whole.data(), sizeof(header_length));
  int count = 0;
  for (const auto& header : flips(whole.substr(0, 8 + header_length), 300)) {
    count += is_refused(header + whole.substr(8 + header_length));
  }
  EXPECT_GT(count, 200);
}

TEST(Methods, AreFoundByNameAndUnknownOnesAreRefusedWithTheNearest) {
  for (const auto& method : lora::methods()) EXPECT_EQ(lora::find_method(method.name).name, method.name);
  EXPECT_THAT(message_of<ConfigError>([] { lora::find_method("r_adaptor"); }),
              AllOf(HasSubstr("r_adaptor"), HasSubstr("r_adapter'"), HasSubstr("lora_xs")));
}

TEST(Methods, RefuseARankAboveAWidthNamingBoth) {
  const auto clip = random_clip();  // the text tower is 128 wide, the vision tower 192
  for (const std::string method : {"lora", "lora_xs", "r_adapter"}) {
    auto options = options_of(method);
    options.lora.rank = options.r_adapter.rank = 129;
    EXPECT_THAT(message_of<ConfigError>([&] { lora::make_adapter(clip, options); }),
                AllOf(HasSubstr("129"), HasSubstr("128")))
        << method;
    options.lora.encoder = lora::Encoder::kVision;
    EXPECT_NO_THROW(lora::make_adapter(clip, options)) << method;
  }
}

TEST(RAdapter, StartsWithTheReleasesValues) {
  const auto clip = random_clip();
  auto options = options_of("r_adapter");
  options.r_adapter.initial_scale = 0.25;
  const auto full = lora::make_adapter(clip, options)->state_dict();
  EXPECT_EQ(full.size(), 7U * 2U * 2U);  // blocks, modules, W and s
  EXPECT_TRUE(identical(full.at("transformer.resblocks.0.adapter_attn.weight"), at::zeros({128, 128})));
  EXPECT_TRUE(identical(full.at("visual.transformer.resblocks.2.adapter_mlp.scale"), at::full({1}, 0.25)));
  options.r_adapter.rank = 64;
  const auto low = lora::make_adapter(clip, options)->state_dict();
  EXPECT_EQ(low.size(), 7U * 2U * 3U);
  EXPECT_TRUE(identical(low.at("visual.transformer.resblocks.0.adapter_mlp.up"), at::zeros({192, 64})));
  const auto down = low.at("visual.transformer.resblocks.0.adapter_mlp.down");
  EXPECT_EQ(down.sizes(), (std::vector<std::int64_t>{64, 192}));
  const double bound = std::sqrt(6.0 / (64 + 192));  // Xavier's uniform
  EXPECT_LE(down.abs().max().item<double>(), bound);
  // A uniform deviate's; 12,288 draws know theirs to a percent.
  EXPECT_NEAR(down.std().item<double>() / (bound / std::sqrt(3.0)), 1.0, 0.03);
}

TEST(RAdapter, HasThePapersSizeOnThePublishedModel) {
  const model::Clip clip(*model::published_architecture("ViT-B/16"));  // unset weights take no memory
  const auto adapter = lora::make_adapter(clip, options_of("r_adapter"));
  EXPECT_EQ(adapter->parameter_count(), 12 * 2 * (768 * 768 + 512 * 512 + 2));  // 20.45 M
}

TEST(RAdapter, DrawsByTheTrainingOptionsThatWereSetLast) {
  auto clip = random_clip();
  auto options = options_of("r_adapter");
  const auto adapter = lora::make_adapter(clip, options);
  options.r_adapter.drop = 0.4;
  options.r_adapter.drop_unit = lora::DropUnit::kModule;
  adapter->set_training_options(options);
  adapter->attach(clip);
  const auto slot = clip->transformer->block(1).mlp_slot;
  EXPECT_EQ(slot.drop, 0.4);
  EXPECT_EQ(slot.unit, lora::DropUnit::kModule);
  EXPECT_EQ(adapter->options().r_adapter.drop, 0.4);
}

/// A file of R-Adapter's with metadata at will.
class RAdapterFile : public AdapterFiles {
 protected:
  RAdapterFile() {
    lora::save_adapter(path_, *lora::make_adapter(clip_, options_of("r_adapter")), some_context(),
                       lora::AdapterFormat::kSafetensors);
    file_ = io::read_safetensors(path_);
    for (auto& [name, tensor] : file_.tensors) tensor = tensor.clone();
  }
  std::string complaint_about(const std::string& key, const nlohmann::json& value) {
    auto metadata = file_.metadata;
    auto options = nlohmann::json::parse(metadata.at("options"));
    options[key] = value;
    metadata["options"] = options.dump();
    io::write_safetensors(path_, file_.tensors, metadata);
    return complaint();
  }

  io::Safetensors file_;
};

TEST_F(RAdapterFile, WithOptionsOfWrongTypesOrValuesIsRefused) {
  EXPECT_THAT(complaint_about("adapter_rank", "three"), HasSubstr("options"));
  EXPECT_THAT(complaint_about("adapter_rank", -1), HasSubstr("-1"));
  EXPECT_THAT(complaint_about("adapter_rank", 129), AllOf(HasSubstr("129"), HasSubstr("128")));
  EXPECT_THAT(complaint_about("adapter_rank", 5), HasSubstr("adapter_attn.up is missing"));
  EXPECT_THAT(complaint_about("adapter_drop", 1.0), HasSubstr("drop"));
  EXPECT_THAT(complaint_about("adapter_drop_unit", "positoin"), HasSubstr("position"));
  EXPECT_THAT(complaint_about("position", "upp"), HasSubstr("up"));
  EXPECT_THAT(complaint_about("position", "up"), HasSubstr("resblocks.0.adapter_attn.scale is unexpected"));
  EXPECT_THAT(complaint_about("encoder", nullptr), HasSubstr("options"));
}

TEST_F(RAdapterFile, OfAMethodThatIsNotThereIsRefusedNamingIt) {
  file_.metadata["method"] = "q_adapter";
  io::write_safetensors(path_, file_.tensors, file_.metadata);
  EXPECT_THAT(complaint(), AllOf(HasSubstr("q_adapter"), HasSubstr("r_adapter")));
}

TEST_F(RAdapterFile, WithoutAPartOfTheMetadataOrWithOneThatIsNoObjectIsRefusedNamingIt) {
  for (const std::string part : {"options", "context"}) {
    auto metadata = file_.metadata;
    metadata.erase(part);
    io::write_safetensors(path_, file_.tensors, metadata);
    EXPECT_THAT(complaint(), HasSubstr("lacks '" + part + "'"));
    for (const std::string text : {"", "[]", "{", "null"}) {
      metadata[part] = text;
      io::write_safetensors(path_, file_.tensors, metadata);
      EXPECT_THAT(complaint(), HasSubstr(": " + part)) << text;
    }
  }
}

TEST_F(RAdapterFile, ThatSaysItIsALoraIsRefused) {
  file_.metadata.erase("method");  // as files were before there were methods
  io::write_safetensors(path_, file_.tensors, file_.metadata);
  EXPECT_THAT(complaint(), HasSubstr("options"));
}

}  // namespace
}  // namespace clip_lora::testing
