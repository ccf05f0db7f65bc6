#include "other_models.hpp"

#include <array>
#include <string_view>

#include "clip_lora/core/errors.hpp"

namespace clip_lora::model {
namespace {

struct Sign {
  std::string_view prefix;  ///< of a tensor's name
  std::string_view model;
};

constexpr std::array kSigns = {
    Sign{"visual.layer1.", "a CLIP with a ResNet"},
    Sign{"visual.trunk.", "an OpenCLIP model with an image tower of timm"},
    Sign{"visual.blocks.", "an EVA-CLIP"},
    Sign{"text_decoder.", "a CoCa"},
    Sign{"visual.attn_pool", "an OpenCLIP model with attentional pooling"},
    Sign{"text.transformer.embeddings.", "an OpenCLIP model with a text tower of transformers' AutoModel"},
    Sign{"text.transformer.encoder.", "an OpenCLIP model with a text tower of transformers' AutoModel"},
    Sign{"text.transformer.shared.", "an OpenCLIP model with a text tower of transformers' AutoModel"},
    Sign{"text_model.embeddings.word_embeddings.",
         "a CLIP with a BERT as its text tower, such as Chinese-CLIP"},
    Sign{"text_model.roberta.", "an AltCLIP, whose text tower is a RoBERTa"},
    Sign{"vision_model.head.", "a SigLIP"},
    Sign{"logit_bias", "a SigLIP"},
    Sign{"visual_encoder.", "a BLIP"},
    Sign{"qformer.", "a BLIP-2"},
    Sign{"Qformer.", "a BLIP-2"},
    Sign{"image_encoder.", "a MobileCLIP"},
    Sign{"language_model.", "a language model that sees"},
    Sign{"base_model.model.", "an adapter of PEFT's (hint: --adapter takes it)"},
};

}  // namespace

void refuse_other_models(const io::StateDict& tensors, const std::string& source) {
  for (const auto& sign : kSigns) {
    const auto found = tensors.lower_bound(std::string(sign.prefix));
    if (found == tensors.end() || !found->first.starts_with(sign.prefix)) continue;
    throw CheckpointError("checkpoint '" + source + "' is " + std::string(sign.model) + " (it holds '" +
                          found->first +
                          "'), expected a CLIP with a vision transformer and CLIP's own text transformer");
  }
}

}  // namespace clip_lora::model
