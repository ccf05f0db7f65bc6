"""Few-shot samples: CPython's random, called as CoOp calls it."""

import random
import sys

import peers

MOST_VALIDATION_SHOTS = 4
SEEDS = [
    0,
    1,
    2,
    3,
    -1,
    -3,
    2**31,
    2**32 - 1,
    2**32,
    2**32 + 1,
    -(2**32) - 7,
    2**53 + 1,
    2**63 - 1,
    -(2**63),
    1 - 2**63,
]


def per_class(labels, shots, rng):
    """Places in `labels`, class by class in order of first appearance."""
    classes = {}
    for place, label in enumerate(labels):
        classes.setdefault(label, []).append(place)
    sampled = []
    for places in classes.values():
        sampled += rng.sample(places, shots) if len(places) >= shots else rng.choices(places, k=shots)
    return sampled


def reference(train, val, shots, seed):
    rng = random.Random(seed)
    sampled_val = per_class(val, min(shots, MOST_VALIDATION_SHOTS), rng)
    return {"train": per_class(train, shots, rng), "val": sampled_val}


def imagenet_reference(train, shots, seed):
    """One draw per class, for training first and then for validation."""
    rng = random.Random(seed)
    val_shots = min(shots, MOST_VALIDATION_SHOTS)
    sampled = {"train": [], "val": []}
    for label in dict.fromkeys(train):
        places = [place for place, other in enumerate(train) if other == label]
        drawn = rng.sample(places, shots + val_shots)
        sampled["train"] += drawn[:shots]
        sampled["val"] += drawn[shots:]
    return sampled


def random_labels(rng, classes, most):
    """Classes of 1 … most items each, in order or shuffled."""
    labels = [label for label in range(classes) for _ in range(rng.randint(1, most))]
    if rng.random() < 0.5:
        rng.shuffle(labels)
    return labels


class Sampling(peers.PeerTest):
    @classmethod
    def setUpClass(cls):
        cls.driver = peers.Driver("inputs_driver")

    def compare(self, train, val, shots, seed):
        ours = self.driver.ask("sample", train=train, val=val, shots=shots, seed=seed)
        self.assertEqual(
            ours, reference(train, val, shots, seed), f"{len(train)} items, {shots} shots, seed {seed}"
        )

    def test_cpython_draws_the_same_items(self):
        rng = random.Random(0)
        count = 1000
        for number in range(count):
            seed = (
                SEEDS[number]
                if number < len(SEEDS)
                else rng.choice([1, -1]) * rng.getrandbits(rng.randint(1, 63))
            )
            classes, most = rng.randint(1, 40), rng.choice([1, 3, 20, 100])
            train, val = random_labels(rng, classes, most), random_labels(rng, classes, most)
            self.compare(train, val, rng.choice([1, 2, 3, 4, 5, 8, 16, 21, 22, 64]), seed)
        print(f"{count} samples against CPython", file=sys.stderr)

    def test_cpython_draws_the_same_items_of_large_classes(self):
        rng = random.Random(1)
        for _ in range(
            20
        ):  # `sample` has one way for a large population, and another for a large part of one
            sizes = [rng.randint(1, 20000) for _ in range(3)]
            labels = [label for label, size in enumerate(sizes) for _ in range(size)]
            self.compare(labels, labels[::7], rng.choice([1, 16, 100, 1000]), rng.getrandbits(40))

    def test_cpython_draws_the_same_items_of_imagenet(self):
        rng = random.Random(2)
        for number in range(100):
            shots = rng.choice([1, 2, 4, 8, 16, 32])
            sizes = [rng.randint(shots + min(shots, 4), 1300) for _ in range(rng.randint(1, 8))]
            labels = [label for label, size in enumerate(sizes) for _ in range(size)]
            ours = self.driver.ask("sample", train=labels, val=None, shots=shots, seed=number)
            self.assertEqual(ours, imagenet_reference(labels, shots, number), f"{sizes}, {shots} shots")

    def test_cpython_shuffles_the_same(self):
        rng = random.Random(3)
        for seed in SEEDS:
            counts = [0, 1, 2, 3, 4096, 4097] + [rng.randint(0, 300) for _ in range(50)]
            shuffled = random.Random(seed)
            expected = []
            for count in counts:
                expected.append(list(range(count)))
                shuffled.shuffle(expected[-1])
            self.assertEqual(self.driver.ask("shuffle", counts=counts, seed=seed)["orders"], expected)


if __name__ == "__main__":
    peers.main()
