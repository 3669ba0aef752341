"""How long a corpus takes to be loaded and tokenised, at first and again, and the memory of all its processes.

On synthetic reviews out of the packaged corpus's words, in lengths distributed as the real ones (log-normal):

    python benchmarks/tokenisation.py                                             # IMDb: 50,000 reviews of 230 words
    python benchmarks/tokenisation.py --train 560000 --test 38000 --words 130     # Yelp Polarity
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import click  # noqa: E402
import numpy as np  # noqa: E402
import psutil  # noqa: E402
from datasets import Dataset  # noqa: E402

from encoder_reduction.data import cache, corpora  # noqa: E402
from encoder_reduction.plan import presets  # noqa: E402

# In the process that is measured: what every run does before it trains.
START = """
import sys, time
from encoder_reduction.data import corpora
from encoder_reduction.models import packaged_model
from encoder_reduction.plan import presets
from encoder_reduction.data.tokenisation import tokenise
_, tokenizer = packaged_model.load("bert", num_labels=2)
started = time.monotonic()
data = corpora.load(presets.Corpus(name="reviews", source=sys.argv[1], validation_examples=2500))
for split in data:
    tokenise(data[split], tokenizer, 512)
print(time.monotonic() - started)
"""


def write(folder: Path, split: str, examples: int, words: int) -> None:
    """A split as a parquet file, sorted by label."""
    rng = np.random.default_rng(0)
    known = np.array(" ".join(corpora.load(presets.load("packaged")[0].source)["train"]["text"]).split())

    def rows() -> object:
        for index in range(examples):
            length = max(10, int(rng.lognormal(np.log(words) - 0.25, 0.7)))
            yield {"text": " ".join(rng.choice(known, length)), "label": int(index >= examples // 2)}

    data = Dataset.from_generator(rows, cache_dir=str(folder / "made"))
    data.to_parquet(folder / "corpus" / f"{split}.parquet")


def start(folder: Path) -> tuple[float, float]:
    """Seconds to load and tokenise, and the most resident memory of all processes together, in GiB."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), cache.VARIABLE: str(folder / "cache"), "HF_HOME": str(folder)}
    words = [sys.executable, "-c", START, str(folder / "corpus")]
    most = 0
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                family = [watched, *watched.children(recursive=True)]
                most = max(most, sum(each.memory_info().rss for each in family))
            except psutil.NoSuchProcess:
                continue
            time.sleep(0.2)
        seconds = float(process.stdout.read())
    return seconds, most / 2**30


@click.command(help=__doc__)
@click.option("--train", default=25_000, show_default=True)
@click.option("--test", default=25_000, show_default=True)
@click.option("--words", default=230, show_default=True, help="Mean length of a review.")
def main(train: int, test: int, words: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "corpus").mkdir()
        for split, examples in (("train", train), ("test", test)):
            write(folder, split, examples, words)
        for which in ("first", "second"):
            seconds, memory = start(folder)
            click.echo(f"{which} start: {seconds:.1f} s, {memory:.2f} GiB")


if __name__ == "__main__":
    main()
