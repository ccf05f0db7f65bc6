"""Random CLIPs and adapters of other people's making, and the features that ours and theirs give."""

import json

import peers

import open_clip
import peft
import safetensors.torch
import torch
from transformers import CLIPConfig, CLIPModel
from transformers.utils import logging

logging.disable_progress_bar()

START, END, VOCABULARY, CONTEXT = 49406, 49407, 49408, 77
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "out_proj"]

# Thin layers with the structure of the published models.
VISION = {
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 512,
    "image_size": 64,
    "patch_size": 16,
}
TEXT = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 1,
    "intermediate_size": 256,
    "bos_token_id": START,
    "eos_token_id": END,
}

# Everything that OpenAI's models have otherwise.
ODD_VISION = {
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 200,
    "image_size": 42,
    "patch_size": 7,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-3,
}
ODD_TEXT = {
    "hidden_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 5,
    "intermediate_size": 333,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-4,
    "max_position_embeddings": 21,
    "vocab_size": 1000,
    "bos_token_id": 998,
    "eos_token_id": 999,
}


def shake(model):
    """Random values where a fresh model has zeros and ones, and weights large enough to matter."""
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            if name.endswith("logit_scale"):
                continue
            if parameter.dim() < 2:
                parameter.add_(0.2 * torch.randn_like(parameter))
            else:
                parameter.mul_(1.5)
    return model.eval()


def hugging_face_clip(vision=None, text=None, seed=0):
    torch.manual_seed(seed)
    vision, text = VISION | (vision or {}), TEXT | (text or {})
    return shake(CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=48)))


def odd_hugging_face_clip():
    return hugging_face_clip(ODD_VISION, ODD_TEXT)


def open_clip_configuration(quick_gelu=False, vision=None, text=None):
    """The `model_cfg` of open_clip_config.json."""
    return {
        "embed_dim": 48,
        "quick_gelu": quick_gelu,
        "vision_cfg": {"image_size": 64, "layers": 3, "width": 128, "patch_size": 16} | (vision or {}),
        "text_cfg": {"context_length": 77, "vocab_size": VOCABULARY, "width": 64, "heads": 1, "layers": 3}
        | (text or {}),
    }


def open_clip_clip(configuration, seed=0):
    torch.manual_seed(seed)
    kind = open_clip.CustomTextCLIP if configuration.get("custom_text") else open_clip.CLIP
    return shake(kind(**{key: value for key, value in configuration.items() if key != "custom_text"}))


def save_open_clip(model, configuration, folder, pickled=False, preprocessing=None, dtype=None):
    """A folder as OpenCLIP's models lie on the Hugging Face hub."""
    folder.mkdir()
    tensors = {
        name: (tensor.to(dtype) if dtype else tensor).contiguous()
        for name, tensor in model.state_dict().items()
    }
    tensors.pop("attn_mask", None)  # a buffer that is not saved
    if pickled:
        torch.save(tensors, folder / "open_clip_pytorch_model.bin")
    else:
        safetensors.torch.save_file(tensors, folder / "open_clip_model.safetensors")
    document = {"model_cfg": configuration, "preprocess_cfg": preprocessing or {}}
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    return folder


class Inputs:
    """Images and prompts for a model of some shapes, as a file for the driver too."""

    def __init__(
        self, folder, image_size=64, vocabulary=VOCABULARY, context=CONTEXT, images=5, prompts=7, seed=1
    ):
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.randn(images, 3, image_size, image_size, generator=generator)
        self.tokens = torch.randint(0, vocabulary - 2, (prompts, context), generator=generator)
        self.tokens[:, 0] = vocabulary - 2
        for row in range(prompts):  # ends at every kind of place: at once, somewhere, at the last
            end = (
                [1, 2, context - 1][row]
                if row < 3
                else int(torch.randint(3, context - 1, (), generator=generator))
            )
            self.tokens[row, end] = vocabulary - 1
            self.tokens[row, end + 1 :] = 0
        self.path = folder / "inputs.safetensors"
        self.save()

    def save(self):
        safetensors.torch.save_file({"images": self.images, "tokens": self.tokens}, self.path)


def inputs_for(model, folder):
    """Inputs that fit a Hugging Face CLIPModel."""
    text = model.config.text_config
    return Inputs(
        folder, model.config.vision_config.image_size, text.vocab_size, text.max_position_embeddings
    )


@torch.no_grad()
def hugging_face_features(model, inputs):
    """(image features, text features), not normalised, of a CLIPModel or one of PEFT's around it."""
    clip = model.get_base_model() if isinstance(model, peft.PeftModel) else model
    image_features = clip.visual_projection(clip.vision_model(pixel_values=inputs.images).pooler_output)
    text_features = clip.text_projection(clip.text_model(input_ids=inputs.tokens).pooler_output)
    return image_features, text_features


@torch.no_grad()
def open_clip_features(model, inputs):
    return model.encode_image(inputs.images), model.encode_text(inputs.tokens)


def logits(features, logit_scale):
    images, texts = (torch.nn.functional.normalize(part.double(), dim=-1) for part in features)
    return logit_scale.exp() * images @ texts.T


class ModelTest(peers.PeerTest):
    """Compares features."""

    @classmethod
    def setUpClass(cls):
        cls.driver = peers.Driver("models_driver")

    def describe(self, checkpoint, inputs, **options):
        """(what the library says about the checkpoint, (image features, text features), logit scale)."""
        out = self.folder / "features.safetensors"
        answer = self.driver.ask("features", checkpoint=checkpoint, inputs=inputs.path, out=out, **options)
        tensors = safetensors.torch.load_file(out)
        return answer, (tensors["image_features"], tensors["text_features"]), tensors["logit_scale"]

    def features(self, checkpoint, inputs, **options):
        return self.describe(checkpoint, inputs, **options)[1]

    def assert_features_close(self, ours, expected, what, tolerance=1e-4):
        for kind, our_part, part in zip(("image", "text"), ours, expected, strict=True):
            self.assert_close(our_part, part, f"{what}: {kind} features", tolerance)

    def assert_equal_or_refused(self, checkpoint, inputs, expected, what):
        """No silent wrong answer: what cannot be computed is an error that names the checkpoint."""
        try:
            ours = self.features(checkpoint, inputs)
        except RuntimeError as error:
            self.assertIn(str(checkpoint), str(error), what)
        else:
            self.assert_features_close(ours, expected, what)


def peft_model(clip, seed=2, **options):
    """`clip` with a LoRA of PEFT's that changes something. The clip itself gets PEFT's layers."""
    torch.manual_seed(seed)
    return peft.get_peft_model(clip, peft.LoraConfig(init_lora_weights=False, **options)).eval()


def peft_scalings(model):
    """{module: (rank, scaling)} of PEFT's LoRA layers."""
    return {
        name: (module.r["default"], module.scaling["default"])
        for name, module in model.named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    }


def authors_adapter(clip, rank, alpha, params=("q", "k", "v"), encoder="both", seed=3):
    """What an adapter file of the CLIP-LoRA release holds for a CLIPModel: layers from the text tower on."""
    generator = torch.Generator().manual_seed(seed)
    widths = []
    for tower, part in [("text", clip.config.text_config), ("vision", clip.config.vision_config)]:
        widths += [part.hidden_size] * part.num_hidden_layers if encoder in ("both", tower) else []
    names = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "proj"}

    def pair(width):
        return {
            "w_lora_A": 0.1 * torch.randn(rank, width, generator=generator),
            "w_lora_B": 0.1 * torch.randn(width, rank, generator=generator),
        }

    weights = {f"layer_{i}": {names[p]: pair(width) for p in params} for i, width in enumerate(widths)}
    metadata = {"r": rank, "alpha": alpha, "encoder": encoder, "params": list(params), "position": "all"}
    return {"weights": weights, "metadata": metadata}
