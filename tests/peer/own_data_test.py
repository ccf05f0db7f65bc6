"""Data of one's own: splits with CPython's random as CoOp makes them, and tables that Python's csv writes."""

import csv
import json
import random

import peers


def split_as_coop(classes, train_fraction, val_fraction, seed):
    """CoOp's way to split what comes without a split: class by class, what rounding leaves is for the test."""
    rng = random.Random(seed)
    split = {"train": [], "val": [], "test": []}
    for label, name in enumerate(sorted(classes)):
        paths = sorted(f"{name}/{image}" for image in classes[name])
        rng.shuffle(paths)
        train = round(len(paths) * train_fraction)
        val = train + round(len(paths) * val_fraction)
        for kind, part in [("train", paths[:train]), ("val", paths[train:val]), ("test", paths[val:])]:
            split[kind] += [[path, label, name] for path in part]
    return split


def random_text(rng):
    """Something that needs quotation marks more often than not; white space at its ends would not be kept."""
    while True:
        text = "".join(rng.choice('aé犬 ,;"\'\n\r\t') for _ in range(rng.randint(1, 8)))
        if text == text.strip():
            return text


class OwnData(peers.PeerTest):
    def test_class_folders_are_split_as_coop_does(self):
        rng = random.Random(4)
        photos = self.folder / "photos"
        # From 6 on, CoOp's rounding leaves none of the splits below empty.
        classes = {
            name: [f"{rng.getrandbits(32)}.jpg" for _ in range(rng.randint(6, 200))]
            for name in ["b", "a", "B_c", "größte Katze", "10", "9"]
        }
        for name, images in classes.items():
            (photos / name).mkdir(parents=True)
            for image in images:
                (photos / name / image).touch()
        # The fractions for training as they are written, which 1 - test - val is not always.
        for train, val, test in [(0.5, 0.2, 0.3), (0.6, 0.1, 0.3), (0.7, 0.1, 0.2), (0.25, 0.5, 0.25)]:
            for seed in [1, 2, 2**40]:
                out = self.folder / "split.json"
                options = ["--test_fraction", test, "--val_fraction", val, "--seed", seed, "--force"]
                peers.clip_lora("split", photos, "--out", out, *options)
                ours = json.loads(out.read_text(encoding="utf-8"))
                self.assertEqual(ours.pop("image_folder"), "photos")
                expected = split_as_coop(classes, train, val, seed)
                for entry in sum(expected.values(), []):
                    entry[2] = entry[2].replace("_", " ")
                self.assertEqual(ours, expected, f"{train}, {val}, {test}, seed {seed}")

    def test_tables_of_pythons_csv_are_read(self):
        rng = random.Random(5)
        for dialect in ["excel", "unix"]:
            for number in range(3):
                labels = sorted({random_text(rng) for _ in range(20)})
                rows = {f"{i}{random_text(rng)}": rng.choice(labels) for i in range(300)}
                # Every class is in the training split, which is demanded.
                rows |= {f"first of {place}": label for place, label in enumerate(labels)}
                split_of = {path: rng.choice(["train", "val", "test"]) for path in rows}
                split_of |= {path: "train" for path in rows if path.startswith("first of ")}
                table, out = self.folder / "table.csv", self.folder / "split.json"
                with open(table, "w", encoding=rng.choice(["utf-8", "utf-8-sig"]), newline="") as file:
                    writer = csv.writer(file, dialect=dialect)
                    writer.writerow(["split", "path", "label"])
                    writer.writerows([split_of[path], path, label] for path, label in rows.items())
                peers.clip_lora("split", table, "--out", out, "--force")
                ours = json.loads(out.read_text(encoding="utf-8"))
                for split in ["train", "val", "test"]:
                    expected = [
                        [path, labels.index(label), label]
                        for path, label in rows.items()
                        if split_of[path] == split
                    ]
                    self.assertEqual(ours[split], expected, f"{dialect} {number} {split}")


if __name__ == "__main__":
    peers.main()
