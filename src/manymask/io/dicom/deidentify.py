"""Anonymous SEGs: PS3.15 Annex E, Basic Application Level Confidentiality Profile, for what a SEG of ours holds.

It works by building up, not by striking out: a SEG is made from a bare header (`dicom_source`) and no field of patient,
study or equipment is ever copied in. What is left to do here:
    dates and times     dummies where the standard wants one, else gone
    UIDs                of study, series, instances and frame of reference: replaced by keyed hashes, references too
    and it is said      Patient Identity Removed, method, code 113100
UIDs. A UID in the clear leads whoever may ask the archive straight back to the patient. The replacement is an HMAC-SHA256
of the UID: equal for equal UIDs of one key, not to be undone or guessed without it. The key is drawn anew for each run,
so such a SEG refers to images that nobody has. Who wants it to fit images that were anonymised elsewhere sets
MANYMASK_UID_KEY and renames them with `Anonymiser.uid`.
Pixels: masks show no face and no writing. `overlay.png`, which shows the image, is not written.
"""

import hashlib
import hmac
import os
import secrets
from typing import Any

from manymask.errors import ConfigError

KEY_VARIABLE = "MANYMASK_UID_KEY"
_STANDARD = "1.2.840.10008."  # classes, transfer syntaxes, coding schemes: the same for everyone
_DUMMIES = {"DA": "19000101", "TM": "000000", "DT": "19000101000000"}
_MAY_GO = ("InstanceCreationDate", "InstanceCreationTime", "ContributionDateTime", "SeriesDate", "SeriesTime")


class Anonymiser:
    """One for everything that is written in a run: equal UIDs stay equal."""

    def __init__(self, key: bytes | None = None) -> None:
        given = os.environ.get(KEY_VARIABLE, "").encode()
        if given and len(given) < 16:
            raise ConfigError(f"{KEY_VARIABLE} is too easy to guess: give at least 16 characters")
        self._key = key or given or secrets.token_bytes(32)

    def uid(self, uid: str) -> str:
        """The UID that stands for `uid`: 2.25. and 128 bits of its keyed hash (PS3.5 B.2)."""
        digest = hmac.new(self._key, str(uid).encode(), hashlib.sha256).digest()
        return f"2.25.{int.from_bytes(digest[:16])}"

    def strip(self, seg: Any) -> None:
        """Makes a SEG of `dicom_seg`, built without patient and study, anonymous in place."""
        from highdicom.sr import CodedConcept

        self._walk(seg, set())
        seg.file_meta.MediaStorageSOPInstanceUID = seg.SOPInstanceUID
        number = f"{int(seg.StudyInstanceUID.split('.')[-1]) % 10**10:010}"  # one a study
        seg.add_new("PatientID", "LO", number)
        seg.add_new("PatientName", "PN", f"Anonymous^{number}")
        seg.PatientIdentityRemoved = "YES"
        seg.DeidentificationMethod = "manymask: PS3.15 basic profile, patient and study left out"
        seg.DeidentificationMethodCodeSequence = [
            CodedConcept("113100", "DCM", "Basic Application Confidentiality Profile")
        ]
        seg.LongitudinalTemporalInformationModified = "REMOVED"

    def _walk(self, dataset: Any, known: set[int]) -> None:
        """Elements are replaced, not changed: highdicom shares them with the source, and items among sequences."""
        if id(dataset) in known:
            return
        known.add(id(dataset))
        for element in list(dataset):
            if element.VR == "SQ":
                for item in element.value:
                    self._walk(item, known)
            elif element.keyword in _MAY_GO:
                del dataset[element.tag]
            elif element.VR in _DUMMIES and element.value:
                dataset.add_new(element.tag, element.VR, _DUMMIES[element.VR])
            elif element.VR == "UI" and element.value and not str(element.value).startswith(_STANDARD):
                dataset.add_new(element.tag, "UI", self.uid(element.value))
