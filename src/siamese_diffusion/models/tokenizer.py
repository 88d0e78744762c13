"""CLIP's tokenizer from files of several kinds, or with a vocabulary of bytes alone."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

from transformers import CLIPTokenizer

from siamese_diffusion.core.errors import WeightsError

PROMPT_LENGTH = 77  # tokens, as CLIP's
VOCABULARY_FILE = "bpe_simple_vocab_16e6.txt.gz"  # as OpenAI publishes it
_MERGES = 49152 - 256 - 2  # of its lines, CLIP takes so many after the header


def byte_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with a vocabulary of bytes and no merges, so that no file is needed."""
    return _tokenizer([])


def read_tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's tokenizer from a folder with any of the forms it is published in.

    Args:
        folder: With `tokenizer.json`, or `vocab.json` and `merges.txt`, or OpenAI's
            `bpe_simple_vocab_16e6.txt.gz`.

    Raises:
        WeightsError: If it has none of them; the library would make up an empty vocabulary.
    """
    if not has_tokenizer(folder):
        raise WeightsError(
            f"tokenizer folder '{folder}' has neither tokenizer.json nor vocab.json with "
            f"merges.txt nor {VOCABULARY_FILE}"
        )
    if not _has_library_files(folder):
        with gzip.open(folder / VOCABULARY_FILE, "rt", encoding="utf-8") as file:
            lines = file.read().split("\n")[1 : 1 + _MERGES]
        first, _, second = zip(*(line.partition(" ") for line in lines), strict=True)
        return _tokenizer(list(zip(first, second, strict=True)))
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def has_tokenizer(folder: Path) -> bool:
    """Whether `read_tokenizer` would find one."""
    return _has_library_files(folder) or (folder / VOCABULARY_FILE).is_file()


def _has_library_files(folder: Path) -> bool:
    whole = (folder / "tokenizer.json").is_file()
    return whole or all((folder / name).is_file() for name in ("vocab.json", "merges.txt"))


def _tokenizer(merges: Sequence[tuple[str, str]]) -> CLIPTokenizer:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(others))]
    tokens = symbols + [f"{symbol}</w>" for symbol in symbols]
    tokens += ["".join(pair) for pair in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=list(merges), model_max_length=PROMPT_LENGTH)
