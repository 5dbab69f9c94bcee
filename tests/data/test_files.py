"""What is not one reader's alone: regular files, and a cache that may be damaged."""

from pathlib import Path

import numpy as np
import pytest

from aseqdip.data import load_array_or_none, printable
from aseqdip.data._files import named_errors, opened
from aseqdip.errors import UserError


def test_a_cache_is_read_or_counts_as_not_there(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.complex64).reshape(2, 3)
    np.savez(tmp_path / "good.npz", array=array)
    np.save(tmp_path / "good.npy", array)
    for name in ("good.npz", "good.npy"):
        found = load_array_or_none(tmp_path / name, (2, 3), np.complex64)
        assert found is not None
        assert np.array_equal(found, array)
        assert load_array_or_none(tmp_path / name, (3, 2), np.complex64) is None
        assert load_array_or_none(tmp_path / name, (2, 3), np.complex128) is None
    content = (tmp_path / "good.npz").read_bytes()
    for place in range(len(content)):  # any flipped byte either changes nothing that is read, or is noticed
        (tmp_path / "bad.npz").write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        found = load_array_or_none(tmp_path / "bad.npz", (2, 3), np.complex64)
        assert found is None or np.array_equal(found, array), place
    for bad in (b"", b"text", content[:100]):
        (tmp_path / "bad.npz").write_bytes(bad)
        assert load_array_or_none(tmp_path / "bad.npz", (2, 3), np.complex64) is None
    assert load_array_or_none(tmp_path / "nowhere.npz", (2, 3), np.complex64) is None
    assert load_array_or_none(tmp_path, (2, 3), np.complex64) is None


def test_every_error_gets_the_files_name(tmp_path: Path) -> None:
    path = tmp_path / "a\nb.h5"
    for error in (KeyError("Link iteration failed"), RecursionError(), ValueError("two\nlines\x1b[31m")):
        with pytest.raises(UserError) as raised, named_errors(path, "a scan"):
            raise error
        text = str(raised.value)
        assert "a%0Ab.h5 could not be read" in text
        assert "expected a scan" in text
        assert text.isprintable()
    with pytest.raises(UserError, match="does not fit into this machine's memory"), named_errors(path, "a scan"):
        raise MemoryError
    with pytest.raises(KeyboardInterrupt), named_errors(path, "a scan"):
        raise KeyboardInterrupt


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    for path, kind in ((tmp_path, "a folder"), (Path("/dev/zero"), "a device"), (tmp_path / "none", "No such file")):
        with pytest.raises(UserError, match=kind), opened(path, "a scan"):
            pass


def test_printable() -> None:
    assert printable("caf\udce9 \x1b[1m \u202e gr\u00fcn") == "caf%E9 %1B[1m %E2%80%AE gr\u00fcn"
