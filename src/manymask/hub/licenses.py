"""What the data allow to be done with the weights trained on them, and with pictures of them."""

from dataclasses import replace

from manymask.data.datasets import DATASETS
from manymask.data.datasets.base import UNKNOWN_LICENCE, Licence
from manymask.nn.efficientnet_lite import VARIANTS

# of pretrained weights that a model's encoder may have started from
_ENCODERS = {
    name: f"""
The encoder started from the ImageNet weights of EfficientNet-{name.partition("-")[2].title()} in the package {variant.package},
copyright 2020 ML Illustrated, Apache License 2.0, http://www.apache.org/licenses/LICENSE-2.0; training changed them.
"""
    for name, variant in VARIANTS.items()
}


LICENCES = {name: dataset.licence for name, dataset in DATASETS.items()}


def licence(dataset: str, *earlier: str, encoder: str = "own") -> Licence:
    """Of a data set by its name, and of those on which a model was trained earlier: of several, the terms of each hold.
    Of one's own data nothing is known, and nothing allowed. A pretrained `encoder` brings a notice with it."""
    terms = _of_data(dataset, *earlier)
    return replace(terms, text=terms.text + _ENCODERS.get(encoder, ""))


def _of_data(*names: str) -> Licence:
    found = [LICENCES.get(name, UNKNOWN_LICENCE) for name in dict.fromkeys(names)]
    if len(found) == 1:
        return found[0]
    heading = (
        "The weights in this folder were trained on several data sets, one after another. All of these terms hold.\n\n"
    )
    return Licence("other", heading + "\n".join(each.text for each in found), found[0].pictures)
