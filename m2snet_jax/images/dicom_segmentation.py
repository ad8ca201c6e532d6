"""A segmentation (DICOM SEG) that refers to the images it was predicted from.

highdicom is installed by the extra `clinic`.
"""
# pyright: reportMissingImports=false

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from m2snet_jax.errors import InputError
from m2snet_jax.images.dicom import read_header

_MAY_BE_EMPTY = (  # required of every image, but often removed when files are made anonymous
    *('PatientID', 'PatientName', 'PatientBirthDate', 'PatientSex'),
    *('AccessionNumber', 'StudyID', 'StudyDate', 'StudyTime'),
)


def encode_segmentation(
    paths: Sequence[Path], masks: Bool[np.ndarray, 'frames height width classes'], model_name: str, model_hash: str
) -> bytes:
    """Returns masks as the bytes of a DICOM SEG that refers to the images they were predicted from.

    Args:
        paths: of single images, or of one file of several frames.
        masks: of the images or frames, in their order; each class becomes a binary segment.
        model_name: recorded as the algorithm.
        model_hash: recorded as the serial number of the device.

    Raises:
        InputError: highdicom is missing, or the images lack what a segmentation must name, e.g. their modality.
    """
    try:
        import highdicom
        from pydicom.sr.codedict import codes
    except ImportError:
        raise InputError("DICOM SEG needs highdicom: pip install 'highdicom>=0.28,<0.29'") from None
    import m2snet_jax

    sources = [read_header(path) for path in paths]
    for source in sources:
        for keyword in _MAY_BE_EMPTY:
            if keyword not in source:
                setattr(source, keyword, '')
    classes, data = masks.shape[-1], io.BytesIO()
    try:
        algorithm = highdicom.AlgorithmIdentificationSequence(
            name=model_name, version=m2snet_jax.__version__, family=codes.DCM.ArtificialIntelligence
        )
        segments = [
            highdicom.seg.SegmentDescription(
                segment_number=number,
                segment_label='lesion' if classes == 1 else f'class {number}',
                segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
                segmented_property_type=codes.SCT.Lesion,
                algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=algorithm,
            )
            for number in range(1, classes + 1)
        ]
        highdicom.seg.Segmentation(
            sources,
            masks,
            highdicom.seg.SegmentationTypeValues.BINARY,
            segments,
            series_instance_uid=highdicom.UID(),
            series_number=int(sources[0].get('SeriesNumber') or 0) + 1000,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer='m2snet_jax',
            manufacturer_model_name=model_name,
            software_versions=m2snet_jax.__version__,
            device_serial_number=model_hash[:16],
            series_description='Research use, not a medical device',
            omit_empty_frames=bool(masks.any()),
        ).save_as(data)
    except Exception as error:  # what the images lack, in many ways
        reason = ' '.join(str(error).split())
        raise InputError(f'{paths[0]}: no DICOM SEG can refer to it ({reason})') from None
    return data.getvalue()
