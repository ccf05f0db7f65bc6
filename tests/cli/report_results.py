"""Makes a tree of results as clip_lora saves them, with plausible figures and none of them measured, for the tests of
`clip_lora report` and for looking at its page:

    python3 tests/cli/report_results.py FOLDER          # a few data sets, with pictures, gaps and broken files
    python3 tests/cli/report_results.py FOLDER --large  # the paper's tables on five backbones
    python3 tests/cli/report_results.py FOLDER --protocols  # two methods on every protocol
"""

import argparse
import collections
import csv
import hashlib
import json
import math
import pathlib
import random
import shlex
import struct
import zlib

SHOTS = [1, 2, 4, 8, 16]
SEEDS = [1, 2, 3]
EUROSAT = [
    "Annual Crop Land",
    "Forest",
    "Herbaceous Vegetation Land",
    "Highway or Road",
    "Industrial Buildings",
    "Pasture Land",
    "Permanent Crop Land",
    "Residential Buildings",
    "River",
    "Sea or Lake",
]
# name: classes, test pictures per class, accuracy in percent zero-shot and with 16 shots
BENCHMARKS = {
    "caltech101": (100, 6, 93.0, 96.4),
    "dtd": (47, 12, 44.0, 72.0),
    "eurosat": (10, 40, 47.0, 92.1),
    "fgvc": (100, 6, 25.0, 54.7),
    "food101": (101, 6, 86.0, 84.2),
    "imagenet": (1000, 3, 67.0, 73.6),
    "oxford_flowers": (102, 6, 67.4, 98.0),
    "oxford_pets": (37, 12, 89.0, 92.4),
    "stanford_cars": (196, 5, 65.0, 86.3),
    "sun397": (397, 4, 62.5, 76.1),
    "ucf101": (101, 6, 66.7, 86.7),
}
SETTINGS = {"root_path": "data", "encoder": "both", "position": "all", "params": ["q", "k", "v"], "r": 2, "alpha": 1.0}
SETTINGS |= {"dropout_rate": 0.25, "lr": 0.0002, "n_iters": 500, "batch_size": 32, "precision": "auto", "workers": 0}


def class_names(dataset):
    if dataset == "eurosat":
        return EUROSAT
    count = BENCHMARKS[dataset][0]
    return [f"{dataset.split('_')[-1]} <kind> & \"class\" {label + 1}" for label in range(count)]


def write_png(path, label, number, side=64):
    """A picture that its class can be told by: stripes of the class's colour and width."""
    draw = random.Random(label * 1000 + number)
    colour = [40 + (label * 67 + shift) % 176 for shift in (0, 90, 170)]
    width = 3 + label % 9
    rows = b""
    for y in range(side):
        row = bytearray([0])
        for x in range(side):
            light = 1.0 if (x + y * (label % 3) + number) // width % 2 else 0.55
            row += bytes(min(255, max(0, int(part * light + draw.gauss(0, 9)))) for part in colour)
        rows += row
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def guess(draw, label, classes, accuracy):
    """The label, or with the rest of the probability a class, mostly one of its two neighbours."""
    if draw.random() * 100.0 < accuracy:
        return label
    return (label + draw.choice([1, 1, 1, classes - 1, draw.randrange(1, classes)])) % classes


def predictions_of(dataset, accuracy, seed):
    classes, per_class, _, _ = BENCHMARKS[dataset]
    draw = random.Random(f"{dataset} {accuracy} {seed}")
    spread = random.Random(dataset)
    easier = [spread.uniform(-18, 18) for _ in range(classes)]
    return [
        guess(draw, label, classes, min(99.0, accuracy + easier[label]))
        for label in range(classes)
        for _ in range(per_class)
    ]


def overall(dataset, predicted):
    classes, per_class, _, _ = BENCHMARKS[dataset]
    names = class_names(dataset)
    counts = collections.Counter((i // per_class, guess_) for i, guess_ in enumerate(predicted))
    correct = [counts[(label, label)] for label in range(classes)]
    return {
        "accuracy": 100.0 * sum(correct) / len(predicted),
        "top5_accuracy": min(100.0, 100.0 * sum(correct) / len(predicted) + 4.0),
        "macro_f1": sum(correct) / len(predicted) * 0.99,
        "expected_calibration_error": 0.031,
        "per_class": [
            {"name": names[label], "total": per_class, "correct": n, "accuracy": 100.0 * n / per_class}
            for label, n in enumerate(correct)
        ],
        "confusion": [[label, other, n] for (label, other), n in sorted(counts.items())],
    }


def write_metrics(path, iterations, draw, broken):
    lines = []
    for iteration in range(10, iterations + 1, max(10, iterations // 200)):
        done = iteration / iterations
        lines.append(
            {
                "iteration": iteration,
                "epoch": iteration // 10,
                "loss": 0.12 + 2.1 * math.exp(-5.0 * done) * draw.uniform(0.75, 1.3),
                "learning_rate": 1e-6 + 1e-4 * (1 + math.cos(math.pi * done)),
                "images_per_second": draw.uniform(5000, 5400),
                "gradient_norm": 3.0 * math.exp(-2.0 * done),
                "loss_scale": 65536.0,
            }
        )
    text = "\n".join(json.dumps(line) for line in lines) + "\n"
    path.write_text(text[:-25] if broken else text)  # a killed run's last line


def write_run(folder, dataset, backbone, shots, seed, changes=None, pictures=None, offset=0.0, resumed=False):
    """One run's folder. `pictures`: the folder of the test pictures, which is filled; None: no predictions.csv.
    `resumed`: it was interrupted in its middle."""
    classes, per_class, before, after = BENCHMARKS[dataset]
    draw = random.Random(f"{dataset} {backbone} {shots} {seed} {changes}")
    step = (math.log2(shots) + 1.0) / 5.0
    untouched = predictions_of(dataset, before + offset, 0)
    target = before + offset + (after - before) * step + draw.gauss(0, 2.4 / math.sqrt(shots))
    adapted = predictions_of(dataset, target, seed)
    settings = {"dataset": dataset} | SETTINGS | {"shots": shots, "seed": seed, "backbone": backbone} | (changes or {})
    result = overall(dataset, adapted)
    short = "".join(c for c in backbone.lower() if c not in "/-")
    extra = "_".join(f"{key}{value}" for key, value in (changes or {}).items())
    run = folder / short / (extra or ".") / dataset / f"{shots}shots" / f"seed{seed}"
    run.mkdir(parents=True)
    iterations = 500 * shots
    batch = min(32, shots * classes)
    half = {"iteration": iterations // 2, "images": iterations // 2 * batch}
    seconds = {"load": 1.2, "zero_shot": 0.9, "training": iterations * 0.0031 + draw.random(), "evaluation": 0.8}
    command = ["clip_lora", "--dataset", dataset, "--root_path", "data", "--shots", str(shots), "--seed", str(seed)]
    command += ["--backbone", backbone, "--template", "a photo of a {}.", "--save_path", str(folder)]
    zero_shot = overall(dataset, untouched)
    results = {"format": 1, "command": shlex.join(command), "dataset": dataset}
    results |= {"zero_shot_accuracy": zero_shot["accuracy"]} | result | {"zero_shot": zero_shot}
    results |= {
        "training": {
            "iterations": iterations,
            "images": shots * classes,
            "images_seen": iterations * batch,
            "resumed_from": half if resumed else None,
            "loss": 0.12 + draw.random() * 0.2,
            "selected_iteration": iterations,
        },
        "validation": [],
        "seconds": seconds | {"total": sum(seconds.values())},
        "memory": {"peak_gpu_bytes": int(1.7e9 + draw.random() * 1e8), "peak_resident_bytes": int(2.4e9)},
        "versions": {"clip_lora": "0.1.0", "libtorch": "2.11.0"},
        "device": "cuda:0 NVIDIA H200, fp16",
        "fingerprint": hashlib.md5(backbone.encode()).hexdigest(),
        "warnings": [],
        "settings": settings,
        "class_names": class_names(dataset),
    }
    (run / "results.json").write_text(json.dumps(results))
    write_metrics(run / "metrics.jsonl", iterations, draw, broken=(seed == 2))
    if pictures is not None:
        write_predictions(run / "predictions.csv", dataset, pictures, untouched, adapted, draw)
    return run


def write_predictions(path, dataset, pictures, untouched, adapted, draw):
    per_class = BENCHMARKS[dataset][1]
    names = class_names(dataset)
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["path", "label", "predicted", "probability", "zero_shot_predicted"])
        for i, (before, after) in enumerate(zip(untouched, adapted)):
            label, number = divmod(i, per_class)
            picture = pictures / dataset / f"class_{label}" / f"{number}.png"
            if not picture.exists():
                write_png(picture, label, number)
            table.writerow([picture, names[label], names[after], f"{draw.uniform(0.3, 1):.6f}", names[before]])


def write_small(folder):
    """Three data sets on ViT-B/16, with gaps and a resumed run; two on another backbone; two ranks; files that cannot be read."""
    runs = folder / "runs"
    for dataset in ["dtd", "eurosat", "oxford_pets"]:
        for shots in SHOTS:
            for seed in SEEDS:
                if (dataset, shots) == ("oxford_pets", 8) or (dataset, shots, seed) == ("dtd", 16, 3):
                    continue
                shown = shots == 16 and seed == 1 and dataset != "oxford_pets"
                pictures = folder / "pictures" if shown else None
                resumed = (dataset, shots, seed) == ("eurosat", 8, 2)
                write_run(runs, dataset, "ViT-B/16", shots, seed, pictures=pictures, resumed=resumed)
    for dataset in ["dtd", "eurosat"]:
        for shots in SHOTS:
            for seed in SEEDS[:2]:
                write_run(runs, dataset, "ViT-B/32", shots, seed, offset=-6.0)
    for shots in SHOTS:
        write_run(runs, "eurosat", "ViT-B/16", shots, 1, changes={"r": 8})
    whole = next(runs.glob("vitb16/eurosat/1shots/seed1/results.json")).read_text()
    for name, text in {"truncated": whole[: len(whole) // 2], "foreign": whole.replace('"format": 1', '"format": 99', 1)}.items():
        (runs / name).mkdir()
        (runs / name / "results.json").write_text(text)
    return runs


ADAPTED = {"lora": {}, "r_adapter": {"templates": "imagenet", "loss": "mpm_nce", "lr": 0.0005}}
SCALES = {"lora": [1.0, 0.0, 0.25, 0.5, 0.75], "r_adapter": [0.5, 0.0, 0.25, 0.75, 1.0]}  # the first is the run's own
SHIFTS = {"imagenet_v2": 62.0, "imagenet_sketch": 46.0, "imagenet_a": 48.0, "imagenet_r": 74.0, "objectnet": 54.0}


def write_method_run(folder, dataset, method, protocol, shots, seed, further):
    """A run of one method and protocol. `further`: what its results have beside write_run()'s, made of them and a
    source of random numbers."""
    method_settings = {"method": method, "protocol": protocol} | ADAPTED[method] | {"eval_scale": SCALES[method]}
    offset = 1.5 if method == "r_adapter" else 0.0  # more templates
    run = write_run(folder / protocol / method, dataset, "ViT-B/16", shots, seed, offset=offset)
    file = run / "results.json"
    results = json.loads(file.read_text())
    results["settings"] |= method_settings
    results["command"] += f" --method {method} --protocol {protocol}"
    results |= further(results, random.Random(f"{dataset} {method} {protocol} {shots} {seed}"))
    file.write_text(json.dumps(results))
    return run


def scaled(before, after, scale, draw):
    """Between zero-shot and beyond: best at three quarters of the way."""
    return max(0.0, min(100.0, before + (after - before) * math.sin(2.1 * scale) / math.sin(2.1) + draw.gauss(0, 0.4)))


def scale_rows(before, after, method, draw):
    """What a run writes of its own data set: zero-shot first, then every --eval_scale, the first with its accuracy."""
    rows = [{"eval_scale": 0.0, "accuracy": before}, {"eval_scale": SCALES[method][0], "accuracy": after}]
    return rows + [
        {"eval_scale": scale, "accuracy": before if scale == 0.0 else scaled(before, after, scale, draw)}
        for scale in SCALES[method][1:]
    ]


def with_scales(results, draw):
    return {"scales": scale_rows(results["zero_shot_accuracy"], results["accuracy"], results["settings"]["method"], draw)}


def with_new_classes(results, draw):
    rows = with_scales(results, draw)["scales"]
    before = 50.0 + 20.0 * random.Random(results["dataset"]).random()
    for row in rows:
        row["new_classes_accuracy"] = before + (0.0 if row["eval_scale"] == 0.0 else draw.uniform(-4.0, 6.0))
        row["harmonic_mean"] = 2.0 / (1.0 / row["accuracy"] + 1.0 / row["new_classes_accuracy"])
    return {"scales": rows}


def with_others(results, draw, others):
    method = results["settings"]["method"]
    tested = []
    for name, before in others.items():
        after = before + draw.uniform(1.0, 5.0)
        tested.append({"dataset": name, "classes": 200, "images": 10000, "zero_shot_accuracy": before})
        tested[-1]["scales"] = scale_rows(before, after, method, draw)[1:]
    mean = {"zero_shot_accuracy": sum(of["zero_shot_accuracy"] for of in tested) / len(tested), "scales": []}
    for i, row in enumerate(tested[0]["scales"]):
        accuracy = sum(of["scales"][i]["accuracy"] for of in tested) / len(tested)
        mean["scales"].append({"eval_scale": row["eval_scale"], "accuracy": accuracy})
    return with_scales(results, draw) | {"other_datasets": tested, "mean_of_others": mean}


def write_retrieval_run(folder, method, seed):
    """Recall on captioned images, which has no accuracies."""
    run = write_method_run(folder, "eurosat", method, "retrieval", 16, seed, lambda results, draw: {"dataset": "flickr8k"})
    file = run / "results.json"
    results = json.loads(file.read_text())
    for key in ["zero_shot_accuracy", "accuracy", "top5_accuracy", "macro_f1", "expected_calibration_error"]:
        del results[key]
    for key in ["per_class", "confusion", "zero_shot"]:
        del results[key]
    results["settings"] |= {"dataset": "flickr8k", "shots": "all"}
    draw = random.Random(f"{method} {seed}")

    def recall(gain):
        return {
            "image_to_text": {"at_1": 85.0 + gain, "at_5": 97.0 + gain / 4, "at_10": 99.0 + gain / 8},
            "text_to_image": {"at_1": 70.6 + gain, "at_5": 92.4 + gain / 4, "at_10": 96.1 + gain / 8},
        }

    rows = [{"eval_scale": scale} | recall(0.0 if scale == 0.0 else draw.uniform(1.0, 4.0)) for scale in SCALES[method]]
    results["retrieval"] = {"images": 200, "captions": 1000, "zero_shot": recall(0.0), "scales": rows}
    file.write_text(json.dumps(results))
    return run


def write_protocols(folder):
    """LoRA and R-Adapter on every protocol; of base_to_new R-Adapter lacks a data set."""
    runs = folder / "runs"
    tested = {name: zero_shot for name, (_, _, zero_shot, _) in BENCHMARKS.items() if name != "caltech101"}
    for method in ADAPTED:
        for seed in SEEDS:
            for dataset in ["dtd", "eurosat"]:
                for shots in [4, 16]:
                    write_method_run(runs, dataset, method, "all", shots, seed, with_scales)
            for dataset in ["dtd", "eurosat", "oxford_pets"]:
                if (method, dataset) != ("r_adapter", "oxford_pets"):
                    write_method_run(runs, dataset, method, "base_to_new", 16, seed, with_new_classes)
            write_method_run(runs, "imagenet", method, "robustness", 16, seed, lambda r, draw: with_others(r, draw, SHIFTS))
            write_method_run(runs, "caltech101", method, "cross_dataset", 16, seed, lambda r, draw: with_others(r, draw, tested))
            write_retrieval_run(runs, method, seed)
    return runs


def write_large(folder):
    for offset, backbone in enumerate(["ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px", "ViT-H/14"]):
        for dataset in BENCHMARKS:
            for shots in SHOTS:
                for seed in SEEDS:
                    write_run(folder, dataset, backbone, shots, seed, offset=offset - 2.0)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--protocols", action="store_true")
    given = parser.parse_args()
    print((write_large if given.large else write_protocols if given.protocols else write_small)(given.folder))
