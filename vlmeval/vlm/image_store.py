"""What was made of images that come again: circular copies, several questions on one picture.

An image is decoded, resized and encoded once as long as its features are kept: those used last, up to a number of
bytes. Batches that are prepared ahead share what is not encoded yet.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from vlmeval.vlm.image_parts import PIXELS, Features, Part

FEATURE_BYTES = 256 * 2**20
"""Kept at most on a CPU."""
MOST_IMAGES = 32
"""Kept at most, unless conversations show more at once. Prompts about one image lie next to each other, so more would
be for nothing; and each, however small, lies somewhere between pixels that come and go, and keeps 2 MB of host memory
from being given back."""
CARD_SHARE = 0.01
"""Of a card, for features that may come again; batches are reckoned with so much less."""


@dataclass(eq=False)
class PreparedImage:
    """One image on the host. `shape` is its part with pixels of no memory; `part` is gone once it is encoded."""

    key: Hashable
    shape: Part
    part: Part | None
    make: Callable[[], Part] = field(repr=False)

    def whole(self) -> Part:
        """The part with its pixels, made once more where its features were thrown out since."""
        return self.part if self.part is not None else self.make()


class ImageStore:
    """Features by image, at most so many bytes, the least recently used thrown out first. Safe for a thread that
    prepares ahead."""

    def __init__(self, most_bytes: int = FEATURE_BYTES) -> None:
        self.most_bytes = most_bytes
        self.most_images = MOST_IMAGES
        self.used = 0
        """Images of all batches so far."""
        self.encoded = 0
        """Of these, how many were encoded; the others were reused."""
        self._kept: OrderedDict[Hashable, tuple[Features, Part, int]] = OrderedDict()
        self._bytes = 0
        self._waiting: WeakValueDictionary[Hashable, PreparedImage] = WeakValueDictionary()
        self._lock = threading.Lock()

    @property
    def kept_bytes(self) -> int:
        """Of all features that are kept."""
        return self._bytes

    def __contains__(self, key: Hashable) -> bool:
        """Whether the features of this image are kept."""
        with self._lock:
            return key in self._kept

    def prepare(self, key: Hashable, make: Callable[[], Part]) -> PreparedImage:
        """The image of this key; `make` is called only if nothing is known of it."""
        with self._lock:
            waiting = self._waiting.get(key)
            if waiting is not None and (waiting.part is not None or key in self._kept):
                return waiting
            if key in self._kept:
                self._kept.move_to_end(key)
                known = PreparedImage(key, self._kept[key][1], None, make)
                self._waiting[key] = known
                return known
        part = make()
        prepared = PreparedImage(key, without_pixels(part), part, make)
        with self._lock:
            self._waiting[key] = prepared
        return prepared

    def features(
        self, images: Sequence[PreparedImage], encode: Callable[[list[Part]], list[Features]]
    ) -> list[Features]:
        """Of each image; `encode` makes those that are not kept."""
        found: dict[Hashable, Features] = {}
        missing: dict[Hashable, PreparedImage] = {}
        with self._lock:
            for image in images:
                if image.key in self._kept:
                    self._kept.move_to_end(image.key)
                    found[image.key] = self._kept[image.key][0]
                else:
                    missing[image.key] = image
        made = encode([image.whole() for image in missing.values()]) if missing else []
        for image, features in zip(missing.values(), made, strict=True):
            found[image.key] = features
            self._keep(image, features)
        self.used += len(images)
        self.encoded += len(missing)
        return [found[image.key] for image in images]

    def _keep(self, image: PreparedImage, features: Features) -> None:
        size = sum(tensor.nbytes for tensor in features)
        with self._lock:
            image.part = None
            self._kept[image.key] = (features, image.shape, size)
            self._bytes += size
            while self._bytes > self.most_bytes or len(self._kept) > self.most_images:
                _, (_, _, freed) = self._kept.popitem(last=False)
                self._bytes -= freed

    def clear(self) -> None:
        """Forget all features: the model lies elsewhere now."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0


def without_pixels(part: Part) -> Part:
    """The same with pixels that have a shape and no memory."""
    return {**part, PIXELS: part[PIXELS].to("meta")}
