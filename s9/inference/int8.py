"""An ONNX file in int8: static quantisation, calibrated on training images."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from s9.inference.export_network import BATCH, silent
from s9.inference.export_onnx import INPUT

CALIBRATION = 500  # images of train
QUANTISED = ["Conv", "Gemm", "Add"]  # not the preprocessing: the first layer gets it as it is


class Calibration(CalibrationDataReader):
    """The images, a batch at a time, as onnxruntime asks for them."""

    def __init__(self, images: np.ndarray):
        self.batches = iter([images[start : start + BATCH] for start in range(0, len(images), BATCH)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {INPUT: batch}


def as_int8(content: bytes, about: dict[str, str], images: np.ndarray) -> bytes:
    """The content of the .onnx file in int8: QDQ, weights per channel.

    Weights have 7 bits: where a processor lacks VNNI, sums of products of 8 bits overflow, and the accuracy is lost.

    Args:
        images: as the file takes them, some hundred.
    """
    with tempfile.TemporaryDirectory() as room, silent():
        source, prepared, done = (Path(room) / name for name in ("float32.onnx", "prepared.onnx", "int8.onnx"))
        source.write_bytes(content)
        quant_pre_process(source, prepared)
        quantize_static(
            prepared,
            done,
            Calibration(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=QUANTISED,
        )
        model = onnx.load(done)
    onnx.helper.set_model_props(model, about | {"precision": "int8"})
    quantised: bytes = model.SerializeToString()
    return quantised
