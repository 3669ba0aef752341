"""Int8 of an ONNX file, by ONNX Runtime's own dynamic quantisation."""

from pathlib import Path
from tempfile import TemporaryDirectory

from .libraries import library, silenced


def quantise(file: Path, to: Path) -> None:
    """Write a file whose matrix products and embeddings are int8; activations are quantised as they come.

    Args:
        file: what :func:`.export.export` wrote.
        to: where to.

    Raises:
        UserError: a library is not installed.
    """
    tools = library("onnxruntime.quantization")
    # Its advice, on the root logger, is what was done already.
    with TemporaryDirectory(prefix="encoder-reduction-") as folder, silenced(""):
        prepared = Path(folder) / "prepared.onnx"
        tools.quant_pre_process(file, prepared, skip_symbolic_shape=True)
        # Measured on the packaged baseline (docs/deployment.md): a scale for each channel halves the error of one for
        # all; embeddings in int8 are most of what the file saves, and cost nothing that shows; unsigned weights are a
        # third slower. A range of 7 bits costs little and no time: with 8, processors without VNNI saturate, and the
        # file would answer otherwise there.
        tools.quantize_dynamic(prepared, to, per_channel=True, reduce_range=True, weight_type=tools.QuantType.QInt8)
