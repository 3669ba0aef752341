"""A registered model as a folder that runs in ONNX Runtime, beside the folder of Hugging Face that it was made of."""

import shutil
from collections.abc import Iterator
from itertools import accumulate, product
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase

from ..data import corpora
from ..deployment import folder
from ..deployment.export import Batch
from ..deployment.libraries import check_installed
from ..errors import UserError
from ..models import checkpoints
from ..models.architectures import family_of
from ..tracking import registry, store
from ..tracking.logged_models import EXAMPLE
from ..tracking.opening import open_run

HUGGING_FACE, ONNX = "huggingface", "onnx"
# What an exported file is held against PyTorch on: plain opinions, there without a corpus and without a network.
_SUBJECTS = (
    "The film", "This review", "The second half, after a slow start,", "Her performance", "The plot", "The battery",
    "What the trailer promised", "The camera work of the last twenty minutes",
)  # fmt: skip
_VERDICTS = (
    "is wonderful.", "bored me to tears.", "was worth every minute!", "left me cold", "is not good.",
    "could hardly be better, and yet I would not watch it again.", "broke after a week.",
    "is, for all its faults, a small masterpiece.",
    "never makes up its mind whether it wants to be funny or sad; in the end it is neither, and far too long.",
)  # fmt: skip
_BATCHES = (1, 2, 3, 5, 8, 13, 40)


def export(model: str, alias: str, precision: str, to: str | None) -> str:
    """Write what an alias of the registry points at, check it, log it, and say how it is run.

    Args:
        model: ``bert``, ``roberta`` or ``distilbert``.
        alias: of the model in the registry.
        precision: ``fp32`` or ``int8``.
        to: folder for both folders; ``exported/MODEL-ALIAS-PRECISION`` by default.

    Raises:
        UserError: the registry has no such model, its files are gone, the folder holds something else, a library is
            not installed, or what was exported does not answer as PyTorch does.
    """
    place = Path(to or f"exported/{model}-{alias}-{precision}").resolve()
    _refuse_others(place)
    check_installed()
    with open_run() as run:
        run.describe(
            f"{model}/export/{alias}", {"stage": "export", "model": model}, {"alias": alias, "format": precision}
        )
        source = registry.registered_run(model, alias)
        run.tag({"source_run": source})
        with store.downloaded_model(source) as downloaded, TemporaryDirectory(prefix="encoder-reduction-") as apart:
            classifier, tokenizer = checkpoints.load_folder(downloaded)
            made = Path(apart) / ONNX
            made.mkdir()
            checked = folder.write(classifier, tokenizer, precision, made, list(_texts(classifier, tokenizer)))
            place.mkdir(parents=True, exist_ok=True)
            for name, own in {HUGGING_FACE: downloaded, ONNX: made}.items():
                shutil.rmtree(place / name, ignore_errors=True)
                shutil.copytree(own, place / name)
        run.metrics({"label_agreement": checked.agreement, "largest_logit_difference": checked.difference,
                     "megabytes": checked.megabytes})  # fmt: skip
        run.files(place / ONNX, ONNX)
        name = f"{model}@{alias}"
        run.text(_said(name, precision, Path(place.name), checked), "how_to_run.txt")
    return _said(name, precision, place, checked)


def onnxruntime_code(place: Path) -> str:
    """How the folder is run with onnxruntime alone, as Python."""
    return f"""\
import onnxruntime
from transformers import AutoTokenizer
folder = {str(place / ONNX)!r}
tokenizer = AutoTokenizer.from_pretrained(folder)
session = onnxruntime.InferenceSession(f"{{folder}}/{folder.MODEL_FILE}")
batch = tokenizer(["{EXAMPLE}", "Dull."], padding=True, truncation=True, return_tensors="np")
logits = session.run(["logits"], {{name: batch[name] for name in ("input_ids", "attention_mask")}})[0]
print([{list(corpora.LABELS)}[index] for index in logits.argmax(-1)])"""


def optimum_code(place: Path) -> str:
    """How the folder is run with optimum, as Python."""
    return f"""\
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer, pipeline
folder = {str(place / ONNX)!r}
model = ORTModelForSequenceClassification.from_pretrained(folder)
classify = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(folder))
print(classify(["{EXAMPLE}", "Dull."]))"""


def _said(name: str, precision: str, place: Path, checked: folder.Checked) -> str:
    beside = (
        f"Its logits are PyTorch's within {checked.difference:.1g}"
        if precision == "fp32"
        else f"Its logits differ from PyTorch's by up to {checked.difference:.2f}"
    )
    return "\n\n".join(
        [
            f"{name} as ONNX ({precision}, {checked.megabytes:.1f} MB): {place / ONNX}\n"
            f"beside the folder of Hugging Face: {place / HUGGING_FACE}\n"
            f"{beside}; of {checked.texts} short opinions, {checked.agreement:.1%} get the same label.",
            f"With onnxruntime:\n\n{onnxruntime_code(place)}",
            "With optimum, in an environment of its own (pip install optimum-onnx[onnxruntime]):\n\n"
            + optimum_code(place),
        ]
    )


def _refuse_others(place: Path) -> None:
    """Refuse a place where something else would be overwritten or mixed with what is written."""
    if place.is_file():
        raise UserError(f"to={place} is a file: give a folder that is new, or one that export has written.")
    others = sorted({each.name for each in place.iterdir()} - {HUGGING_FACE, ONNX}) if place.is_dir() else []
    if others:
        raise UserError(
            f"to={place} holds other files ({', '.join(others[:3])}{', ...' if len(others) > 3 else ''}): give a folder"
            " that is new, or one that export has written."
        )


def _texts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Iterator[Batch]:
    """Batches of several sizes and lengths, one text alone and one of the maximal length among them."""
    texts = [" ".join(each) for each in product(_SUBJECTS, _VERDICTS)]
    longest = family_of(model).positions(model.config)
    groups = [texts[end - size : end] for size, end in zip(_BATCHES, accumulate(_BATCHES), strict=True)]
    collate = DataCollatorWithPadding(tokenizer)
    for group in [*groups, [" ".join(texts)]]:
        yield collate(tokenizer(group, truncation=True, max_length=longest))
