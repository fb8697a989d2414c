"""DICOM in and out: images, segmentations, archives."""
