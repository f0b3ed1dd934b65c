"""A network as an ONNX file, and what such a file computes."""

import numpy as np
import onnx
import onnxruntime
import torch

from s9.inference.export_network import Logits, silent

OPSET = 20  # of December 2023: onnxruntime reads it from version 1.17 on
INPUT, OUTPUT = "images", "logits"


def as_onnx(program: torch.export.ExportedProgram, about: dict[str, str]) -> bytes:
    """The content of an .onnx file, with `about` as its metadata. Batch norms are folded into the convolutions."""
    with silent():
        found = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert found is not None
    model = found.model_proto
    graph = model.graph
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer, graph, model):
        part.ClearField("metadata_props")  # torch's notes, with the paths of this machine
        part.ClearField("doc_string")
    onnx.helper.set_model_props(model, about)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def onnx_logits(content: bytes) -> Logits:
    """What an .onnx file computes, on the CPU, with as many threads as torch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def logits(images: np.ndarray) -> np.ndarray:
        found: np.ndarray = session.run([OUTPUT], {INPUT: images})[0]
        return found

    return logits
