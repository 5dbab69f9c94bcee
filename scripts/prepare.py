"""Where to get the data sets, what is missing, and the conversions they need. Nothing is downloaded.

python scripts/prepare.py fastmri --root data                       check the files that data=paper lists, and say where
they come from
python scripts/prepare.py aapm    --root data --from RAW_FOLDER     convert the DICOM series into the listed slices,
then check
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from aseqdip.data import FileReader, make_reader
from aseqdip.data._dicom import read_header
from aseqdip.data.ct import read_ct
from aseqdip.data.picture import read_picture
from aseqdip.errors import UserError
from aseqdip.files import config_folder, write_atomically

GUIDE = {
    "fastmri": """fastMRI knee, multi-coil validation set ("knee_multicoil_val", 94 GB; the 20 listed are enough).
  Where:    https://fastmri.med.nyu.edu, after a request; the link comes by e-mail.
  Licence:  the fastMRI data use agreement: research and education, not to be passed on; cite Zbontar et al.
  Layout:   ROOT/multicoil_val/file1000000.h5 ... as they are.""",
    "aapm": """Low Dose CT Grand Challenge (AAPM, Mayo Clinic), full dose, 3 mm, patients L291, L310, L333, L506.
  Where:    https://www.aapm.org/GrandChallenge/LowDoseCT, after a request; also in the Cancer Imaging Archive.
  Licence:  that of the place it comes from: research use, with citation; not to be passed on.
  Layout:   --from FOLDER is searched for DICOM files (.IMA or .dcm); five slices a patient go to ROOT/aapm.""",
    "cbsd68": """CBSD68: 68 colour photographs of the Berkeley segmentation set.
  Where:    https://github.com/clausmichele/CBSD68-dataset (CBSD68/original_png).
  Licence:  Berkeley (BSDS): non-commercial research and education.
  Layout:   ROOT/natural/cbsd68/0000.png ... as they are.""",
    "ffhq": """FFHQ faces, 20 of them, at 256 x 256.
  Where:    https://github.com/NVlabs/ffhq-dataset (images1024x1024).
  Licence:  CC BY-NC-SA 4.0 for the set; each photograph has its own.
  Layout:   --from FOLDER is searched for the listed 1024 x 1024 files; 4 x 4 means go to ROOT/natural/ffhq256.""",
    "public": """Public images in place of fastMRI and AAPM, CBSD68, faces and two scans: data=public, faces, scans.
  Where, licences and layout, file by file: docs/data.md.""",
    "calibration": """Two images a task for choosing settings, in none of the other lists: data=calibration.
  Where, licences and layout: docs/data.md.""",
}

#: the lists that each set is checked against: configs/data_task/<name>.yaml
LISTS = {
    "fastmri": ("paper_mri",),
    "aapm": ("paper_ct",),
    "cbsd68": ("public_denoising",),
    "ffhq": ("faces_denoising",),
    "public": ("public_mri", "public_ct", "public_denoising", "faces_denoising", "scans_mri"),
    "calibration": ("calibration_mri", "calibration_ct", "calibration_denoising"),
}


def listed(name: str) -> tuple[str, str, list[str]]:
    """Reader, folder and files of a list."""
    dataset = OmegaConf.load(config_folder() / "data_task" / f"{name}.yaml").dataset
    return dataset.reader, dataset.folder, list(dataset.files)


def shape(reader: FileReader, path: Path) -> tuple[int, ...]:
    """Shape of what a file holds, read as the runner will. Raises UserError if it cannot be."""
    sample = reader.read(path)
    if sample.kspace is not None:
        return tuple(sample.kspace.shape)
    assert sample.image is not None
    return tuple(sample.image.shape if reader.name == "picture" else sample.image.shape[-2:])


def check(root: Path, name: str) -> bool:
    """Say what is there of a list and what is missing; True if it is complete."""
    word, folder, files = listed(name)
    reader = make_reader(word, root, folder, files)
    assert isinstance(reader, FileReader)
    shapes: dict[tuple[int, ...], int] = defaultdict(int)
    problems = []
    for file in files:
        path = root / folder / file
        if not path.is_file():
            problems.append(f"missing: {path}")
            continue
        try:
            found = shape(reader, path)
        except UserError as error:
            problems.append(str(error))
            continue
        shapes[found] += 1
        if name == "paper_ct" and found != (512, 512):
            problems.append(f"{path} is {found[0]} x {found[1]}: expected 512 x 512")
    sizes = ", ".join(f"{n} of {' x '.join(map(str, size))}" for size, n in shapes.items())
    say(f"{name}: {sum(shapes.values())} of {len(files)} files in {root / folder}" + (f" ({sizes})" if sizes else ""))
    for problem in problems:
        say(f"  {problem}")
    return not problems


def convert_aapm(raw: Path, root: Path) -> None:
    """From each listed patient's full-dose series, the slices at 1/10, 3/10 ... 9/10 of its length, in Hounsfield
    units.
    """
    _, folder, files = listed("paper_ct")
    for patient in sorted({name.split("_")[0] for name in files}):
        wanted = [name for name in sorted(files) if name.startswith(patient)]
        found = full_dose(raw, patient, len(wanted))
        if not found:
            say(f"{patient}: no full-dose DICOM series of {len(wanted)} slices or more below {raw}")
            continue
        series = found[0]
        for number, name in enumerate(wanted):
            path = series[len(series) * (2 * number + 1) // (2 * len(wanted))]
            hu, _, _ = read_ct(path)
            arrays = {"hu": hu.astype(np.int16), "subject": np.array(patient), "source": np.array(path.name)}
            write_atomically(root / folder / name, lambda file, a=arrays: np.savez_compressed(file, **a))  # type: ignore[misc]
        say(f"{patient}: {len(wanted)} of {len(series)} slices in {series[0].parent} -> {root / folder}")
        if others := ", ".join(str(other[0].parent) for other in found[1:]):
            say(f"  as near to 3 mm: {others}; for one of these give --from a folder without the others")


def full_dose(raw: Path, patient: str, least: int) -> list[list[Path]]:
    """A patient's full-dose series nearest to 3 mm, each the slices from one end to the other; there may be several.

    Args:
        least: how many slices a series must have: a scout or the picture of a dose report is none.
    """
    series: dict[tuple[float, str], list[tuple[float, Path]]] = defaultdict(list)
    for path in dicom_files(raw):
        words = str(path.relative_to(raw)).lower()
        if patient.lower() not in words or "quarter" in words or "_qd_" in words or "low dose" in words:
            continue
        try:
            found = read_header(path, series_and_place)
        except UserError as error:  # one damaged file is no reason to leave out the others
            say(f"left out: {error}")
            continue
        if found is not None:
            series[found[0]].append((found[1], path))
    whole = {key: [path for _, path in sorted(slices)] for key, slices in series.items() if len(slices) >= least}
    return [whole[key] for key in sorted(whole) if key[0] == min(whole)[0]]


def series_and_place(head: Any) -> tuple[tuple[float, str], float] | None:
    """A CT slice's series, with how far its thickness is from 3 mm, and its position along it; None for other files."""
    if "Rows" not in head or "projection" in str(head.get("SeriesDescription", "")).lower():
        return None
    position = head.get("ImagePositionPatient")
    place = float(position[2]) if position is not None else float(head.get("InstanceNumber", 0))
    thickness = float(head.get("SliceThickness") or 3)
    return (abs(thickness - 3), str(head.get("SeriesInstanceUID", ""))), place


def dicom_files(raw: Path) -> Iterator[Path]:
    """DICOM files below a folder, by suffix."""
    return (p for p in sorted(raw.rglob("*")) if p.suffix.lower() in (".ima", ".dcm") and p.is_file())


def convert_ffhq(raw: Path, root: Path) -> None:
    """The listed faces, 1024 x 1024, as means over 4 x 4 pixels."""
    from PIL import Image

    _, folder, files = listed("faces_denoising")
    there = {p.name: p for p in sorted(raw.rglob("*.png"))}
    for name in (name for name in files if name in there):
        image = read_picture(there[name])
        if tuple(image.shape) != (3, 1024, 1024):
            raise UserError(f"{there[name]} has shape {tuple(image.shape)}: expected a colour picture of 1024 x 1024.")
        small = image.reshape(3, 256, 4, 256, 4).mean((2, 4))
        picture = Image.fromarray((255 * small).round().byte().movedim(0, -1).numpy())
        write_atomically(root / folder / name, lambda file, p=picture: p.save(file, "PNG"))  # type: ignore[misc]


def say(line: str) -> None:
    """One line to the user."""
    sys.stdout.write(line + "\n")


def main(argv: list[str] | None = None) -> int:
    """0 if the set is complete, 1 if something is missing, 2 for a wrong command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=GUIDE)
    parser.add_argument("--root", type=Path, required=True, help="the data folder: data_root of the runs")
    parser.add_argument("--from", dest="raw", type=Path, help="aapm, ffhq: folder of the original files, to convert")
    words = parser.parse_args(argv)
    convert = {"aapm": convert_aapm, "ffhq": convert_ffhq}.get(words.set)
    if words.raw is not None and (convert is None or not words.raw.is_dir()):
        parser.error(f"--from {words.raw}: {'there is no such folder' if convert else words.set + ' is read as it is'}")
    say(GUIDE[words.set])
    try:
        if words.raw is not None and convert is not None:
            convert(words.raw, words.root)
        complete = [check(words.root, name) for name in LISTS[words.set]]
    except UserError as error:
        parser.error(str(error))
    say("Complete." if all(complete) else f"Not complete: see above. Once it is, run with data_root={words.root}.")
    return 0 if all(complete) else 1


if __name__ == "__main__":
    sys.exit(main())
