"""`manymask segment` with buckets: inputs are copied here first, and each result goes to the bucket as soon as it is whole.

A result in a bucket is whole if it has its result.json, which is written last, and removed first where a result is replaced.
The local copy of OUT holds the result.json of earlier results, and in place of their other files holes of the same size:
enough to find their place, and with `--continue` to keep them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from manymask.errors import InputError, ManymaskError
from manymask.inference.failures import FullError, reported
from manymask.inference.request import unpublished
from manymask.inference.summary import NAME as SUMMARY
from manymask.inference.tally import RunSummary, say, shown_as
from manymask.io.remote import files_below, is_bucket, open_system, why

LAST = "result.json"
THREADS = 8  # requests at a time


@dataclass(frozen=True)
class Staged:
    """What is worked on here in place of addresses.

    Attributes:
        inputs: paths and addresses that are no buckets.
        out: a folder of this machine.
        publish: called with the names of results in `out` that are finished.
    """

    inputs: list[str]
    out: Path
    publish: Callable[[Sequence[str]], None]


@contextmanager
def staged(inputs: Sequence[str], out: str, tally: RunSummary) -> Iterator[Staged]:
    """Copy the files of buckets here; what cannot be copied counts as failed. Plain paths stay as they are.

    Args:
        inputs: as the user named them.
        out: OUT, as the user named it.
        tally: the counts.

    Yields:
        The local stand-ins; lines on stderr show the addresses.

    Raises:
        InputError: OUT is in a bucket that cannot be read.
    """
    if not any(map(is_bucket, (*inputs, out))):
        yield Staged(list(inputs), Path(out), unpublished)
        return
    with TemporaryDirectory(prefix="manymask-") as place:
        folder, shown, paths = Path(place), dict[str, str](), list[str]()
        bucket = None
        if is_bucket(out):
            (folder / "out").mkdir()
            bucket = BucketFolder(out, folder / "out")
            shown[str(folder / "out")] = bucket.address
        for number, text in enumerate(inputs):
            local = _fetch(text, folder / str(number), tally) if is_bucket(text) else Path(text)
            if local is not None:
                paths.append(str(local) if is_bucket(text) else text)
                shown |= {str(local): text.rstrip("/")} if is_bucket(text) else {}
        with shown_as(shown):
            yield Staged(paths, bucket.folder if bucket else Path(out), bucket.publish if bucket else unpublished)
            if bucket:
                with reported(say, out):
                    bucket.publish_summary()


def _fetch(address: str, folder: Path, tally: RunSummary) -> Path | None:
    """Copies what is at an address into a folder; the copy of its file, or the folder."""
    try:
        single = _fetch_all(address, folder, tally)
    except ManymaskError as error:
        tally.fail(error)
    except OSError as error:
        tally.fail(InputError(f"{address}: {why(error)}"))
    else:
        return folder / PurePosixPath(address.rstrip("/")).name if single else folder
    return None


def _fetch_all(address: str, folder: Path, tally: RunSummary) -> bool:
    """Copies what is at an address; whether that is a single file."""
    system, path = open_system(address)
    names = list(files_below(system, path))
    if not names:
        raise InputError(f"{address}: no such file or folder")
    single = names == [path]
    root = path.rpartition("/")[0] if single else path
    scheme = address.partition("://")[0]

    def copy(name: str) -> None:
        below = PurePosixPath(name[len(root) :].lstrip("/"))
        if ".." in below.parts or below.is_absolute():
            raise InputError(f"{scheme}://{name}: no name of a file")
        local = folder / below
        local.parent.mkdir(parents=True, exist_ok=True)
        system.get_file(name, str(local))

    for name, error in _each(copy, names):
        tally.fail(InputError(f"{scheme}://{name}: {error if isinstance(error, InputError) else why(error)}"))
    return single


def _each(step: Any, names: Iterable[str]) -> list[tuple[str, Any]]:
    """Takes a step for each name in threads; the names for which it failed, with the errors."""

    def alone(name: str) -> tuple[str, Any]:
        try:
            step(name)
        except (InputError, OSError) as error:
            return name, error
        return name, None

    with ThreadPoolExecutor(THREADS) as pool:
        return [(name, error) for name, error in pool.map(alone, names) if error is not None]


class BucketFolder:
    """OUT in a bucket.

    Args:
        address: of OUT.
        folder: its local copy, which exists and is empty.

    Raises:
        InputError: the bucket cannot be read.
    """

    def __init__(self, address: str, folder: Path) -> None:
        self.address, self.folder = address.rstrip("/"), folder
        self.system, self.path = open_system(self.address)
        try:
            names = files_below(self.system, self.path)
        except OSError as error:
            raise InputError(f"{self.address}: {why(error)}") from None
        self._files: dict[str, set[str]] = {}  # of each result that is there
        for name in names:
            result, _, file = name[len(self.path) :].lstrip("/").partition("/")
            if file:
                self._files.setdefault(result, set()).add(file)
        self._fetch_earlier(names)

    def _fetch_earlier(self, sizes: Mapping[str, int]) -> None:
        whole = {result: files for result, files in self._files.items() if LAST in files}
        for result, files in whole.items():
            for file in files - {LAST}:
                (self.folder / result / file).parent.mkdir(parents=True, exist_ok=True)
                with (self.folder / result / file).open("wb") as hole:
                    hole.truncate(sizes[f"{self.path}/{result}/{file}"])
            (self.folder / result).mkdir(exist_ok=True)
        wanted = [f"{result}/{LAST}" for result in whole] + [SUMMARY] * (f"{self.path}/{SUMMARY}" in sizes)
        for name, error in _each(
            lambda name: self.system.get_file(f"{self.path}/{name}", str(self.folder / name)), wanted
        ):
            raise InputError(f"{self.address}/{name}: {why(error)}")

    def publish(self, results: Sequence[str]) -> None:
        """Copy results to the bucket, each whole or without its result.json.

        Args:
            results: names of folders of OUT.

        Raises:
            FullError: the bucket takes nothing.
        """
        for result in results:
            self._replace(result)

    def _replace(self, result: str) -> None:
        folder, before = self.folder / result, self._files.get(result, set())
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        self._remove(result, before & {LAST})
        self._upload([f"{result}/{file}" for file in files - {LAST}])
        self._remove(result, before - files - {LAST})
        self._upload([f"{result}/{LAST}"])
        self._files[result] = files
        for file in files - {LAST}:
            (folder / file).write_bytes(b"")  # its name is all that is still needed

    def publish_summary(self) -> None:
        """Copy the summary to the bucket.

        Raises:
            FullError: the bucket takes nothing.
        """
        if (self.folder / SUMMARY).exists():
            self._upload([SUMMARY])

    def _upload(self, names: Iterable[str]) -> None:
        """Each object appears when all of it has come."""

        def put(name: str) -> None:
            self.system.pipe_file(f"{self.path}/{name}", (self.folder / name).read_bytes())

        for name, error in _each(put, names):
            raise FullError(f"{self.address}/{name}: {why(error)}")

    def _remove(self, result: str, files: Iterable[str]) -> None:
        for file, error in _each(lambda file: self.system.rm_file(f"{self.path}/{result}/{file}"), files):
            raise FullError(f"{self.address}/{result}/{file}: {why(error)}")
