"""Words of a command with random damage: a configuration or a sentence of ours, soon; never anything else.

``ASEQDIP_FUZZ=1000`` tries as many instead of a few.
"""

import random
from collections.abc import Callable

import pytest
from fuzz import fuzzed, tries

from aseqdip import words
from aseqdip.errors import UserError

TRIES = tries(40)
COMMANDS = (
    ["task=mri", "method=aseqdip", "accel=8", "preset=quick"],
    ["-m", "task=ct", "views=18,30", "lam=0.5,1", "seed=1"],
    ["task=denoising", "method=tv_dip", "rho=0.1", "stop=wmv", "patience=20", "images=0:2"],
    ["experiment=table2", "-m", "cell=mri-accel4-aseqdip"],
    ["dataset=kspace", "data_root=/some/where", "images=[a,b]", "network.width=16"],
)
PIECES = (
    *("", " ", "=", "==", ",", ",,", "[", "]", "[]", "{", "}", "{a:1}", "(", ")", "'", '"', "\\"),
    *("$", "${", "${task}", "${x:y}", "null", "true", "nan", "inf"),
    *("~", "+", "++", "@", ":", "/", "..", "*", "?", "|", ";", "\n", "\t", "\0", "é", "😀", "\udcff"),
    *("-1", "0", "1e400", "1_000", "0x10", "9" * 400, "range(3)", "choice(1,2)", "glob(*)", "interval(0,1)", "str(1)"),
    *("task", "method", "hydra", "hydra.run.dir=x", "hydra/launcher=x"),
    *("--cfg", "--config-dir", "-c", "job", "defaults", "_target_"),
)  # fmt: skip


def damaged(command: list[str], rng: random.Random) -> list[str]:
    """The command with a piece put in, put in place of a part, a word twice, missing or cut off."""
    changed = list(command)
    for _ in range(rng.choice((1, 1, 2, 3))):
        place = rng.randrange(len(changed))
        word, piece = changed[place], rng.choice(PIECES)
        at, end = sorted((rng.randint(0, len(word)), rng.randint(0, len(word))))
        name, _, value = word.partition("=")
        changed[place] = rng.choice(
            (word[:at] + piece + word[at:], word[:at] + piece + word[end:], f"{name}={piece}", piece + word, word[:end])
        )
        if rng.random() < 0.2:
            changed.insert(place, rng.choice((piece, f"{piece}={value}", rng.choice(rng.choice(COMMANDS)))))
    return changed


@pytest.mark.parametrize("part", range(5))
def test_damaged_words_are_answered_in_a_sentence(part: int, record_property: Callable[[str, object], None]) -> None:
    rng, answered = random.Random(part), 0
    with fuzzed("command words", record_property) as cases:
        for _ in range(TRIES // 5):
            given = damaged(list(COMMANDS[part]), rng)
            with cases.case(given) as answer:
                try:
                    ready = words.written(given)
                    words.check(ready)
                    words.rehearse(ready)
                except UserError as error:
                    answered += 1
                    answer(str(error))
                    assert len(str(error)) < 3000 + sum(map(len, given))
    assert answered > 0, "the damage is felt"
