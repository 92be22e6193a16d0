"""Read scikit-learn's digits as a client would send them, and split them into training and held-out ones."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from stepensemble.imaging.decoding import encode_png

SEED = 1998
HELD_OUT = 0.3
BRIGHTEST = 16
"""The largest value in scikit-learn's table, which counts the set bits among the sixteen of each pixel."""


@dataclass(frozen=True, slots=True)
class Digits:
    """Some digits.

    Attributes:
        images: PNG files.
        numbers: the digit that each shows, 0 to 9.
    """

    images: Sequence[bytes]
    numbers: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def rows(self) -> list[dict[str, str]]:
        """The digits as payload instances."""
        return [{"image": base64.b64encode(image).decode()} for image in self.images]

    def take(self, indices: Sequence[int]) -> Digits:
        """Return the digits with these row numbers."""
        return Digits([self.images[index] for index in indices], self.numbers[list(indices)])


def read_digits() -> Digits:
    """Read the 1,797 digits that scikit-learn installs, each as a grey PNG of 8 by 8 pixels, white on black."""
    table = load_digits()
    samples = np.rint(table.images * (255 / BRIGHTEST)).astype(np.uint8)
    return Digits([encode_png(one[..., None]) for one in samples], table.target.astype(np.int64))


def split(digits: Digits) -> tuple[Digits, Digits]:
    """Return seven tenths for training and the held-out three tenths, with the same share of every digit.

    The split is always the same. Nothing that is fitted or chosen may depend on the second part.
    """
    training, held_out = train_test_split(
        range(len(digits)), test_size=HELD_OUT, stratify=digits.numbers, random_state=SEED
    )
    return digits.take(sorted(training)), digits.take(sorted(held_out))
