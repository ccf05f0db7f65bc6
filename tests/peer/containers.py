"""One CLIP in the six forms that checkpoints come in."""

import json

import models
import scripted_clip

import safetensors.torch
import torch
from transformers import CLIPConfig, CLIPModel

NO_WEIGHTS = {"input_resolution", "context_length", "vocab_size"}


def architecture(clip):
    """The arguments that scripted_clip.Clip was made with, read off its shapes."""
    visual = clip.visual
    return {
        "vision_width": visual.conv1.out_channels,
        "vision_layers": len(visual.transformer.resblocks),
        "patch": visual.conv1.kernel_size[0],
        "resolution": int(clip.input_resolution),
        "text_width": clip.ln_final.weight.numel(),
        "text_layers": len(clip.transformer.resblocks),
        "embedding": clip.text_projection.shape[1],
    }


def hugging_face_names(tensors):
    """OpenAI's state dict by the names of transformers' CLIPModel."""
    renamed = {"logit_scale": tensors["logit_scale"]}
    for name, tensor in tensors.items():
        tower = "vision_model" if name.startswith("visual.") else "text_model"
        name = name.removeprefix("visual.")
        name = name.replace("transformer.resblocks.", "encoder.layers.").replace("ln_1.", "layer_norm1.")
        name = (
            name.replace("ln_2.", "layer_norm2.")
            .replace("mlp.c_fc.", "mlp.fc1.")
            .replace("mlp.c_proj.", "mlp.fc2.")
        )
        if ".attn.in_proj_" in name:
            kind = name.rsplit("_", 1)[1]
            for projection, part in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"{tower}.{name.rsplit('attn.', 1)[0]}self_attn.{projection}_proj.{kind}"] = part
        elif name in OTHER_NAMES[tower]:
            other = OTHER_NAMES[tower][name]
            renamed[other] = (
                tensor.T if other in ("visual_projection.weight", "text_projection.weight") else tensor
            )
        elif name != "logit_scale":
            renamed[f"{tower}.{name.replace('attn.out_proj.', 'self_attn.out_proj.')}"] = tensor
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in renamed.items()}


OTHER_NAMES = {
    "vision_model": {
        "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "class_embedding": "vision_model.embeddings.class_embedding",
        "positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "ln_pre.weight": "vision_model.pre_layrnorm.weight",  # so spelt there
        "ln_pre.bias": "vision_model.pre_layrnorm.bias",
        "ln_post.weight": "vision_model.post_layernorm.weight",
        "ln_post.bias": "vision_model.post_layernorm.bias",
        "proj": "visual_projection.weight",
    },
    "text_model": {
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "ln_final.weight": "text_model.final_layer_norm.weight",
        "ln_final.bias": "text_model.final_layer_norm.bias",
        "text_projection": "text_projection.weight",
    },
}


def hugging_face_configuration(shape):
    text = {
        "hidden_size": shape["text_width"],
        "intermediate_size": 4 * shape["text_width"],
        "num_attention_heads": shape["text_width"] // 64,
        "num_hidden_layers": shape["text_layers"],
        "bos_token_id": models.START,
        "eos_token_id": models.END,
    }
    vision = {
        "hidden_size": shape["vision_width"],
        "intermediate_size": 4 * shape["vision_width"],
        "num_attention_heads": shape["vision_width"] // 64,
        "num_hidden_layers": shape["vision_layers"],
        "image_size": shape["resolution"],
        "patch_size": shape["patch"],
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=shape["embedding"])


def open_clip_configuration(shape):
    vision = {
        "image_size": shape["resolution"],
        "layers": shape["vision_layers"],
        "width": shape["vision_width"],
        "patch_size": shape["patch"],
    }
    text = {
        "context_length": 77,
        "vocab_size": models.VOCABULARY,
        "width": shape["text_width"],
        "heads": shape["text_width"] // 64,
        "layers": shape["text_layers"],
    }
    return {"embed_dim": shape["embedding"], "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}


def write_shards(tensors, folder, shards=3):
    folder.mkdir()
    names = sorted(tensors)
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = names[shard::shards]
        safetensors.torch.save_file({name: tensors[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )


def write_all(clip, folder, dtype):
    """{form: path in the new `folder`} of `clip`, a scripted_clip.Clip, its weights stored in `dtype`."""
    shape = architecture(clip)
    clip = clip.to(dtype).eval()
    tensors = {
        name: tensor.contiguous() for name, tensor in clip.state_dict().items() if name not in NO_WEIGHTS
    }
    folder.mkdir()
    paths = {
        name: folder / file
        for name, file in {
            "TorchScript archive": "ViT.pt",
            "state dict": "state_dict.pt",
            "nested state dict": "nested.pt",
            "safetensors": "model.safetensors",
            "sharded safetensors": "sharded",
            "Hugging Face": "hf",
            "OpenCLIP": "openclip",
        }.items()
    }
    torch.jit.save(torch.jit.script(clip), paths["TorchScript archive"])
    torch.save(tensors, paths["state dict"])
    torch.save(
        {
            "epoch": 3,
            "state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()},
            "optimizer": {"lr": 1e-3},
        },
        paths["nested state dict"],
    )
    safetensors.torch.save_file(tensors, paths["safetensors"])
    write_shards(tensors, paths["sharded safetensors"])
    paths["Hugging Face"].mkdir()
    safetensors.torch.save_file(
        hugging_face_names(tensors), paths["Hugging Face"] / "model.safetensors", {"format": "pt"}
    )
    hugging_face_configuration(shape).save_pretrained(paths["Hugging Face"])
    paths["OpenCLIP"].mkdir()
    torch.save(tensors, paths["OpenCLIP"] / "open_clip_pytorch_model.bin")
    document = {"model_cfg": open_clip_configuration(shape), "preprocess_cfg": {}}
    (paths["OpenCLIP"] / "open_clip_config.json").write_text(json.dumps(document))
    return paths


SAYING_ALL = {
    "TorchScript archive",
    "Hugging Face",
    "OpenCLIP",
}  # the forms that say what activation they have


class ContainersTest(models.ModelTest):
    def check(self, clip, folder, dtype, image_size):
        """transformers gives the features of every form, and all forms give the same bits."""
        paths = write_all(clip, folder, dtype)
        inputs = models.Inputs(folder, image_size)
        peer = CLIPModel.from_pretrained(paths["Hugging Face"], dtype=torch.float32).eval()
        expected = models.hugging_face_features(peer, inputs)
        first, fingerprints = None, set()
        for form, path in paths.items():
            with self.subTest(form=form):
                answer, features, _ = self.describe(path, inputs)
                self.assert_features_close(features, expected, form)
                first = first or features
                for part, first_part in zip(features, first, strict=True):
                    self.assert_same_bits(part, first_part, form)
                fingerprints.add(answer["fingerprint"])
                self.assertEqual(not answer["warnings"], form in SAYING_ALL, answer["warnings"])
        self.assertEqual(len(fingerprints), 1)
