"""``recommend``: looks at the files of a folder, says what they are, and how to reconstruct them; no more than that.

Three commands, the one that does best on real images first (docs/quality.md), each with how long it takes here.
"""

import contextlib
import logging
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from aseqdip import compose
from aseqdip.data import READERS, make_reader
from aseqdip.data._files import printable
from aseqdip.data.base import FileReader, Sample
from aseqdip.errors import UserError
from aseqdip.methods import METHODS
from aseqdip.run import runner
from aseqdip.run.interrupt import SIGNALLED
from aseqdip.run.terminal import about
from aseqdip.words import written

#: readers of files, those first whose files others would take for theirs; and the task of what they read
TASKS = {
    "ismrmrd": "mri", "kspace": "mri", "bart": "mri", "sinogram": "ct", "ct": "ct", "dicom": "mri", "nifti": "mri",
    "mat": "mri", "complex": "mri", "picture": "denoising",
}  # fmt: skip
#: of each kind of method the one that does best (docs/quality.md)
CHOICES = {
    "mri": ("pnp", "tv", "aseqdip"),
    "ct": ("pnp", "tv", "aseqdip"),
    "denoising": ("pnp", "nlm", "rethinking_dip"),
}
KINDS = {
    "learned": "by a small denoiser that was trained on such images; first of all methods in docs/quality.md",
    "classical": "without any training data",
    "untrained network": "by an untrained network",
}
TRIED = 12  # files, to see which are of a kind
STEPS = 10  # to measure a network by; a multiple of the presets' N
ITERATIONS = 2  # and others


def main(words: Sequence[str]) -> None:
    """Print what is in ``data_root``, and commands for it. UserError for other words, and if nothing can be read."""
    if {"-h", "--help"} & {*words}:
        sys.stdout.write(f"aseqdip recommend data_root=FOLDER\n\n{__doc__}")
        return
    root = [word for word in words if word.startswith("data_root=")]
    if bare := [word for word in words if "=" not in word]:
        raise UserError(f"{bare[0]}: expected data_root=FOLDER, where your files are.")
    if others := [word for word in words if word not in root]:
        sys.stderr.write(f"recommend looks at the files of data_root=... alone: {' '.join(others)} has no effect.\n")
    cfg = compose.compose(root)
    found = list(_readable(Path(cfg.data_root)))
    if not found:
        raise UserError(f"No file in {cfg.data_root} can be read by any of {', '.join(TASKS)}: see docs/data.md.")
    below = sorted(path.name for path in Path(cfg.data_root).iterdir() if path.is_dir() and path.name[0] != ".")
    if len(below) > 1:
        said = ", ".join(map(printable, below[:5])) + (" ..." if len(below) > 5 else "")
        sys.stdout.write(f"It has folders: {said}. Each may hold files of another kind: ask for it alone.\n")
    for reader, count, images, first, sample in found:
        own = [f"task={TASKS[reader]}", f"dataset={'folder' if reader == 'picture' else reader}"]
        own += [f"data_root={cfg.data_root}", "images=all", "preset=quick"]
        if reader == "picture":
            own += ["truth=none", "sigma=SIGMA"]
        if READERS[reader].gives == "image":
            own.append("size=native")
        sys.stdout.write(f"{READERS[reader].title}: {images}, the first {_described(sample)}\n")
        sys.stdout.write("".join(f"  {note}\n" for note in sample.notes))
        program = "python run.py" if Path(sys.argv[0]).name == "run.py" else "aseqdip"
        for method in map(METHODS.__getitem__, CHOICES[TASKS[reader]]):
            line = [*own[:1], f"method={method.name}", *own[1:]]
            sys.stdout.write(f"  {method.title}, {KINDS[method.group]}; {_time(line, count, first)}:\n")
            sys.stdout.write(f"    {program} {shlex.join(line)}\n")
        if reader == "picture":
            sys.stdout.write("  sigma is the noise that the pictures have, on the 0..255 scale\n")


def _readable(root: Path) -> "list[tuple[str, int, str, int, Sample]]":
    """The readers that take a file of the folder: of how many images, in words, too; where the first readable is; it.

    Files of one suffix may be of several kinds: a few, from all over the folder, tell how many are of this one.
    """
    found = []
    for name in TASKS:
        part = READERS[name]
        assert issubclass(part, FileReader)
        options = {} if name == "sinogram" else {"slice": "all"}
        try:
            items = make_reader(name, root, options=options).items()
        except UserError:
            continue
        read, loads = {}, list(items.values())
        tried = [i * len(loads) // min(len(loads), TRIED) for i in range(min(len(loads), TRIED))]
        for i in tried:
            with contextlib.suppress(UserError):
                read[i] = loads[i]()
        if read:
            count = max(1, round(len(items) * len(read) / len(tried)))
            said = f"{count} image(s)" if len(read) == len(tried) else f"some {count} of {len(items)} image(s)"
            found.append((name, count, said, *max(read.items(), key=lambda one: _holds(one[1]))))  # else the first
    return found


def _holds(sample: Sample) -> bool:
    """Whether there is anything in it: slices at a volume's ends may be empty."""
    return any(tensor is not None and bool(tensor.any()) for tensor in (sample.image, sample.kspace, sample.sinogram))


def _described(sample: Sample) -> str:
    for what, tensor in (("k-space", sample.kspace), ("sinogram", sample.sinogram), ("image", sample.image)):
        if tensor is not None:
            kind = "complex " if what == "image" and tensor.is_complex() else ""
            return f"a{'n' if kind + what == 'image' else ''} {kind}{what} of {' x '.join(map(str, tensor.shape))}"
    return "empty"


def _time(words: Sequence[str], images: int, first: int) -> str:
    """How long the command takes on this machine, from a few steps on the first image that can be read."""
    logging.disable(logging.INFO)
    try:
        with tempfile.TemporaryDirectory() as folder:
            kept = [word for word in words if not word.startswith("images=")]
            given = written(["sigma=25" if word == "sigma=SIGMA" else word for word in kept])
            whole = compose.compose(given)
            few = [*given, f"images={first}:{first + 1}", "tracker=none", *written([f"outputs={folder}"])]
            count, tried = whole.steps, STEPS
            if not whole.learns:
                count, tried = getattr(whole.method.options, "iterations", 1), ITERATIONS
            if count > 1:
                few.append(f"{'steps' if whole.learns else 'iterations'}={tried}")
            if hasattr(whole.dataset.reader.options, "slice"):  # else it is said that one was taken
                few.append("dataset.slice=all")
            summary = runner.run(compose.compose(few))
    finally:
        logging.disable(logging.NOTSET)
    if summary.interrupted is not None:
        raise SystemExit(SIGNALLED + summary.interrupted)
    if not summary.records:
        return f"it cannot be tried: {'; '.join(summary.failed.values())}"
    seconds = summary.records[0].seconds
    each = seconds["start"] + (seconds["method"] + seconds["scoring"]) * max(1, count / tried)
    each = max(each, 1.0)
    return f"about {about(each)} an image on this machine, {about(each * images)} in all"
