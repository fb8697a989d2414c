"""What a run says of itself: how many images are done, what failed, and each kind of warning once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from manymask import progress
from manymask.errors import ManymaskError
from manymask.inference.cautions import kind


@dataclass
class RunSummary:
    """Counts of a run. Errors are printed at once, on stderr; warnings at the end, each kind once.

    Attributes:
        done: segmented images.
        failed: images that could not be segmented.
        incomplete: series whose images were segmented, but whose SEG or NIfTI could not be made or stored.
        unlisted: lists of the results, such as OUT/summary.csv, that could not be written.
        stored: DICOM objects stored in the archive.
        replaced: earlier results of the same images.
        reused: images whose earlier results stayed as they are.
        warned: for each kind of warning, its first text, the first image, and how many there are.
        worded: how an error is put into words.
    """

    done: int = 0
    failed: int = 0
    incomplete: int = 0
    unlisted: int = 0
    stored: int = 0
    replaced: int = 0
    reused: int = 0
    warned: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    worded: Callable[[ManymaskError], str] = str

    def fail(self, error: ManymaskError) -> None:
        """Count and print an image that could not be segmented."""
        self.failed += 1
        say(self.worded(error))

    def miss(self, error: ManymaskError) -> None:
        """Count and print a series without SEG or NIfTI."""
        self.incomplete += 1
        say(self.worded(error))

    def lose(self, error: ManymaskError) -> None:
        """Count and print a list of the results that could not be written."""
        self.unlisted += 1
        say(self.worded(error))

    @property
    def whole(self) -> bool:
        """Whether everything that was asked for is there."""
        return not (self.failed or self.incomplete or self.unlisted)

    def warn(self, label: str, warnings: Sequence[str]) -> None:
        """Note the warnings of one image, which `label` names."""
        for warning in warnings:
            text, first, count = self.warned.get(kind(warning), (warning, label, 0))
            self.warned[kind(warning)] = (text, first, count + 1)

    def close(self) -> None:
        """Print the warnings: for each kind the first sentence, the first image, and how many there are."""
        for text, first, count in self.warned.values():
            say(f"warning: {first}: {text}" if count == 1 else f"warning: {text} ({count} images: {first}, …)")

    def lines(self, out: Path | str) -> list[str]:
        """The lines for stdout at the end."""
        said = [f"{self.done} of {self.done + self.failed} image(s) segmented → {out}"]
        if self.reused:
            said.append(f"{self.reused} image(s) were segmented in the same way before: their results stay as they are")
        if self.replaced:
            said.append(f"{self.replaced} earlier result(s) of the same images replaced")
        if self.stored:
            said.append(f"{self.stored} DICOM object(s) stored in the archive")
        if self.incomplete:
            said.append(f"{self.incomplete} series got no SEG or NIfTI")
        return said


_SHOWN: dict[str, str] = {}


@contextmanager
def shown_as(addresses: Mapping[str, str]) -> Iterator[None]:
    """Inside, `say` shows addresses in place of the local copies of their files.

    Args:
        addresses: by the paths of the copies.

    Yields:
        Nothing.
    """
    _SHOWN.update(addresses)
    try:
        yield
    finally:
        for local in addresses:
            _SHOWN.pop(local)


def say(line: object) -> None:
    """Print one line on stderr without breaking the progress bar."""
    text = str(line)
    for local, address in _SHOWN.items():
        text = text.replace(local, address)
    progress.say(f"manymask: {text}")
