"""Long texts out of short ones: snippets of one class, joined to the lengths of IMDb's reviews.

Source of the lengths, of all 50,000 reviews of Maas et al. 2011 in words: Ravikumar 2024, "Sentiment Classification
and Word Embeddings" (quartiles 126, 173 and 280, mean 231.2, standard deviation 171.3). A log-normal distribution that
is wider above its median than below, so that it has these quartiles, has the mean 231.9 and the standard deviation
175.8; 57.9% of it are below 200 words, as are 57.8% of the reviews by Keras's count (tensorflow issue 40609).
"""

import hashlib
from bisect import bisect
from itertools import accumulate
from statistics import NormalDist

Row = tuple[str, str, int]

_QUARTILES, _MEAN = (126, 173, 280), 231.2


def joined(snippets: list[Row]) -> list[Row]:
    """As many long texts as the snippets of one split give, always the same, each of snippets of one class.

    Args:
        snippets: ``(id, text, label)``. Each is in one text at most; less than a text's worth of each class is left.

    Returns:
        ``(id, text, label)`` in an order that mixes classes and lengths; ids are the first snippet's, with how many
        follow it.
    """
    mixed = sorted(snippets, key=_order)
    labels = sorted({label for _, _, label in snippets})
    texts = [text for label in labels for text in _of_one_class([row for row in mixed if row[2] == label])]
    return sorted(texts, key=_order)


def _of_one_class(snippets: list[Row]) -> list[Row]:
    words = [len(text.split()) for _, text, _ in snippets]
    ends = list(accumulate(_lengths(int(sum(words) / _MEAN))))
    groups: dict[int, list[Row]] = {}
    for snippet, own, end in zip(snippets, words, accumulate(words), strict=True):
        groups.setdefault(bisect(ends, end - own / 2), []).append(snippet)  # to the text that its middle lies in
    groups.pop(len(ends), None)
    return [_together(group) for group in groups.values()]


def _together(snippets: list[Row]) -> Row:
    ids, texts, labels = zip(*snippets, strict=True)
    return f"{ids[0]}+{len(snippets) - 1}", " ".join(texts), labels[0]


def _lengths(count: int) -> list[int]:
    """So many lengths in words, ascending: evenly spaced quantiles of the distribution."""
    low, median, high = _QUARTILES
    normal = NormalDist()
    deviations = (normal.inv_cdf((rank + 0.5) / count) / normal.inv_cdf(0.75) for rank in range(count))
    return [round(median * (high / median if each > 0 else median / low) ** each) for each in deviations]


def _order(row: Row) -> bytes:
    return hashlib.sha256(row[0].encode()).digest()
