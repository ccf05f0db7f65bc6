#include <torch/torch.h>

#include <filesystem>

#include "clip_lora/lora/adapter_description.hpp"
#include "clip_lora/lora/adapter_file.hpp"
#include "clip_lora/lora/method.hpp"
#include "forms.hpp"
#include "support/archive_builder.hpp"
#include "support/files.hpp"
#include "support/tiny_model.hpp"
#include "targets.hpp"

namespace clip_lora::fuzz {
namespace {

using namespace testing::pickle;

void read(const std::filesystem::path& path) {
  static const model::Clip clip = [] {
    torch::manual_seed(1);
    return testing::random_clip();
  }();
  read_whatever_it_is([&] { lora::describe_adapter_file(path); });
  read_whatever_it_is([&] {
    const lora::LoadedAdapter loaded = lora::load_adapter(path, clip, "0123");
    require(loaded.adapter != nullptr && !loaded.adapter->places().empty(), "an adapter adapts something");
    for (const auto& parameter : loaded.adapter->parameters())
      require(parameter.scalar_type() == at::kFloat, "a parameter is of float32");
  });
}

/// Pieces of a folder of PEFT's: adapter_config.json, the weights in either form, clip_lora.json.
void read_folder(std::string_view input) {
  static const bool made = std::filesystem::create_directories(scratch_folder() / "peft");
  require(made || std::filesystem::exists(scratch_folder() / "peft"), "there is a folder");
  const auto pieces = pieces_of(input, 3);
  const auto put = [](const char* name, const std::string& bytes) {
    if (bytes.empty()) {
      std::filesystem::remove(scratch_folder() / "peft" / name);
    } else {
      scratch_file("peft/" + std::string(name), bytes);
    }
  };
  const bool is_pickled = pieces[1].starts_with('\x80') || pieces[1].starts_with("PK");
  put("adapter_config.json", std::string(pieces[0]));
  put("adapter_model.safetensors", is_pickled ? "" : safetensors_file(pieces[1]));
  put("adapter_model.bin", is_pickled ? torch_archive(pieces[1]) : "");
  put("clip_lora.json", std::string(pieces[2]));
  read(scratch_folder() / "peft");
}

/// What begins with "PEFT" is a folder, anything else a file.
void run(std::string_view input) {
  constexpr std::string_view kFolder = "PEFT";
  if (input.starts_with(kFolder)) return read_folder(input.substr(kFolder.size()));
  read(scratch_file("adapter", input.starts_with('{') ? safetensors_file(input) : torch_archive(input)));
}

/// Rank 1 in the first block of the tiny CLIP's text tower, 128 wide; storage "2" has the values.
std::string authors(const std::string& alpha) {
  const std::string pair = dict({{"w_lora_A", view(storage("2", 256), 0, {1, 128}, {128, 1})},
                                 {"w_lora_B", view(storage("2", 256), 0, {128, 1}, {1, 1})}});
  const std::string layer = dict({{"q_proj", pair}, {"proj", pair}});
  return whole(dict({{"weights", dict({{"layer_0", layer}})},
                     {"metadata", dict({{"r", integer(1)},
                                        {"alpha", alpha},
                                        {"encoder", text("text")},
                                        {"params", "](" + text("q") + text("o") + "e"},
                                        {"position", text("bottom")},
                                        {"clip_lora", text(R"({"version": 1, "backbone": "x"})")}})}}));
}

/// A small part of the release's checkpoint.
std::string release() {
  const std::string module = "module.model.transformer.resblocks.0.adapter_attn";
  return whole(
      dict({{"epoch", integer(3)},
            {"name", text("x")},
            {"state_dict", dict({{module + ".s", view(storage("1", 6), 0, {1}, {1})},
                                 {module + ".d.weight", view(storage("2", 256), 0, {2, 128}, {128, 1})},
                                 {module + ".u.weight", view(storage("2", 256), 0, {128, 2}, {2, 1})},
                                 {module + "_cache.s", view(storage("1", 6), 1, {1}, {1})},
                                 {"module.model.logit_scale", view(storage("1", 6), 0, {}, {})}})}}));
}

std::string saved(const lora::AdapterOptions& options, lora::AdapterFormat format) {
  const auto path = scratch_folder() / "seed";
  std::filesystem::remove_all(path);
  torch::manual_seed(1);
  const auto adapter = lora::make_adapter(testing::random_clip(), options);
  lora::AdapterContext context;
  context.backbone = "ViT-X/1";
  context.class_names = {"a"};
  context.templates = {"a {}."};
  lora::save_adapter(path, *adapter, context, format);
  if (format != lora::AdapterFormat::kPeft) return testing::read_bytes(path);
  return "PEFT" + joined({testing::read_bytes(path / "adapter_config.json"),
                          testing::read_bytes(path / "adapter_model.safetensors").substr(8),
                          testing::read_bytes(path / "clip_lora.json")});
}

std::vector<std::string> seeds() {
  lora::AdapterOptions options;
  options.lora.rank = 1;
  options.lora.encoder = lora::Encoder::kText;
  options.lora.position = lora::Position::kBottom;
  options.lora.projections = lora::parse_projections({"q"});
  std::vector<std::string> all = {authors("G?\xf0" + std::string(6, '\0')),
                                  authors(integer(0)),
                                  release(),
                                  saved(options, lora::AdapterFormat::kAuthors),
                                  saved(options, lora::AdapterFormat::kPeft),
                                  saved(options, lora::AdapterFormat::kSafetensors)};
  all.push_back(all.back().substr(8));
  options.method = "r_adapter";
  options.r_adapter.rank = 1;
  all.push_back(saved(options, lora::AdapterFormat::kSafetensors).substr(8));
  all.push_back(
      "PEFT" +
      joined(
          {R"({"peft_type": "LORA", "target_modules": ".*\\.(q|v)_proj", "rank_pattern": {"layers.0.*": 3}, "alpha_pattern": {"^x": 2}})",
           whole(dict({{"base_model.model.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
                        view(storage("2", 256), 0, {1, 128}, {128, 1})}}))}));
  all.push_back(
      "PEFT" +
      joined(
          {R"({"peft_type": "LORA", "target_modules": ["q_proj"], "layers_to_transform": [0, 1], "layers_pattern": "layers", "r": 1, "use_dora": true})",
           "{}"}));
  return all;
}

}  // namespace

const Target adapters = {"adapters", run, seeds};

}  // namespace clip_lora::fuzz
