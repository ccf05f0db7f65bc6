"""Class folders: torchvision's ImageFolder."""

import os
import random
import sys

import peers
from torchvision.datasets import ImageFolder

NAMES = ["a", "A", "b c", "b", "b-c", ".hidden", "10", "9", "é", "e", "猫", "new\nline", 'quote"', "n01440764", "z.d"]
EXTENSIONS = [".jpg", ".JPEG", ".Png", ".ppm", ".bmp", ".pgm", ".TIF", ".tiff", ".webp", ".gif", ".txt", ".jpg.txt", ""]


class ImageFolders(peers.PeerTest):
    @classmethod
    def setUpClass(cls):
        cls.driver = peers.Driver("inputs_driver")

    def compare(self, root):
        ours = self.driver.ask("image_folder", folder=root)
        expected = ImageFolder(root)
        self.assertEqual(ours["classes"], expected.classes)
        self.assertEqual(ours["images"], [list(sample) for sample in expected.samples])
        return len(expected.samples)

    def fill(self, rng, folder, depth):
        """Files and folders of awkward names; at least one file is a picture."""
        folder.mkdir(parents=True)
        (folder / "at least one.jpg").touch()
        for name in rng.sample(NAMES, 6):
            (folder / (name + rng.choice(EXTENSIONS))).touch()
        if depth > 0:
            for name in rng.sample(NAMES, 3):
                if not (folder / name).exists():
                    self.fill(rng, folder / name, depth - 1)

    def test_torchvision_lists_the_same_pictures_in_the_same_order(self):
        rng = random.Random(0)
        count = 0
        for number in range(20):
            root = self.folder / str(number)
            for name in rng.sample(NAMES, 5):
                self.fill(rng, root / name, depth=2)
            (root / "ILSVRC2012_devkit_t12.tar.gz").touch()
            (root / "beside the classes.jpg").touch()
            count += self.compare(root)
        print(f"{count} pictures against torchvision", file=sys.stderr)

    def test_torchvision_follows_the_same_links(self):
        elsewhere, root = self.folder / "elsewhere", self.folder / "root"
        self.fill(random.Random(1), elsewhere, depth=1)
        (root / "a").mkdir(parents=True)
        (root / "linked class").symlink_to(elsewhere)
        (root / "a" / "inner").symlink_to(elsewhere)
        (root / "a" / "again").symlink_to(elsewhere)
        (root / "a" / "file.jpg").symlink_to(elsewhere / "at least one.jpg")
        (root / "a" / "to nowhere.jpg").symlink_to(self.folder / "nowhere")
        (root / "a" / "to itself.jpg").symlink_to("to itself.jpg")
        (root / "no class").symlink_to(self.folder / "nowhere")
        self.compare(root)

    def test_torchvision_and_we_refuse_no_special_files(self):
        root = self.folder / "root"
        (root / "a").mkdir(parents=True)
        os.mkfifo(root / "a" / "pipe.jpg")
        self.compare(root)


if __name__ == "__main__":
    peers.main()
