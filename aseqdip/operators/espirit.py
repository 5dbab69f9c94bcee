"""ESPIRiT: coil sensitivity maps from the fully sampled centre of k-space."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from aseqdip.errors import UserError

#: pixels worked on at once, to bound the memory of their coil-by-coil matrices (30 MB for 15 coils)
_CHUNK = 16384


def espirit(
    kspace: Tensor,
    *,
    calibration: int | tuple[int, int] = 24,
    kernel: int = 6,
    threshold: float = 0.001,
    crop: float = 0.0,
    iterations: int = 30,
) -> Tensor:
    """One set of ESPIRiT maps (Uecker et al., MRM 71:990, 2014).

    Every k-space patch of the calibration region lies in a low-dimensional space with projector P. Averaging
    P over all patches that hold a sample is a convolution of k-space, hence a (coils x coils) matrix G(q) per
    pixel, and the maps are its eigenvector for the eigenvalue near 1.

    Args:
        kspace: shape (coils, height, width), complex, centred: ``fftshift(ifft2(ifftshift(k)))`` are the
            coil images.
        calibration: side, or (rows, columns), of the fully sampled central block, the only part that matters;
            where it exceeds k-space, all of k-space.
        kernel: side of a patch.
        threshold: singular vectors with ``s > sqrt(threshold) * s_max`` span the space (BART's convention).
        crop: maps are 0 where the eigenvalue, in [0, 1], is below it; 0 keeps every pixel, even background.
        iterations: power iterations per pixel, started at the low-resolution coil images.

    Returns:
        Maps S, shape (coils, height, width), complex64, k-space's device, ``sum_c |S_c|^2 = 1`` where kept.
        Their free phase makes the projection on the first principal coil component (the strongest combination
        of coils in the calibration region) real and positive: smooth wherever that projection is not 0.

    Raises:
        UserError: wrong rank or type, values that are not finite, calibration region all 0 or too small.
    """
    block = _calibration_block(kspace, calibration, kernel)
    correlation = _kernel_correlation(block, kernel, threshold)
    coils, (height, width) = len(kspace), kspace.shape[1:]
    across = _phasors(width, kernel, kspace.device)
    along = _phasors(height, kernel, kspace.device)
    columns = torch.einsum("cdmn,wn->cdmw", correlation, across)
    principal = torch.linalg.eigh(block.flatten(1) @ block.flatten(1).mH)[1][:, -1]
    # the small constant: an iteration that starts at 0 stays there
    start = _low_resolution(block, (height, width)) + 1e-9 * principal[:, None, None]

    maps = torch.empty(coils, height, width, dtype=torch.complex64, device=kspace.device)
    rows = max(1, _CHUNK // width)
    for top in range(0, height, rows):
        chunk = slice(top, top + rows)
        matrices = torch.einsum("cdmw,hm->hwcd", columns, along[chunk]).contiguous()
        vectors = start[:, chunk].permute(1, 2, 0).unsqueeze(-1)
        for _ in range(iterations):
            vectors = matrices @ vectors
            eigenvalue = vectors.norm(dim=-2, keepdim=True)
            vectors = vectors / eigenvalue.clamp_min(1e-20)
        vectors, eigenvalue = vectors.squeeze(-1), eigenvalue.squeeze(-1)
        reference = vectors @ principal.conj()
        vectors = vectors * torch.polar(torch.ones_like(reference.real), -reference.angle()).unsqueeze(-1)
        maps[:, chunk] = (vectors * (eigenvalue >= crop)).permute(2, 0, 1)
    return maps


def _calibration_block(kspace: Tensor, calibration: int | tuple[int, int], kernel: int) -> Tensor:
    """The central block of k-space, (coils, rows, columns) complex64 with maximum 1, after all checks."""
    if kspace.ndim != 3 or not kspace.is_complex():
        raise UserError(
            "ESPIRiT expects complex k-space of shape (coils, height, width); "
            f"found {kspace.dtype} of shape {tuple(kspace.shape)}."
        )
    if not torch.isfinite(torch.view_as_real(kspace)).all():
        raise UserError("ESPIRiT found NaN or infinite values in the k-space: repair or leave out the file.")
    sides = (calibration, calibration) if isinstance(calibration, int) else calibration
    rows, columns = (min(side, size) for side, size in zip(sides, kspace.shape[1:], strict=True))
    if min(rows, columns) < kernel:
        raise UserError(
            f"the calibration region is {rows} x {columns}, smaller than the {kernel} x {kernel} kernel of "
            "ESPIRiT: use data with more central lines, or a smaller kernel."
        )
    top, left = _corner(kspace.shape[1:], (rows, columns))
    block = kspace[:, top : top + rows, left : left + columns].to(torch.complex64)
    largest = block.abs().max()
    if largest == 0:
        raise UserError(f"the central {rows} x {columns} block of k-space is all 0: is the k-space centred?")
    return block / largest


def _corner(shape: Sequence[int], block: Sequence[int]) -> tuple[int, int]:
    """First row and column of a central block, where fastMRI's masks put it."""
    return (shape[0] - block[0] + 1) // 2, (shape[1] - block[1] + 1) // 2


def _kernel_correlation(block: Tensor, kernel: int, threshold: float) -> Tensor:
    """G(q) as a kernel in k-space, (coils, coils, 2 kernel - 1, 2 kernel - 1); no shift is in the middle."""
    coils, ends = len(block), 2 * kernel - 1
    patches = block.unfold(1, kernel, 1).unfold(2, kernel, 1).permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
    _, s, vectors = torch.linalg.svd(patches, full_matrices=False)
    span = vectors[s > threshold**0.5 * s[0]]
    # a patch is a row of the data matrix, so the space is spanned by the rows of V^H as they are
    projector = (span.mT @ span.conj()).reshape(coils, kernel, kernel, coils, kernel, kernel)
    correlation = block.new_zeros(coils, coils, ends, ends)
    for a in range(kernel):
        for b in range(kernel):
            correlation[..., kernel - 1 - a : ends - a, kernel - 1 - b : ends - b] += projector[:, a, b]
    return correlation / kernel**2


def _phasors(size: int, kernel: int, device: torch.device) -> Tensor:
    """``exp(-2 pi i m q / size)``, (size, 2 kernel - 1): k-space shifted by m, at the centred pixel q."""
    q = torch.arange(size, device=device) - size // 2
    m = torch.arange(1 - kernel, kernel, device=device)
    angle = torch.outer(q, m) % size * (-2 * math.pi / size)  # modulo first: exact in integers
    return torch.polar(torch.ones_like(angle), angle)


def _low_resolution(block: Tensor, shape: tuple[int, int]) -> Tensor:
    """Coil images of the calibration block alone, (coils, height, width), Hann-windowed against ringing."""
    rows, columns = (torch.hann_window(n + 2, False, device=block.device)[1:-1] for n in block.shape[1:])
    padded = block.new_zeros(len(block), *shape)
    top, left = _corner(shape, block.shape[1:])
    padded[:, top : top + len(rows), left : left + len(columns)] = block * torch.outer(rows, columns)
    images: Tensor = torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(padded, dim=(1, 2))), dim=(1, 2))
    return images
