"""Images from a function of the user's own, which conf/data names by its `_target_` (README, "Add your own")."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from s9.config.components import build_component
from s9.config.data import OwnConfig
from s9.data.image_set import ImageSet, Split
from s9.data.sources.arrays import image_set_of
from s9.system.errors import UserError


def load_own(config: OwnConfig, seed: int) -> ImageSet:
    """What the function returns for `data.arguments`, as an ImageSet.

    The function returns (class_names, splits): the names by label, and a mapping of train, test and optionally val to
    pairs of uint8 images (N, S, S, 3) and integer labels (N,).

    Raises:
        UserError: the function is not allowed, fails, or returns something else.
    """
    made: Any = build_component("data", {"_target_": config._target_, **config.arguments}, "data")
    valid = isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], Mapping)
    if not valid or not all(isinstance(of, tuple) and len(of) == 2 for of in made[1].values()):
        raise UserError(f"data._target_={config._target_}: must return (class_names, {{split: (images, labels)}})")
    splits = {name: Split(np.asarray(of[0]), np.asarray(of[1]).astype(np.int64)) for name, of in made[1].items()}
    return image_set_of(config.name, made[0], splits, val_size=config.val_size, seed=seed)
