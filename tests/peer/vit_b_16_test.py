"""At the size of ViT-B/16: every container, and the probabilities of the ONNX classifier."""

import sys

import containers
import models
import onnx_models
import peers
import scripted_clip

import torch

VIT_B_16 = {
    "vision_width": 768,
    "vision_layers": 12,
    "patch": 16,
    "resolution": 224,
    "text_width": 512,
    "text_layers": 12,
    "embedding": 512,
}


def random_vit_b_16():
    torch.manual_seed(0)
    return models.shake(scripted_clip.Clip(**VIT_B_16))


class Containers(containers.ContainersTest):
    def test_a_random_vit_b_16_has_the_same_features_in_each(self):
        self.check(random_vit_b_16(), self.folder / "forms", torch.float16, image_size=224)


class Onnx(onnx_models.OnnxTest):
    def test_onnxruntime_gives_the_probabilities_of_a_random_vit_b_16(self):
        checkpoint = self.folder / "vit_b_16.pt"
        torch.save(random_vit_b_16().state_dict(), checkpoint)
        difference = self.check_classifier(checkpoint, image_size=224, images=8)
        print(f"largest difference of probabilities: {difference:.1e}", file=sys.stderr)


if __name__ == "__main__":
    peers.main()
