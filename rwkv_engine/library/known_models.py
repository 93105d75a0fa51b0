"""Models that `rwkv pull` knows by a short name: BlinkDL's RWKV-7 G1 series, the newest file of each size.

Names as of October 2026. Bytes are for estimates only (the hub states the real ones when a file is pulled): those of a file of the
same shape, to the megabyte for 0.1b. All are BF16 with the World vocabulary and a channel mix four times as wide.
"""

from dataclasses import dataclass

from rwkv_engine.library.footprint import Footprint, footprint

REPOSITORY = "BlinkDL/rwkv7-g1"


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One row: the short name, the file in its repository, that file's bytes, and the shape that the bytes follow from."""

    name: str
    file: str
    bytes: int
    layers: int
    width: int

    @property
    def source(self) -> str:
        """As `rwkv pull` takes it: owner/repo:file."""
        return f"{REPOSITORY}:{self.file}"

    def footprint(self, format: str) -> Footprint:
        """What the model takes as "int8" or "keep"."""
        return footprint(format, self.bytes, self.layers, self.width)


KNOWN: tuple[KnownModel, ...] = (
    KnownModel("g1d-0.1b", "rwkv7-g1d-0.1b-20260129-ctx8192.pth", 382_100_000, 12, 768),
    KnownModel("g1d-0.4b", "rwkv7-g1d-0.4b-20260210-ctx8192.pth", 901_776_749, 24, 1024),
    KnownModel("g1k-1.5b", "rwkv7-g1k-1.5b-20260930-ctx25600.pth", 3_055_444_605, 24, 2048),
    KnownModel("g1k-2.9b", "rwkv7-g1k-2.9b-20260930-ctx25600.pth", 5_896_273_469, 32, 2560),
    KnownModel("g1k-7.2b", "rwkv7-g1k-7.2b-20260930-ctx25600.pth", 14_400_007_869, 32, 4096),
    KnownModel("g1k-13.3b", "rwkv7-g1k-13.3b-20260930-ctx25600.pth", 26_540_868_485, 61, 4096),
)


def known(name: str) -> KnownModel | None:
    """The row of that name."""
    return next((row for row in KNOWN if row.name == name), None)
