"""Tokenizers of CLIP, from each form they are published in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from siamese_diffusion.core.errors import WeightsError
from siamese_diffusion.models.tokenizer import byte_tokenizer, has_tokenizer, read_tokenizer

PROMPT = "A photo of a polyp."


def test_any_text_is_tokenised_without_unknown_tokens() -> None:
    tokenizer = byte_tokenizer()
    text = "polyp \u00e9 \u75c5\u53d8 \U0001f9ec #42 (a/b)"
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    assert max(ids) < len(tokenizer) == 514
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text.replace(" ", "")


def test_saved_files_give_the_same_tokens(tmp_path: Path) -> None:
    byte_tokenizer().save_pretrained(tmp_path)
    assert has_tokenizer(tmp_path)
    assert read_tokenizer(tmp_path)(PROMPT).input_ids == byte_tokenizer()(PROMPT).input_ids


def test_a_folder_without_vocabulary_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "merges.txt").touch()  # half of a pair
    assert not has_tokenizer(tmp_path)
    message = f"tokenizer folder '{tmp_path}' has neither tokenizer.json nor vocab.json with merges"
    with pytest.raises(WeightsError, match=re.escape(message)):
        read_tokenizer(tmp_path)


def test_openais_vocabulary_gives_clips_own_tokens(shared: Path) -> None:
    tokenizer = read_tokenizer(shared / "weights" / "clip-bpe")
    assert len(tokenizer) == 49408
    # as documented for openai/CLIP
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    padded = tokenizer(PROMPT, padding="max_length", truncation=True).input_ids
    assert len(padded) == 77
