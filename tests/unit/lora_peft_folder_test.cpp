#include <cmath>

#include "clip_lora/io/safetensors.hpp"
#include "clip_lora/io/torch_pickle.hpp"
#include "unit/lora_files.hpp"

namespace clip_lora::testing {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

/// Folders as PEFT writes them: a configuration, and tensors under Hugging Face's names.
class PeftFolder : public AdapterFiles {
 protected:
  PeftFolder() { std::filesystem::create_directories(path_); }

  /// Random tensors of `module` of the text tower, which is 128 wide, or of the vision tower, 192.
  void add(const std::string& module, std::int64_t rank = 2, at::ScalarType type = at::kFloat) {
    const std::int64_t width = module.starts_with("text") ? 128 : 192;
    tensors_["base_model.model." + module + ".lora_A.weight"] = at::randn({rank, width}).to(type);
    tensors_["base_model.model." + module + ".lora_B.weight"] = at::randn({width, rank}).to(type);
  }
  /// Every layer's projection of that name in both towers.
  void add_everywhere(const std::string& projection, std::int64_t rank = 2) {
    for (int i = 0; i < 4; ++i) add(text(i, projection), rank);
    for (int i = 0; i < 3; ++i) add(vision(i, projection), rank);
  }
  static std::string text(int layer, const std::string& projection) {
    return "text_model.encoder.layers." + std::to_string(layer) + ".self_attn." + projection;
  }
  static std::string vision(int layer, const std::string& projection) {
    return "vision_model.encoder.layers." + std::to_string(layer) + ".self_attn." + projection;
  }
  void write() {
    write_bytes(path_ / "adapter_config.json", config_.dump());
    io::write_safetensors(path_ / "adapter_model.safetensors", tensors_, {{"format", "pt"}});
  }
  /// The complaint about the configuration with that value.
  std::string complaint_about(const std::string& key, const json& value) {
    const json before = config_;
    config_[key] = value;
    write();
    config_ = before;
    return complaint();
  }

  // The keys that PEFT 0.21 writes.
  json config_ = json::parse(R"({"alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null,
    "auto_mapping": {"base_model_class": "CLIPModel", "parent_library": "transformers.models.clip.modeling_clip"},
    "base_model_name_or_path": null, "bias": "none", "corda_config": null, "ensure_weight_tying": false,
    "eva_config": null, "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": true,
    "init_lora_weights": true, "kasa_config": null, "layer_replication": null, "layers_pattern": null,
    "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 8, "lora_bias": false, "lora_dropout": 0.1,
    "lora_ga_config": null, "megatron_config": null, "megatron_core": "megatron.core", "modules_to_save": null,
    "monteclora_config": null, "peft_type": "LORA", "peft_version": "0.21.2", "qalora_group_size": 16, "r": 2,
    "rank_pattern": {}, "revision": null, "target_modules": ["q_proj"], "target_parameters": null, "task_type": null,
    "trainable_token_indices": null, "use_bdlora": null, "use_dora": false, "use_qalora": false, "use_rslora": false,
    "velora_config": null})");
  io::StateDict tensors_;
};

TEST_F(PeftFolder, ScalesByAlphaOverTheRankOrItsRoot) {
  add_everywhere("q_proj");
  write();
  const auto plain = load();
  EXPECT_EQ(plain.blocks().size(), 7U);
  EXPECT_EQ(plain.blocks()[0].lora.q->scaling, 4.0);
  EXPECT_EQ(plain.lora_options().dropout, 0.1);
  EXPECT_FALSE(lora::load_adapter(path_, clip_, "any").context.has_value());
  config_["use_rslora"] = true;
  write();
  EXPECT_EQ(load().blocks()[0].lora.q->scaling, 8.0 / std::sqrt(2.0));
}

TEST_F(PeftFolder, IsWrittenAgainWithTheSameTensorsAndSettings) {
  add_everywhere("q_proj");
  add_everywhere("out_proj", 5);
  config_["target_modules"] = {"out_proj", "q_proj"};
  config_["rank_pattern"] = {{"out_proj", 5}};
  config_["alpha_pattern"] = {{"layers.1.self_attn.q_proj", 0.3}, {".*out_proj", 16}};
  for (const bool stabilised : {false, true}) {
    config_["use_rslora"] = stabilised;
    write();
    const auto adapter = load();
    path_ = folder_ / ("again" + std::to_string(stabilised));
    lora::save_adapter(path_, adapter, some_context(), lora::AdapterFormat::kPeft);
    const auto again = io::read_safetensors(path_ / "adapter_model.safetensors");
    ASSERT_EQ(again.tensors.size(), tensors_.size());
    for (const auto& [name, tensor] : tensors_)
      EXPECT_TRUE(identical(again.tensors.at(name), tensor)) << name;
    const auto config = json::parse(read_bytes(path_ / "adapter_config.json"));
    for (const char* key : {"r", "lora_alpha", "use_rslora", "lora_dropout", "bias", "peft_type"}) {
      EXPECT_EQ(config[key], config_[key]) << key;
    }
    EXPECT_EQ(config["rank_pattern"][vision(0, "out_proj")], 5);
    EXPECT_EQ(config["alpha_pattern"][text(1, "q_proj")], 0.3);
    EXPECT_EQ(config["alpha_pattern"][text(3, "out_proj")], 16);
    EXPECT_FALSE(config["alpha_pattern"].contains(text(0, "q_proj")));
    path_ = folder_ / "runs" / "weights.pt";
  }
}

TEST_F(PeftFolder, HasTheScaleOfEvaluationInItsAlpha) {
  auto context = some_context();
  context.scale = 0.5;
  lora::save_adapter(path_, lora::LoraAdapter(clip_, {}), context, lora::AdapterFormat::kPeft);
  const auto config = json::parse(read_bytes(path_ / "adapter_config.json"));
  EXPECT_EQ(config["lora_alpha"], 0.5);
  EXPECT_EQ(config["alpha_pattern"], json::object()) << "one alpha for all";
}

TEST_F(PeftFolder, PatternsOfRankAndAlphaAreTheFirstThatMatches) {
  add_everywhere("q_proj", 2);
  add(text(3, "q_proj"), 6);
  config_["alpha_pattern"] = {{"layers.0.self_attn.q_proj", 3}, {"vision_model.*", 5}};
  config_["rank_pattern"] = {{R"(text_model\.encoder\.layers\.(3|7)\.self_attn\.q_proj)", 6}, {"encoder", 9}};
  write();
  const auto adapter = load();
  EXPECT_EQ(adapter.blocks()[0].lora.q->scaling, 1.5);
  EXPECT_EQ(adapter.blocks()[1].lora.q->scaling, 4.0);
  EXPECT_EQ(adapter.blocks()[3].lora.q->a.size(0), 6);
  EXPECT_EQ(adapter.blocks()[3].lora.q->scaling, 8.0 / 6.0);
  EXPECT_EQ(adapter.blocks()[4].lora.q->scaling, 1.5);  // vision 0: both match, in this order
  EXPECT_EQ(adapter.blocks()[5].lora.q->scaling, 2.5);
}

TEST_F(PeftFolder, TargetsAreNamesOrOneRegularExpression) {
  add(text(0, "q_proj"));
  add(text(3, "q_proj"));
  const std::vector<json> targets = {
      {text(0, "q_proj"), text(3, "q_proj")},
      R"(text_model\.encoder\.layers\.(?:0|3)\.self_attn\.q_proj)",
      R"((?!vision_model).*\.(?P<layer>0|3)\..*q_proj)",
      {"layers.0.self_attn.q_proj", "3.self_attn.q_proj"},
  };
  for (const auto& target : targets) {
    config_["target_modules"] = target;
    write();
    EXPECT_EQ(load().blocks().size(), 2U) << target;
  }
}

TEST_F(PeftFolder, LayersToTransformNarrowsTheTargets) {
  for (int i = 1; i < 3; ++i) {
    add(text(i, "q_proj"));
    add(vision(i, "q_proj"));
  }
  config_["layers_to_transform"] = {1, 2};
  for (const json& pattern : {json(), json("layers"), json({"h", "layers"})}) {
    config_["layers_pattern"] = pattern;
    write();
    EXPECT_EQ(load().blocks().size(), 4U) << pattern;
  }
  EXPECT_THAT(complaint_about("layers_to_transform", 1), HasSubstr("none of the target_modules"));
  EXPECT_THAT(complaint_about("layers_to_transform", {0, 1, 2}),
              HasSubstr("layers.0.self_attn.q_proj.lora_A.weight is missing"));
  EXPECT_THAT(complaint_about("layers_pattern", "blocks"), HasSubstr("none of the target_modules"));
  EXPECT_THAT(complaint_about("target_modules", ".*q_proj"), HasSubstr("layers_to_transform"));
}

TEST_F(PeftFolder, ExcludedModulesAreNotTargeted) {
  for (int i = 0; i < 3; ++i) add(vision(i, "q_proj"));
  for (int i = 1; i < 4; ++i) add(text(i, "q_proj"));
  for (const json& excluded : {json({text(0, "q_proj")}), json(R"(text_model\.encoder\.layers\.0\..*)")}) {
    config_["exclude_modules"] = excluded;
    write();
    EXPECT_EQ(load().blocks().size(), 6U) << excluded;
  }
}

TEST_F(PeftFolder, OfOneTowersModelAdaptsThatTower) {
  for (int i = 0; i < 4; ++i) add(text(i, "q_proj"));
  write();
  EXPECT_EQ(load().lora_options().encoder, lora::Encoder::kText);
}

TEST_F(PeftFolder, OfTorchsPickleIsReadToo) {
  add_everywhere("q_proj");
  write();
  const auto expected = load().state_dict();
  auto root = io::new_pickle_dict();
  for (const auto& [name, tensor] : tensors_) root.insert(name, tensor);
  std::filesystem::remove(path_ / "adapter_model.safetensors");
  EXPECT_THAT(complaint(), AllOf(HasSubstr("adapter_model.safetensors"), HasSubstr("adapter_model.bin")));
  io::write_torch_pickle(path_ / "adapter_model.bin", root);
  expect_same_tensors(load().state_dict(), expected);
  root.insert("number", 1);
  io::write_torch_pickle(path_ / "adapter_model.bin", root);
  EXPECT_THAT(complaint(), HasSubstr("expected names and tensors"));
}

TEST_F(PeftFolder, OfHalfPrecisionBecomesSinglePrecision) {
  for (const auto type : {at::kHalf, at::kBFloat16}) {
    for (int i = 0; i < 3; ++i) add(vision(i, "q_proj"), 2, type);
    write();
    const auto adapter = load();
    const auto& stored = tensors_.at("base_model.model." + vision(0, "q_proj") + ".lora_A.weight");
    EXPECT_TRUE(identical(adapter.blocks()[0].lora.q->a, stored.to(at::kFloat)));
  }
}

TEST_F(PeftFolder, OfAnotherMethodIsRefusedNamingWhatWasFound) {
  add_everywhere("q_proj");
  for (const auto& [key, value] : std::map<std::string, json>{{"peft_type", "LOHA"},
                                                              {"use_dora", true},
                                                              {"use_qalora", true},
                                                              {"use_bdlora", {{"nblocks", 2}}},
                                                              {"use_something_of_later", true},
                                                              {"arrow_config", {{"top_k", 3}}},
                                                              {"velora_config", {{"num_groups", 3}}},
                                                              {"monteclora_config", {{"x", 3}}},
                                                              {"kasa_config", {{"beta", 3}}},
                                                              {"megatron_config", {{"x", 3}}},
                                                              {"modules_to_save", {"visual_projection"}},
                                                              {"bias", "lora_only"},
                                                              {"lora_bias", true},
                                                              {"fan_in_fan_out", true},
                                                              {"layer_replication", {{0, 2}}},
                                                              {"trainable_token_indices", {1}},
                                                              {"target_parameters", {"x"}},
                                                              {"alora_invocation_tokens", {1}},
                                                              {"init_lora_weights", "pissa_niter_4"}}) {
    EXPECT_THAT(complaint_about(key, value), HasSubstr(key));
  }
}

TEST_F(PeftFolder, KeysThatChangeNothingAreIgnored) {
  add_everywhere("q_proj");
  config_.update(
      {{"init_lora_weights", "gaussian"}, {"eva_config", {{"rho", 2}}}, {"loftq_config", {{"bits", 4}}}});
  config_.update({{"modules_to_save", json::array()}, {"note", "of a later version"}, {"revision", "main"}});
  write();
  EXPECT_NO_THROW(load());
}

TEST_F(PeftFolder, WithAConfigurationOfWrongTypesIsRefusedNamingTheKey) {
  add_everywhere("q_proj");
  const std::map<std::string, std::vector<json>> wrong = {
      {"peft_type", {nullptr, 1, "", {{"x", 1}}}},
      {"r", {"2", 2.5, 0, -2, true, json::array()}},
      {"lora_alpha", {"8", 0, -1, true, {8}}},
      {"use_rslora", {1, "true", json::array()}},
      {"lora_dropout", {"0", 1.0, -0.5, true}},
      {"target_modules",
       {nullptr, 1, {1}, json::array(), {{"x", 1}}, "(", "*", std::string(1000, '('), "(?R)*x"}},
      {"exclude_modules", {1, {1}, "["}},
      {"layers_to_transform", {"1", {"1"}, 1.5, {{"x", 1}}}},
      {"rank_pattern", {1, "x", {2}, {{"q_proj", "2"}}, {{"q_proj", 0}}, {{"(", 2}}}},
      {"alpha_pattern", {1, "x", {2}, {{"q_proj", "2"}}, {{"[", 2}}}}};
  for (const auto& [key, values] : wrong) {
    for (const auto& value : values) EXPECT_THAT(complaint_about(key, value), HasSubstr(key)) << value;
  }
}

TEST_F(PeftFolder, WithAnExpressionThatTakesForEverIsRefused) {
  add_everywhere("q_proj");
  EXPECT_THAT(complaint_about("target_modules", "(([a-z._0-9]+)+)+!"), HasSubstr("target_modules"));
}

TEST_F(PeftFolder, WithAConfigurationThatIsNoObjectIsRefused) {
  add_everywhere("q_proj");
  write();
  const std::vector<std::string> contents = {"",
                                             "[]",
                                             "1",
                                             "{",
                                             "\xff",
                                             "{\"peft_type\"",
                                             std::string(100'000, '['),
                                             "{\"x\":" + std::string(100'000, '['),
                                             "{}"};
  EXPECT_EQ(refused(path_ / "adapter_config.json", contents), static_cast<int>(contents.size()));
}

TEST_F(PeftFolder, WithOtherTensorsIsRefusedNamingThem) {
  add_everywhere("q_proj");
  add(text(4, "q_proj"));  // the tower has four layers
  tensors_["base_model.model.text_model.encoder.layers.0.mlp.fc1.lora_A.weight"] = at::ones({2, 128});
  tensors_.erase("base_model.model." + vision(1, "q_proj") + ".lora_B.weight");
  write();
  EXPECT_THAT(complaint(),
              AllOf(HasSubstr("layers.4.self_attn.q_proj.lora_A.weight is unexpected"), HasSubstr("fc1"),
                    HasSubstr("layers.1.self_attn.q_proj.lora_B.weight is missing")));
}

TEST_F(PeftFolder, WithAContextOfWrongTypesIsRefused) {
  lora::save_adapter(path_, irregular_adapter(clip_), some_context(), lora::AdapterFormat::kPeft);
  const auto good = json::parse(read_bytes(path_ / "clip_lora.json"));
  for (const auto& [key, unused] : good.items()) {
    for (const json& value : {json(nullptr), json(true), json({1})}) {
      if (key == "preprocessing" && value.is_null()) continue;
      auto bad = good;
      bad[key] = value;
      write_bytes(path_ / "clip_lora.json", bad.dump());
      EXPECT_THAT(complaint(), HasSubstr(key));
    }
  }
}

TEST_F(PeftFolder, ThatExistsKeepsItsOtherFiles) {
  write_bytes(path_ / "README.md", "mine");
  const auto adapter = irregular_adapter(clip_);
  lora::save_adapter(path_, adapter, some_context(), lora::AdapterFormat::kPeft);
  EXPECT_EQ(read_bytes(path_ / "README.md"), "mine");
  expect_same_tensors(load().state_dict(), adapter.state_dict());
}

TEST_F(PeftFolder, ThatIsEmptyOrNamedWithASlashIsFilled) {
  const auto adapter = irregular_adapter(clip_);
  lora::save_adapter(path_ / "", adapter, some_context(), lora::AdapterFormat::kPeft);
  expect_same_tensors(load().state_dict(), adapter.state_dict());
}

TEST_F(PeftFolder, IsNotWrittenOverAFile) {
  write_bytes(folder_ / "file", "mine");
  const auto message = message_of<ConfigError>([&] {
    lora::save_adapter(folder_ / "file", irregular_adapter(clip_), {}, lora::AdapterFormat::kPeft);
  });
  EXPECT_THAT(message, HasSubstr("file"));
  EXPECT_EQ(read_bytes(folder_ / "file"), "mine");
}

TEST_F(PeftFolder, NamesBothTowersLayersInFullUnlessEveryLayerIsAdapted) {
  const auto target_modules = [&](const lora::LoraOptions& options) {
    lora::save_adapter(path_, lora::LoraAdapter(clip_, options), {}, lora::AdapterFormat::kPeft);
    return json::parse(read_bytes(path_ / "adapter_config.json"))["target_modules"];
  };
  EXPECT_EQ(target_modules({}), json({"q_proj", "k_proj", "v_proj"}));
  lora::LoraOptions options;
  options.encoder = lora::Encoder::kText;
  options.projections = {.q = true, .k = false, .v = false, .o = false};
  EXPECT_EQ(target_modules(options),
            json({text(0, "q_proj"), text(1, "q_proj"), text(2, "q_proj"), text(3, "q_proj")}));
}

}  // namespace
}  // namespace clip_lora::testing
