"""Augmentation: one description in conf/aug, executed on batches or image by image."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the package index for the newest version
