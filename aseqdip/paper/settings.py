"""The settings of the paper's tables, and what its text says of data and protocol (Sec. 4.1)."""

#: the settings of Table 2, in its order, as its head prints them
SETTINGS = {
    ("mri", "accel4"): "MRI 4×",
    ("mri", "accel8"): "MRI 8×",
    ("ct", "views30"): "CT 30 views",
    ("ct", "views18"): "CT 18 views",
    ("denoising", "sigma15"): "Denoising σ 15",
    ("denoising", "sigma30"): "Denoising σ 30",
    ("inpainting", "hiar0.1"): "In-painting HIAR 0.1",
    ("inpainting", "hiar0.25"): "In-painting HIAR 0.25",
    ("deblurring", "nonlinear"): "Deblurring non-linear blur",
}
#: the paper's data set and image side for each task, and how many images a number is the mean of
DATASETS = {
    "mri": "fastmri",
    "ct": "aapm",
    **dict.fromkeys(("denoising", "inpainting", "deblurring"), "cbsd68"),
}
SIZES = {"mri": "320", **dict.fromkeys(("ct", "denoising", "inpainting", "deblurring"), "512")}
IMAGES = 20
#: names of our lists of the paper's own images, with the paper's name of their data set
LISTS = {"paper_mri": "fastmri", "paper_ct": "aapm", "public_cbsd68": "cbsd68", "public_ffhq": "ffhq"}
#: public images that stand for data which the paper's readers must ask for
SUBSTITUTES = ("public_mri", "public_ct", "public_scans")
#: knobs that add noise where the paper has none
NOISES = {"mri": ("noise",), "ct": ("photons",), "inpainting": ("sigma",), "deblurring": ("sigma",)}


def data_set(name: str) -> str:
    """The data set that the paper knows a list of ours by; any other keeps its name."""
    return LISTS.get(name, name)


def comparable(task: str, dataset: str) -> bool:
    """Whether the paper's numbers are about these data: its own, or public ones in their place."""
    return dataset in SUBSTITUTES or data_set(dataset) in (DATASETS.get(task), "ffhq")
