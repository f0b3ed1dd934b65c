"""What several batch transforms do to the pixels of uint8 images (B, 3, H, W)."""

import torch

from s9.data.batch_arguments import Fill, colour


def in_words(images: torch.Tensor) -> torch.Tensor:
    """A view of each image as one row, of eight pixels a number where it fits: index_copy_ takes as long for a byte."""
    rows = images.view(len(images), images.shape[1:].numel())
    return rows.view(torch.int64) if rows.shape[1] % 8 == 0 else rows


def erase(
    images: torch.Tensor, top: torch.Tensor, left: torch.Tensor, height: torch.Tensor, width: torch.Tensor, fill: Fill
) -> torch.Tensor:
    """Fills a rectangle of each image; all sizes int64 (B,), in pixels."""
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    in_rows = (rows >= top[:, None]) & (rows < (top + height)[:, None])
    in_columns = (columns >= left[:, None]) & (columns < (left + width)[:, None])
    hole = (in_rows[:, :, None] & in_columns[:, None, :])[:, None]
    return torch.where(hole, colour(fill, images), images)
