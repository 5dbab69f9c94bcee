"""What tests with random damage share: how often they try, and how bytes are damaged."""

import os
import random


def tries(few: int) -> int:
    """How many damages to try: ``ASEQDIP_FUZZ`` of them, else a few."""
    return int(os.environ.get("ASEQDIP_FUZZ", few))


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The content with a few bytes changed, eight in a row set alike, or cut off."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 3, 10))):
        place = min(int(rng.expovariate(4 / len(changed))), len(changed) - 1)  # headers come first
        kind = rng.randrange(6)
        if kind < 4:
            changed[place] = rng.choice((0, 255, 127, 128, changed[place] ^ 1 << rng.randrange(8), rng.randrange(256)))
        elif kind == 4:
            changed[place : place + 8] = rng.choice((b"\xff", b"\0", b"\x7f")) * 8
        else:
            del changed[rng.randrange(1, len(changed) + 1) :]
    return bytes(changed)
