"""Which code and which machine gave a result, and what a model has seen on its way."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from: the data set's name and hash, split scheme and licence; the step of its weights, the
    minutes of the whole run, the code, the score on validation; the model that it started from, if any; and of a segmenter
    its codecs, where that is known."""

    data: str = ""
    data_hash: str = ""
    scheme: str = ""
    licence: str = ""
    steps: int = 0
    minutes: float = 0.0
    git: str = ""
    score: str = ""
    parent: "Provenance | None" = None
    image_codec: "Provenance | None" = None
    mask_codec: "Provenance | None" = None

    @property
    def line(self) -> "tuple[Provenance, ...]":
        """This one, what it started from, and so on."""
        return (self, *(self.parent.line if self.parent else ()))

    @property
    def data_sets(self) -> tuple[str, ...]:
        """The names of all data sets that it, or a codec of its, has seen, its own first."""
        own = [each.data for each in self.line if each.data]
        codecs = [codec for each in self.line for codec in (each.image_codec, each.mask_codec) if codec is not None]
        return tuple(dict.fromkeys([*own, *(name for codec in codecs for name in codec.data_sets)]))
