"""One CLIP in every container: the same features, bit for bit."""

import containers
import models
import peers
import scripted_clip

import torch


class Containers(containers.ContainersTest):
    def test_a_thin_clip_has_the_same_features_in_each(self):
        for dtype in (torch.float16, torch.float32, torch.bfloat16):
            with self.subTest(dtype=dtype):
                torch.manual_seed(0)
                clip = models.shake(scripted_clip.Clip(128, 3, 16, 64, 64, 3, 48))
                self.check(clip, self.folder / str(dtype), dtype, image_size=64)


if __name__ == "__main__":
    peers.main()
