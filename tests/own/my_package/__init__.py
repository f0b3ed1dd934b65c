"""A package of a user's own: images, an augmentation and an optimizer that conf/ names by their `_target_`."""

from my_package.augmentation import Darker as Darker
from my_package.images import load_images as load_images
from my_package.optimizer import SignDescent as SignDescent
