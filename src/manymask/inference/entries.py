"""What is segmented, in order: files, folders, and series of archives; and which of their slices."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from manymask.errors import InputError, ManymaskError
from manymask.inference.tally import RunSummary, say
from manymask.io.dicom.web import ArchiveSeries, archive_series, is_address
from manymask.io.inputs import FoundInputs, Input, Nifti, Raster, find_inputs

Entry = Input | ArchiveSeries


def find_entries(inputs: Sequence[str]) -> tuple[list[Entry], FoundInputs]:
    """Find what to segment.

    Args:
        inputs: paths of files and folders, and addresses of series in DICOMweb archives.

    Returns:
        The entries, files and folders first, and what was found in these, with problems and remarks.
    """
    addresses = [text for text in inputs if is_address(text)]
    paths = [Path(text) for text in inputs if not is_address(text)]
    found = find_inputs(paths) if paths or not addresses else FoundInputs()
    archives: list[Entry] = []
    for address in addresses:
        try:
            archives.append(archive_series(address))
        except ManymaskError as error:
            found.problems.append(str(error))
    return [*found.inputs, *archives], found


def announce(found: FoundInputs, tally: RunSummary) -> None:
    """Print what was found and is not segmented, one line each; problems count as failed."""
    for remark in found.remarks:
        say(remark)
    for problem in found.problems:
        tally.fail(InputError(problem))


def names_of(entries: Sequence[Entry]) -> dict[Path, str]:
    """How files are called in results.

    By their path below the folder that was given, or their name; where two would be called the same, with as many of the
    folders above as tell them apart.

    Args:
        entries: as returned by `find_entries`; those of DICOM are called by their numbers, and left out.

    Returns:
        Of each file.
    """
    files = {entry.path: entry.under for entry in entries if isinstance(entry, (Raster, Nifti))}
    names = {path: path.relative_to(under).as_posix() if under else path.name for path, under in files.items()}
    length = {path: name.count("/") + 1 for path, name in names.items()}
    for _ in range(max((len(path.absolute().parts) for path in files), default=0)):
        often = Counter(names.values())
        alike = [path for path, name in names.items() if often[name] > 1]
        for path in alike:
            length[path] += 1
            names[path] = "/".join(path.absolute().parts[-length[path] :])
        if not alike:
            break
    return names


def between(entries: Sequence[Entry], first: int, last: int, tally: RunSummary) -> list[Entry]:
    """The entries with some of their slices alone; pictures that are no slices stay.

    A series without any of them counts as failed.

    Args:
        entries: as returned by `find_entries`.
        first: number of the first slice, as in the names of results.
        last: number of the last slice.
        tally: where failures are counted.

    Returns:
        The entries that have such slices.

    Raises:
        InputError: no entry has slices.
    """
    if all(isinstance(entry, Raster) for entry in entries):
        raise InputError("these images have no slices to choose from", parameter="slices")
    found: list[Entry] = []
    for entry in entries:
        try:
            kept = entry if isinstance(entry, Raster) else entry.between(first, last)
        except ManymaskError as error:
            tally.fail(error)
            continue
        try:
            empty = kept.count() == 0
        except ManymaskError:
            empty = False  # told when the file is read
        if empty:
            name = entry.path if isinstance(entry, Nifti) else "a series"
            tally.fail(InputError(f"{name} has no slice numbered {first} … {last}", parameter="slices"))
        else:
            found.append(kept)
    return found
