#!/usr/bin/env python3
"""Writes the text tables that are embedded in the library: CLIP's BPE merges, the ImageNet class names and templates
(all three out of an open-clip-torch wheel), and the HTML entities that Python's html.unescape knows.

    prepare_assets.py --wheel open_clip_torch-3.3.0-py3-none-any.whl --out .deps/assets

A file that is already right is left untouched, so that nothing is rebuilt; none is ever half-written.
"""

import argparse
import gzip
import html.entities
import os
import pathlib
import sys
import tempfile
import zipfile
import zlib

MERGES_MEMBER = "open_clip/bpe_simple_vocab_16e6.txt.gz"
NAMES_MEMBER = "open_clip/zero_shot_metadata.py"


def merges(wheel):
    """CLIP uses only as many of the file's merges as fill a vocabulary of 49,152 with 2 · 256 bytes and 2 specials."""
    lines = gzip.decompress(wheel.read(MERGES_MEMBER)).decode("utf-8").split("\n")
    count = 49152 - 256 - 2
    chosen = lines[1 : 1 + count]  # line 0 is the file's version
    malformed = [line for line in chosen if len(line.split(" ")) != 2]
    if malformed:
        raise ValueError(f"{MERGES_MEMBER}: a merge should be two symbols, got {malformed[0]!r}")
    return checked("merges", chosen, 48894)


def names_and_templates(wheel):
    """The module holds only tuples of strings and of lambdas: run alone, it needs none of the package's imports."""
    module = {}
    exec(compile(wheel.read(NAMES_MEMBER), NAMES_MEMBER, "exec"), module)
    names = list(module["IMAGENET_CLASSNAMES"])
    templates = [template("{}") for template in module["OPENAI_IMAGENET_TEMPLATES"]]
    bad = [line for line in templates if line.count("{}") != 1]
    if bad:
        raise ValueError(f"{NAMES_MEMBER}: a template should have one {{}}, got {bad[0]!r}")
    return checked("class names", names, 1000), checked("templates", templates, 80)


def html_entities():
    """`name<TAB>code points in hexadecimal`, sorted by name for a binary search."""
    entities = sorted(html.entities.html5.items())
    lines = [f"{name}\t{' '.join(f'{ord(c):x}' for c in text)}" for name, text in entities]
    return checked("HTML entities", lines, 2231)


def checked(what, lines, count):
    if len(lines) != count:
        raise ValueError(f"{what}: expected {count}, got {len(lines)}")
    if any(not line or "\n" in line for line in lines):
        raise ValueError(f"{what}: an entry is empty or has a line break")
    return lines


def write_lines(path, lines):
    content = "".join(line + "\n" for line in lines).encode("utf-8")
    if path.is_file() and path.read_bytes() == content:
        return
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def main():
    parser = argparse.ArgumentParser(description="Prepares the text tables that the library embeds.")
    parser.add_argument("--wheel", type=pathlib.Path, required=True, help="file of the open-clip-torch wheel")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write into")
    arguments = parser.parse_args()
    try:
        with zipfile.ZipFile(arguments.wheel) as wheel:
            names, templates = names_and_templates(wheel)
            files = {
                "bpe_merges.txt": merges(wheel),
                "imagenet_class_names.txt": names,
                "imagenet_templates.txt": templates,
                "html_entities.txt": html_entities(),
            }
        arguments.out.mkdir(parents=True, exist_ok=True)
        for name, lines in files.items():
            write_lines(arguments.out / name, lines)
    except (OSError, KeyError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        sys.exit(f"prepare_assets.py: cannot prepare '{arguments.out}' from '{arguments.wheel}': {error} "
                 "(hint: remove the wheel and run scripts/setup.sh again)")


if __name__ == "__main__":
    main()
