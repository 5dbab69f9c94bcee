"""An unfinished reconstruction on disk: what belongs to it, and that not a bit of it has changed."""

import hashlib
import io
import logging
from pathlib import Path
from typing import Any

import torch

from aseqdip.files import write_atomically

log = logging.getLogger(__name__)

MAGIC = b"aseqdip checkpoint 2\n"


class Checkpoint:
    """The file of one unfinished reconstruction.

    Args:
        path: of the file.
        facts: what must be the same for it to be continued, by its name in messages: input, precision ...
    """

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self.path, self.facts = path, facts
        self.aside = path.with_name(f"{path.stem}-unused{path.suffix}")
        self.warned = False

    def load(self, image: str, device: torch.device) -> dict[str, Any] | None:
        """What was saved; None if nothing was, or nothing that can be continued.

        One line says why that is so, and the file is put aside.
        """
        if not self.path.exists():
            return None
        data = self.path.read_bytes()
        why = "is damaged"
        payload = data[len(MAGIC) + 32 :]
        if not data.startswith(MAGIC):
            why = "is damaged, or of an older version"
        elif hashlib.sha256(payload).digest() == data[len(MAGIC) : len(MAGIC) + 32]:
            content: dict[str, Any] = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
            changed = {k: (content["facts"].get(k), v) for k, v in self.facts.items() if content["facts"].get(k) != v}
            if not changed:
                return content
            why = "was begun with " + ", ".join(_change(name, *values) for name, values in changed.items())
        self.refuse(image, why)
        return None

    def refuse(self, image: str, why: str) -> None:
        """Put it aside, and say why."""
        self.path.replace(self.aside)
        log.warning("%s: its checkpoint %s; kept as %s, starting from the beginning.", image, why, self.aside.name)

    def save(self, image: str, content: dict[str, Any]) -> bool:
        """Write a checkpoint; False, with one warning, if it cannot be: no reconstruction ends for that."""
        buffer = io.BytesIO()
        torch.save({"facts": self.facts, **content}, buffer)
        payload = buffer.getvalue()
        checksum = hashlib.sha256(payload).digest()
        try:
            write_atomically(self.path, lambda file: [file.write(part) for part in (MAGIC, checksum, payload)])
        except OSError as error:
            if not self.warned:
                log.warning(
                    "%s: no checkpoint could be written (%s); going on, but a kill would lose what is done since the "
                    "last one.",
                    image,
                    error,
                )
            self.warned = True
            return False
        return True

    def clear(self) -> None:
        """Remove it, and what was put aside: the reconstruction is complete."""
        for path in (self.path, self.aside):
            path.unlink(missing_ok=True)


def _change(name: str, before: Any, now: Any) -> str:
    plain = all(isinstance(v, (str, int)) and len(str(v)) < 20 for v in (before, now))
    return f"{name} {before} instead of {now}" if plain else f"another {name}"
