"""Pixels: Pillow's decoders, its turning by EXIF, and the evaluation's preprocessing by torchvision and open_clip."""

import collections
import sys

import peers
import pictures

import numpy as np
from open_clip.transform import image_transform
from PIL import Image, ImageOps
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

OPENAI = {
    "size_px": 224,
    "resize_px": 224,
    "resize_mode": "shortest",
    "interpolation": "bicubic",
    "fill_color": 0,
}
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
LARGEST_RESIZED = 4_000_000  # pixels: a strip of 1 x 400 resized to 224 x 89,600 would take Pillow seconds


def pillow_image(path):
    with Image.open(path) as file:
        return file.convert("RGB")


def openai_view(image, size, resize):
    return Compose([Resize(resize, interpolation=InterpolationMode.BICUBIC), CenterCrop(size)])(image)


def open_clip_view(image, options):
    """What image_transform does before the tensor is made."""
    transform = image_transform(
        options["size_px"],
        is_train=False,
        resize_mode=options["resize_mode"],
        interpolation=options["interpolation"],
        fill_color=options["fill_color"],
    )
    for step in transform.transforms:
        if "ToTensor" in type(step).__name__:
            return image
        image = step(image)
    raise AssertionError("image_transform makes no tensor")


class Pixels(peers.PeerTest):
    @classmethod
    def setUpClass(cls):
        cls.driver = peers.Driver("pictures_driver")

    def pixels(self, path, preprocessing=None, exif=False):
        """[height, width, 3] uint8 as the library has it."""
        out = self.folder / "pixels"
        answer = self.driver.ask("pixels", image=path, out=out, preprocessing=preprocessing, exif=exif)
        return np.fromfile(out, np.uint8).reshape(answer["height"], answer["width"], 3)

    def difference(self, path, expected, preprocessing=None, exif=False):
        """Why the library's pixels are not `expected`; nothing if they are."""
        expected = np.asarray(expected)
        try:
            ours = self.pixels(path, preprocessing, exif)
        except RuntimeError as error:
            return str(error)
        if ours.shape != expected.shape:
            return f"shape {ours.shape}, expected {expected.shape}"
        if not (ours == expected).all():
            steps = np.abs(ours.astype(int) - expected)
            return f"{(steps > 0).mean():.1%} of the values differ, by up to {steps.max()}"
        return None

    def report(self, what, count, differences):
        print(f"{what}: {count}", file=sys.stderr)
        lines = [
            f"{kind}: {len(all_of_kind)}, e.g. {all_of_kind[0]}"
            for kind, all_of_kind in sorted(differences.items())
        ]
        if differences:
            self.fail(f"{sum(map(len, differences.values()))} of {count} differ:\n" + "\n".join(lines))

    def files(self):
        """(kind, path, Pillow's RGB image) of every picture."""
        for number, (kind, data) in enumerate(pictures.every_picture()):
            path = self.folder / f"{number}.picture"
            path.write_bytes(data)
            yield kind, path, pillow_image(path)

    def test_pillow_decodes_to_the_same_pixels(self):
        differences, count = collections.defaultdict(list), 0
        for kind, path, image in self.files():
            count += 1
            if difference := self.difference(path, image):
                differences[kind].append(f"{image.size}: {difference}")
        self.assertGreaterEqual(count, 300)
        self.report("files against Pillow", count, differences)

    def test_headers_tell_pillows_size(self):
        differences, count = collections.defaultdict(list), 0
        for kind, path, image in self.files():
            count += 1
            size = self.driver.ask("size", image=path)
            if (size["width"], size["height"]) != image.size:
                differences[kind].append(f"{size}, expected {image.size}")
        self.report("sizes against Pillow", count, differences)

    def test_pillow_turns_to_the_same_pixels(self):
        differences, count = collections.defaultdict(list), 0
        path = self.folder / "picture"
        for kind, data in pictures.oriented(np.random.default_rng(2)):
            path.write_bytes(data)
            with Image.open(path) as file:
                upright = ImageOps.exif_transpose(file).convert("RGB")
            count += 1
            if difference := self.difference(path, upright, exif=True):
                differences[kind].append(f"{upright.size}: {difference}")
        self.report("orientations against Pillow", count, differences)

    def check_views(self, what, options, expected_view):
        rng = np.random.default_rng(1)
        sizes = [
            (224, 224),
            (225, 224),
            (300, 451),
            (64, 64),
            (37, 61),
            (500, 333),
            (640, 97),
            (31, 800),
            (5, 3),
            (1, 1),
            (3, 40),
        ]
        differences, count = collections.defaultdict(list), 0
        path = self.folder / "picture.png"
        for size in sizes:
            image = pictures.picture(rng, "RGB", size)
            image.save(path, compress_level=1)
            for option in options:
                if (
                    option["resize_mode"] == "shortest"
                    and option["resize_px"] ** 2 * max(size) / min(size) > LARGEST_RESIZED
                ):
                    continue
                count += 1
                if difference := self.difference(path, expected_view(image, option), option):
                    kind = " ".join(map(str, option.values()))
                    differences[kind].append(f"{size}: {difference}")
        self.report(what, count, differences)

    def test_torchvision_resizes_and_crops_to_the_same_view(self):
        options = [
            OPENAI | {"size_px": size, "resize_px": resize}
            for size, resize in [(224, 224), (336, 336), (64, 64), (33, 33), (224, 256), (97, 110)]
        ]
        self.check_views(
            "views against torchvision",
            options,
            lambda image, option: openai_view(image, option["size_px"], option["resize_px"]),
        )

    def test_open_clip_transforms_to_the_same_view(self):
        options = [
            {
                "size_px": size,
                "resize_px": size,
                "resize_mode": mode,
                "interpolation": interpolation,
                "fill_color": fill,
            }
            for size in (224, 65)
            for mode in ("shortest", "longest", "squash")
            for interpolation in ("bilinear", "bicubic")
            for fill in ((0, 127) if mode == "longest" else (0,))
        ]
        self.check_views("views against open_clip", options, open_clip_view)

    def test_torchvision_makes_the_same_tensor(self):
        image = pictures.picture(np.random.default_rng(3), "RGB", (300, 260))
        path, out = self.folder / "picture.png", self.folder / "tensor"
        image.save(path)
        self.driver.ask("tensor", image=path, out=out)
        expected = Normalize(OPENAI_MEAN, OPENAI_STD)(ToTensor()(openai_view(image, 224, 224)))
        self.assert_same_bits(np.fromfile(out, np.float32).reshape(3, 224, 224), expected, "tensor")

    @peers.needs_test_data
    def test_real_pictures_have_the_same_pixels_and_views(self):
        paths = sorted((peers.TEST_DATA / "golden" / "images").iterdir())
        self.assertTrue(paths)
        differences = collections.defaultdict(list)
        for path in paths:
            image = pillow_image(path)
            for what, expected, options in [
                ("decoded", image, None),
                ("view", openai_view(image, 224, 224), OPENAI),
            ]:
                if difference := self.difference(path, expected, options):
                    differences[what].append(f"{path.name}: {difference}")
        self.report("real pictures", len(paths), differences)


if __name__ == "__main__":
    peers.main()
