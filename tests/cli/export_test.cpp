#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "cli/program.hpp"
#include "cli/small_task.hpp"
#include "clip_lora/io/safetensors.hpp"
#include "clip_lora/io/torch_pickle.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "support/files.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::UnorderedElementsAre;

std::vector<std::string> files_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& file : fs::directory_iterator(folder)) names.push_back(file.path().filename());
  return names;
}

std::string fingerprint_of(const fs::path& checkpoint) {
  const model::LoadedClip loaded = model::load_clip(io::read_checkpoint_files(checkpoint));
  return model::fingerprint(loaded.clip);
}

/// A task with a trained adapter, and a folder for what is exported.
class Export : public ::testing::Test {
 protected:
  Export() {
    trained_ = run_program(task_.arguments({{"--lr", "0.05"}, {"--params", "q k v o"}}));
    EXPECT_EQ(trained_.exit_code, 0) << trained_.errors;
    fs::create_directories(task_ / "out");
  }
  fs::path adapter() const { return task_.result_folder() / "lora_weights.pt"; }
  fs::path out(const std::string& name) const { return task_ / "out" / name; }

  /// `clip_lora export` of the trained adapter, with `changes` to its flags; "-" leaves a flag out.
  Outcome run(const std::string& to, const std::string& name,
              const std::map<std::string, std::string>& changes = {}) const {
    std::map<std::string, std::string> flags = {{"--checkpoint", task_.checkpoint().string()},
                                                {"--adapter", adapter().string()},
                                                {"--to", to},
                                                {"--out", out(name).string()}};
    for (const auto& [flag, value] : changes) flags[flag] = value;
    std::vector<std::string> words = {"export"};
    for (const auto& [flag, value] : flags) {
      if (value == "-") continue;
      words.push_back(flag);
      if (!value.empty()) words.push_back(value);
    }
    return run_program(words);
  }

  fs::path done(const std::string& to, const std::string& name,
                const std::map<std::string, std::string>& changes = {}) const {
    const Outcome outcome = run(to, name, changes);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
    EXPECT_THAT(outcome.line("exported"), HasSubstr(to));
    return out(name);
  }

  /// The complaint of an export that must fail with `exit_code` and write nothing.
  std::string refusal(int exit_code, const std::string& to, const std::string& name,
                      const std::map<std::string, std::string>& changes = {}) const {
    const auto before = files_in(task_ / "out");
    const Outcome outcome = run(to, name, changes);
    EXPECT_EQ(outcome.exit_code, exit_code) << outcome.errors;
    EXPECT_EQ(files_in(task_ / "out"), before);
    return outcome.errors;
  }

  /// The trained adapter as if `preprocessing` had been that of its training.
  fs::path trained_with(const json& preprocessing) const {
    fs::path file = task_ / "changed.safetensors";
    run("safetensors", "", {{"--out", file.string()}, {"--force", ""}});
    const io::Safetensors adapter = io::read_safetensors(file);
    auto metadata = adapter.metadata;
    json context = json::parse(metadata.at("context"));
    context["preprocessing"].update(preprocessing);
    metadata["context"] = context.dump();
    io::write_safetensors(file, adapter.tensors, metadata);
    return file;
  }

  SmallTask task_;
  Outcome trained_;
};

json read_json(const fs::path& path) { return json::parse(read_bytes(path)); }

TEST_F(Export, EveryAdapterFormatGivesTheSameMergedModel) {
  const std::string merged = fingerprint_of(done("openclip", "from_authors"));
  EXPECT_NE(merged, fingerprint_of(task_.checkpoint()));
  for (const char* format : {"authors", "peft", "safetensors"}) {
    const fs::path converted = done(format, format);
    const fs::path model =
        done("openclip", std::string("from_") + format + "_again", {{"--adapter", converted.string()}});
    EXPECT_EQ(fingerprint_of(model), merged) << format;
  }
  EXPECT_THAT(files_in(task_ / "out"), IsSupersetOf({"authors", "peft", "safetensors"}));
}

TEST_F(Export, AnAdapterOfAnotherScaleIsTheSameForWhoeverMergesAtAlpha) {
  const Outcome trained = run_program(task_.arguments({{"--lr", "0.05"}, {"--eval_scale", "0.5"}}));
  ASSERT_EQ(trained.exit_code, 0) << trained.errors;
  const std::string scaled = (task_.result_folder() / "lora_weights.safetensors").string();
  const auto merged = fingerprint_of(done("openai", "scaled.pt", {{"--adapter", scaled}}));
  for (const std::string format : {"authors", "peft"}) {
    const Outcome exported = run(format, format, {{"--adapter", scaled}});
    ASSERT_EQ(exported.exit_code, 0) << exported.errors;
    EXPECT_THAT(exported.errors, HasSubstr("0.5, is a part of alpha"));
    EXPECT_EQ(fingerprint_of(done("openai", format + ".pt", {{"--adapter", out(format).string()}})), merged);
  }
  EXPECT_EQ(json::parse(read_bytes(out("peft") / "adapter_config.json"))["lora_alpha"], 0.5);
}

TEST_F(Export, EveryModelFormatHoldsTheSameModelAndNeedsNoWarningWhereItHasAConfiguration) {
  const std::string merged = fingerprint_of(done("openclip", "openclip"));
  EXPECT_EQ(fingerprint_of(done("hf", "hf")), merged);
  EXPECT_EQ(fingerprint_of(done("openai", "openai.pt")), merged);
  for (const char* folder : {"openclip", "hf"}) {
    const model::LoadedClip loaded = model::load_clip(io::read_checkpoint_files(out(folder)));
    EXPECT_THAT(loaded.warnings, ElementsAre());
    EXPECT_EQ(loaded.preprocessing.size_px, 32);
  }
  EXPECT_THAT(files_in(out("openclip")),
              UnorderedElementsAre("open_clip_model.safetensors", "open_clip_config.json", "clip_lora.json"));
  EXPECT_THAT(files_in(out("hf")),
              UnorderedElementsAre("model.safetensors", "config.json", "preprocessor_config.json",
                                   "vocab.json", "merges.txt", "tokenizer_config.json",
                                   "special_tokens_map.json", "clip_lora.json"));
  for (const fs::path& path :
       {out("openclip") / "clip_lora.json", out("hf") / "clip_lora.json", out("openai.pt.json")}) {
    const auto context = nlohmann::json::parse(read_bytes(path));
    EXPECT_EQ(context.at("backbone_fingerprint"), fingerprint_of(task_.checkpoint())) << path;
    EXPECT_FALSE(context.at("class_names").empty()) << path;
  }
}

TEST_F(Export, TheMergedModelsZeroShotAccuracyIsTheAdaptedOne) {
  const fs::path merged = done("hf", "hf");
  const Outcome outcome =
      run_program(task_.arguments({{"--checkpoint", merged.string()}, {"--n_iters", "1"}}));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  const auto number = [](const std::string& line) { return line.substr(11, line.find('%') - 11); };
  EXPECT_EQ(number(outcome.line("zero-shot")), number(trained_.line("adapted")));
}

TEST_F(Export, WithoutAnAdapterTheModelIsConvertedAsItIs) {
  EXPECT_EQ(fingerprint_of(done("hf", "hf", {{"--adapter", "-"}})), fingerprint_of(task_.checkpoint()));
}

TEST_F(Export, DtypeIsThatOfTheStoredWeights) {
  const auto halves =
      io::read_safetensors(done("openclip", "a", {{"--dtype", "fp16"}}) / "open_clip_model.safetensors");
  EXPECT_EQ(halves.tensors.at("visual.proj").scalar_type(), at::kHalf);
  const auto root =
      io::read_torch_archive(done("openai", "b.pt", {{"--dtype", "bf16"}})).root.toGenericDict();
  EXPECT_EQ(root.at("visual.proj").toTensor().scalar_type(), at::kBFloat16);
}

TEST_F(Export, NothingIsReplacedWithoutForce) {
  write_bytes(out("mine"), "mine");
  EXPECT_THAT(refusal(2, "openai", "mine"), HasSubstr("--force"));
  EXPECT_THAT(refusal(2, "hf", "mine"), HasSubstr("--force"));
  write_bytes(out("free.json"), "mine");
  EXPECT_THAT(refusal(2, "onnx", "free"), HasSubstr("free.json"));
  EXPECT_EQ(read_bytes(out("mine")), "mine");

  done("openai", "mine", {{"--force", ""}});
  EXPECT_NE(read_bytes(out("mine")), "mine");
}

TEST_F(Export, ForceReplacesAFolderOfItsOwnFilesOnly) {
  const fs::path folder = done("hf", "hf", {{"--adapter", "-"}});
  const std::string before = read_bytes(folder / "model.safetensors");
  done("hf", "hf", {{"--force", ""}});
  EXPECT_NE(read_bytes(folder / "model.safetensors"), before);
  write_bytes(folder / "thesis.tex", "years of work");
  EXPECT_THAT(refusal(2, "hf", "hf", {{"--force", ""}}), HasSubstr("thesis.tex"));
  EXPECT_EQ(read_bytes(folder / "thesis.tex"), "years of work");
}

TEST_F(Export, OnnxHasItsClassesAndPreprocessingInAJsonBesideIt) {
  const fs::path file = done("onnx", "model.onnx", {{"--onnx_towers", ""}});
  EXPECT_THAT(files_in(task_ / "out"),
              UnorderedElementsAre("model.onnx", "model.onnx.json", "model_image.onnx", "model_text.onnx"));
  const json facts = json::parse(read_bytes(file.string() + ".json"));
  EXPECT_EQ(facts["class_names"].size(), 16U);
  EXPECT_EQ(facts["class_names"][0], "circle");
  EXPECT_EQ(facts["templates"], json({"a photo of a {}."}));
  EXPECT_EQ(facts["dataset"], "shapes");
  EXPECT_EQ(facts["preprocessing"]["size"], 32);
  const std::string bytes = read_bytes(file);
  EXPECT_THAT(bytes, HasSubstr("class_names"));
  EXPECT_THAT(bytes, HasSubstr("preprocessing"));
}

TEST_F(Export, OnnxTakesClassesFromAFile) {
  write_bytes(task_ / "names.txt", "cat\r\ndog\n\n");
  const fs::path file =
      done("onnx", "model.onnx", {{"--adapter", "-"}, {"--class_names", (task_ / "names.txt").string()}});
  EXPECT_EQ(json::parse(read_bytes(file.string() + ".json"))["class_names"], json({"cat", "dog"}));
}

TEST_F(Export, OnnxWithoutClassesIsRefused) {
  EXPECT_THAT(refusal(2, "onnx", "model.onnx", {{"--adapter", "-"}}), HasSubstr("--class_names FILE"));
  EXPECT_THAT(refusal(2, "onnx", "model.onnx", {{"--class_names", "missing.txt"}}), HasSubstr("missing.txt"));
  write_bytes(task_ / "empty.txt", "\n");
  EXPECT_THAT(refusal(2, "onnx", "model.onnx", {{"--class_names", (task_ / "empty.txt").string()}}),
              HasSubstr("names no class"));
}

TEST_F(Export, WhatOpenAisFormatCannotSayIsRefused) {
  const std::string errors = refusal(2, "openai", "a.pt", {{"--activation", "gelu"}});
  EXPECT_THAT(errors, HasSubstr("quick_gelu"));
  EXPECT_THAT(errors, HasSubstr("--to openclip"));
}

TEST_F(Export, WeightsThatFp16CannotHoldAreRefused) {
  io::Safetensors file = io::read_safetensors(task_.checkpoint());
  file.tensors.at("visual.proj") = file.tensors.at("visual.proj").clone().fill_(1e6);
  io::write_safetensors(task_ / "large.safetensors", file.tensors, file.metadata);
  const std::string errors = refusal(
      2, "hf", "a",
      {{"--checkpoint", (task_ / "large.safetensors").string()}, {"--adapter", "-"}, {"--dtype", "fp16"}});
  EXPECT_THAT(errors, HasSubstr("visual.proj"));
}

TEST_F(Export, OfSeveralFilesAllAreWrittenOrNone) {
  io::Safetensors file = io::read_safetensors(task_.checkpoint());
  file.tensors.at("token_embedding.weight") = file.tensors.at("token_embedding.weight").mul(1e9);
  io::write_safetensors(task_ / "large.safetensors", file.tensors, file.metadata);
  write_bytes(task_ / "names.txt", "cat\ndog\n");
  // The text tower is written last.
  const std::string errors = refusal(2, "onnx", "a.onnx",
                                     {{"--checkpoint", (task_ / "large.safetensors").string()},
                                      {"--adapter", "-"},
                                      {"--class_names", (task_ / "names.txt").string()},
                                      {"--dtype", "fp16"},
                                      {"--onnx_towers", ""}});
  EXPECT_THAT(errors, HasSubstr("token_embedding.weight"));
}

TEST_F(Export, AnAdapterOfAnotherBackboneIsRefused) {
  const SmallTask other;
  const std::string errors = refusal(4, "hf", "a", {{"--checkpoint", other.checkpoint().string()}});
  EXPECT_THAT(errors, HasSubstr(adapter().string()));
  EXPECT_THAT(errors, HasSubstr("another backbone of the same shapes"));
}

TEST_F(Export, EveryFormatSaysTheAdaptersPreprocessing) {
  const std::map<std::string, std::string> adapter = {
      {"--adapter", trained_with({{"resize_mode", "squash"}, {"exif", true}}).string()}};
  const json hugging_face = read_json(done("hf", "hf", adapter) / "preprocessor_config.json");
  EXPECT_EQ(hugging_face["size"], json({{"height", 32}, {"width", 32}}));
  const json open_clip = read_json(done("openclip", "openclip", adapter) / "open_clip_config.json");
  EXPECT_EQ(open_clip["preprocess_cfg"]["resize_mode"], "squash");
  for (const json& theirs : {hugging_face, open_clip["preprocess_cfg"]}) {
    EXPECT_FALSE(theirs.contains("exif")) << theirs;
  }
  const fs::path onnx = done("onnx", "model.onnx", adapter);
  const fs::path open_ai = done("openai", "model.pt", adapter);
  for (const fs::path& ours : {out("hf") / "clip_lora.json", out("openclip") / "clip_lora.json",
                               fs::path(onnx.string() + ".json"), fs::path(open_ai.string() + ".json")}) {
    EXPECT_EQ(read_json(ours)["preprocessing"]["resize_mode"], "squash") << ours;
    EXPECT_EQ(read_json(ours)["preprocessing"]["exif"], true) << ours;
  }
}

TEST_F(Export, APreprocessingThatAFormatOrTheModelDoesNotHaveIsRefused) {
  const std::string longest = trained_with({{"resize_mode", "longest"}}).string();
  EXPECT_THAT(refusal(2, "hf", "a", {{"--adapter", longest}}), HasSubstr("resize_mode is longest"));
  const std::string larger = trained_with({{"size", 48}}).string();
  const std::string errors = refusal(4, "openclip", "a", {{"--adapter", larger}});
  EXPECT_THAT(errors, HasSubstr(larger));
  EXPECT_THAT(errors, HasSubstr("size is 48, expected the 32 pixels"));
  const std::string broken = trained_with({{"size", 32}, {"std", 0}}).string();
  EXPECT_THAT(refusal(4, "onnx", "a.onnx", {{"--adapter", broken}}), HasSubstr(broken));
}

TEST_F(Export, AnAdaptersPreprocessingCountsNotTheCheckpoints) {
  io::Safetensors file = io::read_safetensors(task_.checkpoint());
  json configuration = json::parse(file.metadata.at("clip_lora.configuration"));
  configuration["preprocess_cfg"]["resize_mode"] = "squash";
  file.metadata.at("clip_lora.configuration") = configuration.dump();
  io::write_safetensors(task_ / "squash.safetensors", file.tensors, file.metadata);
  const fs::path folder = done("hf", "a", {{"--checkpoint", (task_ / "squash.safetensors").string()}});
  EXPECT_EQ(read_json(folder / "preprocessor_config.json")["size"], json({{"shortest_edge", 32}}));
}

TEST_F(Export, ABackboneThatIsWrittenOutMustBeTheCheckpointsEvenWhereItIsTheDefault) {
  EXPECT_THAT(refusal(2, "hf", "a", {{"--backbone", "ViT-B/16"}}), HasSubstr("--backbone 'ViT-B/16'"));
  done("hf", "a", {{"--backbone", "small"}});
}

TEST_F(Export, AFolderThatCannotBeWrittenIsNamed) {
  write_bytes(out("file"), "not a folder");
  const std::string below = out("file").string() + "/model";
  EXPECT_THAT(refusal(2, "hf", "file/model"), HasSubstr(below));
  EXPECT_THAT(refusal(2, "openai", "file/model"), HasSubstr(out("file").string()));
}

TEST_F(Export, UsageErrorsNameTheFlagAndWhatIsAllowed) {
  EXPECT_THAT(refusal(2, "hff", "a"), HasSubstr("did you mean 'hf'"));
  EXPECT_THAT(refusal(2, "-", "a"), HasSubstr("--to is missing: expected authors, peft"));
  EXPECT_THAT(refusal(2, "hf", "a", {{"--out", "-"}}), HasSubstr("--out is missing"));
  EXPECT_THAT(refusal(2, "peft", "a", {{"--adapter", "-"}}), HasSubstr("--to peft needs --adapter"));
  EXPECT_THAT(refusal(2, "hf", "a", {{"--dtype", "fp8"}}), HasSubstr("--dtype 'fp8'"));
  EXPECT_THAT(refusal(2, "peft", "a", {{"--dtype", "fp16"}}), HasSubstr("--dtype fp16"));
  EXPECT_THAT(refusal(2, "onnx", "a", {{"--dtype", "bf16"}}), HasSubstr("expected fp32 or fp16"));
  EXPECT_THAT(refusal(2, "hf", "a", {{"--onnx_towers", ""}}), HasSubstr("--to onnx only"));
  EXPECT_THAT(refusal(2, "hf", "a", {{"--outt", "b"}}), HasSubstr("did you mean '--out'"));
}

}  // namespace
}  // namespace clip_lora::testing
