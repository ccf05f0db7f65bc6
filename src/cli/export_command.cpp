
#include "clip_lora/cli/commands.hpp"
#include "clip_lora/cli/export.hpp"
#include "clip_lora/cli/option_table.hpp"
#include "clip_lora/core/errors.hpp"

namespace clip_lora::cli {

void ExportOptions::validate() const {
  model.validate();
  require_one_of("--to", to, {"authors", "peft", "safetensors", "hf", "openai", "openclip", "onnx"});
  require_one_of("--dtype", dtype, {"fp32", "fp16", "bf16"});
  if (out.empty()) throw ConfigError("--out is missing: expected the file or folder to write");
  const bool writes_adapter = to == "authors" || to == "peft" || to == "safetensors";
  if (writes_adapter && adapter.empty()) throw ConfigError("--to " + to + " needs --adapter");
  if (writes_adapter && dtype != "fp32") {
    throw ConfigError("--dtype " + dtype + ": expected fp32, which adapters are kept in, for --to " + to);
  }
  if (to == "onnx" && dtype == "bf16") throw ConfigError("--dtype bf16: expected fp32 or fp16 for --to onnx");
  if (to != "onnx" && onnx_towers) throw ConfigError("--onnx_towers goes with --to onnx only");
  if (to != "onnx" && !class_names.empty()) throw ConfigError("--class_names goes with --to onnx only");
}

void bind(OptionTable& table, ExportOptions& options) {
  table.group("What");
  bind(table, options.model);
  table.add("adapter", options.adapter,
            "adapter of it: the authors' .pt (CLIP-LoRA's, R-Adapter's), a PEFT folder, or ours");

  table.group("Where to");
  table.add("to", options.to,
            "an adapter: authors (.pt), peft (folder), safetensors (file); a whole CLIP with the adapter "
            "merged in: hf (folder), openai (.pt), openclip (folder); a classifier: onnx (file)");
  table.add("out", options.out, "file or folder to write");
  table.add("force", options.force, "replace what is there");
  table.add("dtype", options.dtype, "of the stored weights: fp32, fp16 or bf16");

  table.group("ONNX");
  table.add("class_names", options.class_names, "file of class names; unset, the adapter's");
  table.add("onnx_towers", options.onnx_towers,
            "write <stem>_image.onnx and <stem>_text.onnx too, for any classes");
}

int export_command(const std::vector<std::string>& arguments) {
  ExportOptions options;
  OptionTable table("clip_lora export",
                    "Writes an adapter in another format, or a CLIP with it merged in for other programs.");
  bind(table, options);
  if (!table.parse(arguments)) return 0;
  export_model(options);
  return 0;
}

}  // namespace clip_lora::cli
