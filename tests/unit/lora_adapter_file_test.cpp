#include <array>
#include <cmath>
#include <limits>

#include "clip_lora/io/torch_pickle.hpp"
#include "unit/lora_files.hpp"

namespace clip_lora::testing {
namespace {

using lora::AdapterFormat;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr std::array kFormats = {AdapterFormat::kAuthors, AdapterFormat::kPeft, AdapterFormat::kSafetensors};

/// All formats.
class AdapterFile : public AdapterFiles, public ::testing::WithParamInterface<AdapterFormat> {
 protected:
  /// Saves a random adapter with `options`.
  lora::LoraAdapter save(const lora::LoraOptions& options = {}) {
    lora::LoraAdapter adapter(clip_, options);
    randomise(adapter);
    lora::save_adapter(path_, adapter, some_context(), GetParam());
    return adapter;
  }
  /// The file, or the files of the folder.
  std::vector<std::filesystem::path> files() const {
    if (!std::filesystem::is_directory(path_)) return {path_};
    return {path_ / "adapter_config.json", path_ / "adapter_model.safetensors", path_ / "clip_lora.json"};
  }
};
INSTANTIATE_TEST_SUITE_P(Formats, AdapterFile, ::testing::ValuesIn(kFormats),
                         [](const auto& format) { return lora::to_string(format.param); });

std::vector<lora::LoraOptions> options_of_every_kind() {
  std::vector<lora::LoraOptions> all(10);
  all[1].encoder = lora::Encoder::kText;
  all[2].encoder = lora::Encoder::kVision;
  all[3].projections = {.q = false, .k = false, .v = false, .o = true};
  all[4].projections = {.q = true, .k = true, .v = true, .o = true};
  all[5].rank = 16;
  all[5].alpha = 0.1;
  all[6].position = lora::Position::kTop3;
  all[7].position = lora::Position::kMiddle;
  all[8].rank = 1;
  all[9].alpha = 0.12345678901234567;  // more digits than most alphas
  all[9].dropout = 0.5;
  return all;
}

TEST_P(AdapterFile, WithNaNOrInfinitiesIsRefusedNamingTheTensor) {
  for (const double value : {std::nan(""), HUGE_VAL}) {
    lora::LoraAdapter adapter(clip_, {});
    randomise(adapter);
    {
      const at::NoGradGuard no_grad;
      adapter.parameters().front()[1][5] = value;
    }
    lora::save_adapter(path_, adapter, some_context(), GetParam());
    EXPECT_THAT(complaint(), AllOf(HasSubstr("infinities or NaN: "), HasSubstr("lora_A"),
                                   HasSubstr(" (1 of 256 values)"), HasSubstr("hint")));
  }
}

TEST_P(AdapterFile, LoadingWhatWasSavedIsTheIdentity) {
  for (const auto& options : options_of_every_kind()) {
    const auto saved = save(options);
    const auto loaded = lora::load_adapter(path_, clip_, some_context().backbone_fingerprint);
    EXPECT_EQ(loaded.format, GetParam());
    EXPECT_EQ(loaded.context, some_context());
    const lora::LoraAdapter adapter = lora_of(loaded);
    expect_same_tensors(adapter.state_dict(), saved.state_dict());
    EXPECT_EQ(adapter.lora_options().rank, options.rank);
    EXPECT_EQ(adapter.lora_options().alpha, options.alpha);
    EXPECT_EQ(adapter.lora_options().dropout, options.dropout);
    EXPECT_EQ(adapter.lora_options().projections, options.projections);
    EXPECT_EQ(adapter.lora_options().encoder, options.encoder);
    EXPECT_EQ(adapter.blocks().front().lora.o.value_or(ops::LowRank{{}, {}, options.scaling(), 0}).scaling,
              options.scaling());
    EXPECT_NO_THROW(lora::require_same_options(adapter, of_lora(options), path_));
  }
}

TEST_P(AdapterFile, AnAdapterThatNoOptionsMakeIsTheSameAgainOrRefusedByTheFormat) {
  const auto adapter = irregular_adapter(clip_);
  const auto save = [&] { lora::save_adapter(path_, adapter, some_context(), GetParam()); };
  if (GetParam() == AdapterFormat::kAuthors) {
    EXPECT_THAT(message_of<ConfigError>(save), AllOf(HasSubstr("weights.pt"), HasSubstr("2 to 5"),
                                                     HasSubstr("blocks 0 3 of text, 1 of vision")));
    EXPECT_FALSE(std::filesystem::exists(path_));
    return;
  }
  save();
  const auto loaded = load();
  expect_same_tensors(loaded.state_dict(), adapter.state_dict());
  EXPECT_FALSE(loaded.lora_options().rank_stabilised);
  ASSERT_EQ(loaded.blocks().size(), 3U);
  EXPECT_DOUBLE_EQ(loaded.blocks()[0].lora.q->scaling, 0.7);
  EXPECT_DOUBLE_EQ(loaded.blocks()[1].lora.k->scaling, 0.5);
  EXPECT_DOUBLE_EQ(loaded.blocks()[1].lora.o->scaling, 1.0 / 3.0);
  EXPECT_DOUBLE_EQ(loaded.blocks()[2].lora.v->scaling, 1.6);
}

TEST_P(AdapterFile, CarriesTheScaleThatItIsMergedAtToWhoeverReadsIt) {
  lora::LoraOptions of_peft;
  of_peft.rank_stabilised = false;
  auto context = some_context();
  context.scale = 0.3;
  for (const auto& options : {lora::LoraOptions(), of_peft}) {
    lora::LoraAdapter adapter(clip_, options);
    randomise(adapter);
    lora::save_adapter(path_, adapter, context, GetParam());
    const auto loaded = lora::load_adapter(path_, clip_, "");
    const auto frozen = clip_->transformer->block(0).weights();
    EXPECT_TRUE(close(loaded.adapter->adapted(0, frozen, loaded.scale).in_proj_weight,
                      adapter.adapted(0, frozen, 0.3).in_proj_weight, 1e-6));  // rounded once more
    const bool is_ours = GetParam() == AdapterFormat::kSafetensors;
    EXPECT_EQ(loaded.scale, is_ours ? 0.3 : 1.0) << "other programs merge at alpha";
    EXPECT_EQ(lora_of(loaded).lora_options().alpha == options.alpha, is_ours);
    std::filesystem::remove_all(path_);
  }
}

TEST_P(AdapterFile, OfScaleZeroIsRefusedWhereAlphaWouldHaveToBeZero) {
  auto context = some_context();
  context.scale = 0.0;
  const auto save = [&] { lora::save_adapter(path_, lora::LoraAdapter(clip_, {}), context, GetParam()); };
  if (GetParam() == AdapterFormat::kSafetensors) {
    EXPECT_NO_THROW(save());
  } else {
    EXPECT_THAT(message_of<ConfigError>(save), AllOf(HasSubstr("weights.pt"), HasSubstr("safetensors")));
    EXPECT_FALSE(std::filesystem::exists(path_));
  }
}

TEST_P(AdapterFile, OfAnotherModelIsRefusedNamingTensorAndShapes) {
  auto wider = tiny_architecture();
  wider.text.width = 192;
  wider.text.heads = 3;
  save();
  EXPECT_THAT(complaint_for(random_clip(wider)),
              AllOf(HasSubstr("q_proj"), HasSubstr("[2, 128]"), HasSubstr("[2, 192]")));
  auto shallower = tiny_architecture();
  shallower.vision.layers = 2;
  EXPECT_THAT(complaint_for(random_clip(shallower)), HasSubstr("unexpected"));
}

TEST_P(AdapterFile, OfAnotherBackboneOfTheSameShapesIsRefusedNamingBoth) {
  save();
  EXPECT_THAT(complaint_for(clip_, "another"),
              AllOf(HasSubstr("ViT-X/1"), HasSubstr("0123456789abcdef"), HasSubstr("vision 192/3/8/24"),
                    HasSubstr("another backbone of the same shapes")));
  EXPECT_NO_THROW(lora::load_adapter(path_, clip_, ""));
}

TEST_P(AdapterFile, TruncatedAnywhereIsRefused) {
  save();
  for (const auto& file : files()) {
    const auto whole = read_bytes(file);
    EXPECT_EQ(refused(file, truncations(whole)), 64) << file;
    write_bytes(file, whole);
  }
}

TEST_P(AdapterFile, WithoutItsLastByteIsRefused) {
  save();
  const auto weights = std::filesystem::is_directory(path_) ? path_ / "adapter_model.safetensors" : path_;
  const auto whole = read_bytes(weights);
  EXPECT_EQ(refused(weights, {whole.substr(0, whole.size() - 1)}), 1);
}

TEST_P(AdapterFile, WithAFlippedByteLoadsOrIsRefused) {
  lora::LoraOptions small;
  small.rank = 1;
  small.position = lora::Position::kMiddle;
  save(small);
  for (const auto& file : files()) {
    const auto whole = read_bytes(file);
    EXPECT_GT(refused(file, flips(whole, 1000)), 0) << file;
    write_bytes(file, whole);
  }
  EXPECT_NO_THROW(load());
}

TEST_P(AdapterFile, LeavesNothingElseBehind) {
  save();
  for (const auto& entry : std::filesystem::directory_iterator(path_.parent_path()))
    EXPECT_EQ(entry.path(), path_);
}

TEST_P(AdapterFile, AMissingFileIsRefusedByName) { EXPECT_THAT(complaint(), HasSubstr("missing")); }

TEST_P(AdapterFile, AnUnwritablePathIsAConfigErrorThatNamesIt) {
  write_bytes(folder_ / "taken", "");
  path_ = folder_ / "taken" / "weights.pt";
  EXPECT_THAT(message_of<ConfigError>([&] { save(); }), HasSubstr("taken"));
}

TEST_P(AdapterFile, LoadedAdaptersAreParametersOfTheirOwn) {
  const at::NoGradGuard no_grad;
  save();
  auto adapter = load();
  const auto kept = snapshot(adapter.state_dict());
  randomise(save());  // another file of the same name
  for (const auto& [name, tensor] : kept)
    EXPECT_TRUE(identical(adapter.state_dict().at(name), tensor)) << name;
  adapter.attach(clip_);
  const auto images = random_images(tiny_architecture(), 2);
  const auto attached = clip_->encode_image(images);
  lora::detach(clip_);
  EXPECT_FALSE(close(clip_->encode_image(images), attached, 1e-3));
}

TEST(AdapterFormatNames, GoThereAndBackAndUnknownOnesAreRefusedWithTheNearest) {
  for (const auto format : kFormats) EXPECT_EQ(lora::parse_adapter_format(lora::to_string(format)), format);
  EXPECT_THAT(message_of<ConfigError>([] { lora::parse_adapter_format("pfet"); }), HasSubstr("peft"));
}

TEST_F(AdapterFiles, SomethingElseIsRefused) {
  for (const std::string bytes : {"", "not a zip", "PK\3\4", "\x80\2}q\1.", "12345678{}"}) {
    write_bytes(folder_ / "weights.pt", bytes);
    path_ = folder_ / "weights.pt";
    complaint();
  }
  path_ = folder_ / "empty";
  std::filesystem::create_directories(path_);
  EXPECT_THAT(complaint(), HasSubstr("adapter_config.json"));
}

/// The release's format, with a dictionary at will.
class AuthorsFile : public AdapterFiles {
 protected:
  AuthorsFile() {
    metadata_.insert("r", 2);
    metadata_.insert("alpha", 1);
    metadata_.insert("encoder", "vision");
    c10::List<std::string> params;
    params.push_back("v");
    metadata_.insert("params", params);
    metadata_.insert("position", "mid");
    auto matrices = io::new_pickle_dict(), layer = io::new_pickle_dict();
    matrices.insert("w_lora_A", at::ones({2, 192}));
    matrices.insert("w_lora_B", at::ones({192, 2}));
    layer.insert("v_proj", matrices);
    weights_.insert("layer_0", layer);
  }
  void write() {
    auto root = io::new_pickle_dict();
    root.insert("weights", weights_);
    root.insert("metadata", metadata_);
    io::write_torch_pickle(path_, root);
  }
  std::string complaint_about(const char* key, const c10::IValue& value) {
    const c10::IValue before = metadata_.at(key);
    metadata_.insert_or_assign(key, value);
    write();
    metadata_.insert_or_assign(key, before);
    return complaint();
  }

  io::PickleDict metadata_ = io::new_pickle_dict();
  io::PickleDict weights_ = io::new_pickle_dict();
};

TEST_F(AuthorsFile, WithoutOurKeysLoadsWithoutAContext) {
  write();
  const auto loaded = lora::load_adapter(path_, clip_, "whatever");
  EXPECT_FALSE(loaded.context.has_value());
  const lora::LoraAdapter adapter = lora_of(loaded);
  EXPECT_EQ(adapter.lora_options().position, lora::Position::kMiddle);
  ASSERT_EQ(adapter.blocks().size(), 1U);
  EXPECT_DOUBLE_EQ(adapter.blocks()[0].lora.v->scaling, 1.0 / std::sqrt(2.0));
}

TEST_F(AuthorsFile, WithMetadataOfAnotherTypeIsRefusedNamingTheKey) {
  for (const char* key : {"r", "alpha", "encoder", "params", "position"}) {
    for (const c10::IValue& value : {c10::IValue(), c10::IValue(true), c10::IValue(io::new_pickle_dict())}) {
      EXPECT_THAT(complaint_about(key, value), HasSubstr(std::string("metadata.") + key));
    }
  }
  EXPECT_THAT(complaint_about("r", "two"), HasSubstr("metadata.r"));
  EXPECT_THAT(complaint_about("encoder", 1), HasSubstr("metadata.encoder"));
}

TEST_F(AuthorsFile, WithImpossibleMetadataIsRefused) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const c10::IValue& rank : {c10::IValue(0), c10::IValue(-1), c10::IValue(2.5), c10::IValue(infinity),
                                  c10::IValue(std::numeric_limits<std::int64_t>::max())}) {
    complaint_about("r", rank);
  }
  for (const double alpha : {0.0, -1.0, infinity, std::nan("")}) complaint_about("alpha", alpha);
  EXPECT_THAT(complaint_about("encoder", "visoin"), HasSubstr("vision"));
  EXPECT_THAT(complaint_about("position", "middle"), HasSubstr("middle"));
  EXPECT_THAT(complaint_about("params", c10::List<std::string>({"x"})), HasSubstr("x"));
}

TEST_F(AuthorsFile, WithOtherTensorsIsRefusedNamingThemAll) {
  weights_.insert("layer_1", io::new_pickle_dict());
  write();
  EXPECT_NO_THROW(load());  // an empty layer adds nothing
  auto layer = weights_.at("layer_0").toGenericDict();
  auto matrices = layer.at("v_proj").toGenericDict();
  layer.insert("q_proj", matrices);
  EXPECT_EQ(matrices.erase("w_lora_B"), 1U);
  write();
  EXPECT_THAT(complaint(), AllOf(HasSubstr("layer_0.v_proj.w_lora_B is missing"),
                                 HasSubstr("layer_0.q_proj.w_lora_A is unexpected")));
  EXPECT_EQ(layer.erase("q_proj"), 1U);
  matrices.insert("w_lora_B", at::ones({192, 2}, at::kLong));
  write();
  EXPECT_THAT(complaint(), HasSubstr("no floating type"));
  matrices.insert_or_assign("w_lora_B", 3);
  write();
  EXPECT_THAT(complaint(), HasSubstr("expected a tensor"));
  weights_.insert_or_assign("layer_0", at::ones({2}));
  write();
  EXPECT_THAT(complaint(), HasSubstr("expected a dictionary"));
}

TEST_F(AuthorsFile, WithoutWeightsOrMetadataIsRefused) {
  auto root = io::new_pickle_dict();
  io::write_torch_pickle(path_, root);
  EXPECT_THAT(complaint(), HasSubstr("metadata"));
  io::write_torch_pickle(path_, at::ones({2}));
  EXPECT_THAT(complaint(), HasSubstr("dictionary"));
}

TEST_F(AuthorsFile, WithAFlippedByteOfATensorOrThePickleIsRefused) {
  write();
  const auto whole = read_bytes(path_);
  const std::string ones = from_hex("0000803f0000803f0000803f0000803f");
  const auto tensor = whole.find(ones), name = whole.find("w_lora_A");
  ASSERT_TRUE(tensor != std::string::npos && name != std::string::npos);
  for (const auto at : {tensor, tensor + 700, name, name + 3}) {
    auto bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
    EXPECT_EQ(refused(path_, {bytes}), 1) << at;
  }
}

TEST_F(AuthorsFile, OfPeftsScalingHasTheAlphaOfTheSameScaling) {
  lora::LoraOptions options;
  options.rank = 4;
  options.alpha = 8;
  options.rank_stabilised = false;  // 8 / 4
  const lora::LoraAdapter adapter(clip_, options);
  lora::save_adapter(path_, adapter, {});
  const auto loaded = load();
  EXPECT_TRUE(loaded.lora_options().rank_stabilised);
  EXPECT_EQ(loaded.lora_options().alpha, 4.0);  // 4 / √4
  EXPECT_EQ(loaded.lora_options().scaling(), 2.0);
}

}  // namespace
}  // namespace clip_lora::testing
