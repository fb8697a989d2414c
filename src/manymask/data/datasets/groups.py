"""Which images belong together, such as those of a patient, so that no split cuts them apart."""

from collections.abc import Mapping
from pathlib import PurePosixPath

from manymask.data.datasets.sections import part_of
from manymask.io.dicom.file import PATIENT

MARK = "__"  # in a name, what stands before it is the group
FOLDER_GROUPS = 10  # so many sub-folders are taken for patients, fewer for classes


def groups_of(own: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The group of each image, and what is to be said: by `__` in the names, else by the patients of DICOM, else by many
    sub-folders, else what each has of its own.

    own: group of each image by its name, a path without ending: the patient of DICOM, the volume of a slice, else itself.
    """
    names = {each: PurePosixPath(each).name for each in own}
    if all(MARK in name for name in names.values()):
        return {each: name.split(MARK)[0] for each, name in names.items()}, []
    patients = {group for group in own.values() if group.rpartition("/")[2].startswith(PATIENT)}
    if len(patients) > 1:
        return dict(own), [f"the DICOM headers name {len(patients)} patients: none crosses the split"]
    if patients:  # one patient, or a placeholder for all of them
        note = "the DICOM headers name one patient for all images, so the split may cut patients; name files PATIENT__…"
        return {each: each for each in own}, [note]
    above = {each: PurePosixPath(each).parent.as_posix() for each in own}
    folders = {folder for folder in above.values() if folder != "." and part_of(PurePosixPath(folder).name) is None}
    if len(folders) < 2 or len(set(own.values())) == len(folders):
        return dict(own), []
    if len(folders) < FOLDER_GROUPS:
        note = f"images lie in {len(folders)} sub-folders, which a split may cut; if they are patients, name files PATIENT__…"
        return dict(own), [note]
    note = f"the {len(folders)} sub-folders are taken as groups (patients, say): none crosses the split"
    return {each: above[each] if above[each] in folders else group for each, group in own.items()}, [note]
