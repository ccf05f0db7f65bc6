"""Token ids: open_clip's and transformers' tokenizers."""

import html
import html.entities
import random
import re
import sys
import unicodedata
import unittest

import peers

import ftfy
import open_clip
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES
from transformers import CLIPTokenizer

CONTEXT = 77
END = 49407

# Where open_clip writes <start_of_text>, OpenAI and transformers write <|startoftext|>: neither is a word here.
SPECIAL = re.compile(r"<\|?(start|end)_?of_?text", re.IGNORECASE)


def characters(categories, first=0x20, last=0x2FFFF):
    """The characters of Unicode's categories (their first letters) that this Python knows: the libraries' tables are of
    different ages."""
    return [c for c in map(chr, range(first, last)) if unicodedata.category(c)[0] in categories]


LETTERS = characters("L")
EUROPEAN = characters("L", last=0x590)
ANYTHING = characters("LMNPSZ")
NUMBERS = characters("N")
PUNCTUATION = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~…–—‘’“”«»¿¡")
EMOJI = characters("S", 0x1F300, 0x1FB00) + ["👩‍🔬", "🏳️‍🌈", "👍🏽", "🇩🇪", "👨‍👩‍👧‍👦", "❤️", "☎️", "1️⃣"]
CONTRACTIONS = [
    "it's",
    "I'll",
    "WE'RE",
    "they've",
    "can't",
    "I'M",
    "he'd",
    "'s",
    "''t",
    "rock'n'roll",
    "it'ſ",
    "'LL'LL",
]
ENTITIES = ["&" + name for name in html.entities.html5] + [
    "&amp;" + name for name in list(html.entities.html5)[:400]
]
ENTITIES += [f"&#{code};" for code in range(0, 0x2500, 13)] + [f"&#x{ord(c):X};" for c in ANYTHING[::499]]
SPACES = ["  ", "\t", "\n", "\u00a0", "\u2003", "\u3000", " \n\t "]


def a_word(rng):
    letters = rng.choice(
        [EUROPEAN, EUROPEAN, LETTERS, "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "ΑΒΓΣΟΔςσ"]
    )
    return "".join(rng.choice(letters) for _ in range(rng.randint(1, 12)))


def a_prompt(rng):
    return rng.choice(OPENAI_IMAGENET_TEMPLATES)(rng.choice(IMAGENET_CLASSNAMES))


def words(rng):
    return " ".join(a_word(rng) for _ in range(rng.randint(1, 12)))


def unicode_soup(rng):
    return "".join(rng.choice(ANYTHING) for _ in range(rng.randint(1, 40)))


def emoji(rng):
    return rng.choice(["", " "]).join(
        rng.choice([rng.choice(EMOJI), a_word(rng)]) for _ in range(rng.randint(1, 8))
    )


def entities(rng):
    """ftfy resolves entities itself, except in a text with a `<`, which it takes for HTML."""
    parts = [
        rng.choice([rng.choice(ENTITIES), a_word(rng), rng.choice(PUNCTUATION)])
        for _ in range(rng.randint(1, 6))
    ]
    return rng.choice(["<b>", "< ", "a<"]) + rng.choice(["", " "]).join(parts)


def mixed(rng):
    pieces = [NUMBERS, PUNCTUATION, CONTRACTIONS, SPACES, EMOJI, EUROPEAN]
    return "".join(
        rng.choice([rng.choice(rng.choice(pieces)), a_word(rng)]) for _ in range(rng.randint(1, 20))
    )


def long_text(rng):
    return " ".join(
        rng.choice([a_word(rng), str(rng.randint(0, 9999)), a_prompt(rng)])
        for _ in range(rng.randint(30, 200))
    )


def strings(count):
    """`count` different strings that ftfy leaves as they are, the same ones in every run."""
    rng = random.Random(0)
    makers = [a_prompt, words, unicode_soup, emoji, entities, mixed, mixed, long_text]
    weights = [4, 4, 4, 3, 4, 4, 4, 1]
    found = dict.fromkeys(["", " ", "\t\n ", "a", "A", ".", "…", "'", "0", "a" * 5000, "é" * 300, "🙂" * 200])
    while len(found) < count:
        text = rng.choices(makers, weights)[0](rng)
        if not SPECIAL.search(html.unescape(html.unescape(text))) and ftfy.fix_text(text) == text:
            found[text] = None
    return list(found)


def first_difference(texts, ours, expected):
    for text, our_row, row in zip(texts, ours, expected, strict=True):
        if our_row != row:
            return f"{text!r} ({text.encode('unicode_escape').decode()}): ours {our_row}, expected {row}"
    return None


class Tokenizer(peers.PeerTest):
    @classmethod
    def setUpClass(cls):
        cls.texts = strings(24000)
        cls.ours = peers.Driver("inputs_driver").ask("tokenize", texts=cls.texts)["ids"]

    def test_open_clip_has_the_same_ids(self):
        expected = open_clip.SimpleTokenizer()(self.texts, context_length=CONTEXT).tolist()
        different = sum(ours != row for ours, row in zip(self.ours, expected, strict=True))
        self.assertEqual(
            different, 0, f"of {len(self.texts)}; {first_difference(self.texts, self.ours, expected)}"
        )
        print(f"{len(self.texts)} strings against open_clip", file=sys.stderr)

    def test_transformers_has_the_same_ids(self):
        texts, ours = [], []
        for text, row in zip(self.texts, self.ours, strict=True):
            if comparable_with_transformers(text):
                texts.append(text)
                ours.append(row[: row.index(END) + 1])
        expected = transformers_tokenizer()(texts, truncation=True, max_length=CONTEXT)["input_ids"]
        different = sum(row != other for row, other in zip(ours, expected, strict=True))
        self.assertEqual(different, 0, f"of {len(texts)}; {first_difference(texts, ours, expected)}")
        self.assertGreater(len(texts), 10000)
        print(f"{len(texts)} strings against transformers", file=sys.stderr)


def comparable_with_transformers(text):
    """transformers applies NFC, resolves no entities, keeps control characters, and knows neither final sigma nor
    a long s after an apostrophe."""
    return (
        unicodedata.normalize("NFC", text) == text
        and html.unescape(text) == text
        and not any(unicodedata.category(c).startswith("C") and c not in "\t\n\r" for c in text)
        and "Σ" not in text
        and "'ſ" not in text
    )


def transformers_tokenizer():
    """Out of the merges alone: the vocabulary is bytes, bytes that end a word, merges, and two special tokens."""
    merges = [
        tuple(line.split(" "))
        for line in (peers.SOURCE / ".deps/assets/bpe_merges.txt").read_text(encoding="utf-8").splitlines()
    ]
    symbols = list(open_clip.tokenizer.bytes_to_unicode().values())
    symbols += [symbol + "</w>" for symbol in symbols] + ["".join(merge) for merge in merges]
    vocabulary = {symbol: id for id, symbol in enumerate(symbols + ["<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges)


if __name__ == "__main__":
    peers.main()
