"""Builds the tokenizer: byte-level BPE whose merges stay within words: digits and operators stand alone."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from workers.abacus import chat
from workers.abacus.data import MIXES, example

VOCABULARY = 768
CONTEXT = 4096
PATTERN = r" ?[A-Za-z]+|[^A-Za-z]"


def train(seed: int = 7, examples: int = 6000) -> Tokenizer:
    """A tokenizer learned from generated training text; the same seed gives the same one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(chat.SPECIAL_TOKENS) - len(chat.MARKER_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(seed, examples), trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in chat.SPECIAL_TOKENS]
    )
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in chat.MARKER_TOKENS])
    return tokenizer


def _corpus(seed: int, examples: int) -> Iterator[str]:
    rng = random.Random(seed)
    for _ in range(examples):
        for text, _ in example(rng, MIXES["base"]):
            for marker in (*chat.SPECIAL_TOKENS, *chat.MARKER_TOKENS):
                text = text.replace(marker, "\n")
            yield text


def save(tokenizer: Tokenizer, directory: Path) -> None:
    """Write the files transformers, SGLang and openvino_tokenizers read."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    template = (Path(__file__).parent / "chat_template.jinja").read_text()
    (directory / "chat_template.jinja").write_text(template)
    added = {
        str(tokenizer.token_to_id(token)): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": token in chat.SPECIAL_TOKENS,
        }
        for token in (*chat.SPECIAL_TOKENS, *chat.MARKER_TOKENS)
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT,
        "bos_token": "[BOS]",
        "eos_token": chat.END,
        "pad_token": "[PAD]",
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": added,
        "chat_template": template,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    tokenizer = train()
    save(tokenizer, arguments.directory)
    print(f"{tokenizer.get_vocab_size()} tokens in {arguments.directory}")


if __name__ == "__main__":
    main()
