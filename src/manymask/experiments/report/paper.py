"""The paper's own figures (Trinh et al., Tables I–III, Figure 3), to stand beside ours. Shares, not per cent; PSNR in dB."""

# data set → codec → (Dice, IoU, SSIM, PSNR); images have no Dice
TABLE_1: dict[str, dict[str, tuple[float | None, ...]]] = {
    "isic2018":     {"mse": (0.980, 0.965, 0.975, 38.0), "wce": (0.984, 0.969, 0.98, 38.4), "image": (None, None, 0.94, 34.2)},
    "cvc_clinicdb": {"mse": (0.990, 0.989, 0.976, 38.0), "wce": (0.995, 0.990, 0.98, 38.7), "image": (None, None, 0.94, 34.5)},
    "lidc_idri":    {"mse": (0.880, 0.831, 0.92, 35.2), "wce": (0.944, 0.894, 0.99, 41.7), "image": (None, None, 0.89, 33.2)},
}  # fmt: skip

# row of ours → data set → (Dice, IoU); Tables II and III
MODELS: dict[str, dict[str, tuple[float, float]]] = {
    "unet":         {"isic2018": (0.856, 0.785), "cvc_clinicdb": (0.823, 0.725), "lidc_idri": (0.810, 0.700)},
    "unetpp":       {"isic2018": (0.810, 0.729), "cvc_clinicdb": (0.794, 0.709), "lidc_idri": (0.799, 0.689)},
    "resunet":      {"isic2018": (0.871, 0.782), "cvc_clinicdb": (0.815, 0.716), "lidc_idri": (0.821, 0.706)},
    "nnunet":       {"isic2018": (0.875, 0.795), "cvc_clinicdb": (0.813, 0.713), "lidc_idri": (0.828, 0.710)},
    "ensemblediff": {"isic2018": (0.866, 0.795), "cvc_clinicdb": (0.835, 0.719), "lidc_idri": (0.817, 0.705)},
    "segdiff":      {"isic2018": (0.853, 0.787), "cvc_clinicdb": (0.821, 0.701), "lidc_idri": (0.810, 0.700)},
    "medsegdiff":   {"isic2018": (0.881, 0.805), "cvc_clinicdb": (0.840, 0.725), "lidc_idri": (0.825, 0.711)},
    "paper":        {"isic2018": (0.880, 0.805), "cvc_clinicdb": (0.845, 0.731), "lidc_idri": (0.834, 0.718)},
    "ours":         {"isic2018": (0.880, 0.805), "cvc_clinicdb": (0.845, 0.731), "lidc_idri": (0.834, 0.718)},
}  # fmt: skip

# data set → n → Dice, as the text gives it (Figure 3)
FIGURE_3: dict[str, dict[int, float]] = {
    "isic2018": {1: 0.865, 5: 0.880},
    "cvc_clinicdb": {1: 0.810, 5: 0.845},
    "lidc_idri": {5: 0.834},
}

NOTES = (
    "The paper names neither split, seed, training time nor interval, and trained at 256² (LIDC-IDRI: 128²) on four V100: "
    "its figures stand beside ours as a mark, not as a comparison.",
    "The paper's figures cannot all hold: a mask PSNR of 38 dB goes with a Dice of 0.98 only where masks are soft (binary "
    "masks would give about 21 dB); the gains in IoU of “0.5 – 0.8” are 0.6 – 1.0 in its Table II; its reference for "
    "CVC-Clinic is Kvasir-SEG's.",
    "Table I of `lidc_idri` is of crops at native scale (median nodule 55 px); the paper resizes whole slices to 128², where it "
    "covers 4 px. `benchmarks/whole_slices.py` compares the losses there, and `lidc_idri_slices` is that data set.",
    "“nnU-Net” is its network (MONAI `DynUNet`, deep supervision) and its loss, not its whole pipeline.",
    "EnsembleDiff, SegDiff and MedSegDiff are as small as the other rows (widths 16 – 128; SegDiff with 2 dense blocks of growth "
    "8, not 10 or more), predict ε as their papers have it, T = 1000, and see one noise level an image and step, the fast "
    "recipe four.",
)
