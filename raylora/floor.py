"""What an adapter must beat: two classifiers that cost next to nothing, on the same splits, and by how much it does."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from raylora.config import Job
from raylora.metrics import POSITIVE, Metric
from raylora.probe import quiet

if TYPE_CHECKING:
    import numpy as np

Baseline = Literal["tfidf", "probe"]
WORDS: dict[Baseline, str] = {"tfidf": "TF-IDF", "probe": "linear probe"}
BASELINES: tuple[Baseline, ...] = ("tfidf", "probe")
KNOWN: tuple[Metric, ...] = ("accuracy", "f1", "f1_macro")  # of label ids alone

MOST_TERMS = 4_000_000  # weights of the TF-IDF classifier, over all labels
MOST_TOKENS = 5_000_000  # of all rows that it is fitted on; longer rows are cut
MAX_ITERATIONS = 30
RESAMPLES = 1000


@dataclass(frozen=True)
class FloorSplit:
    """A split as the baselines see it. `rows` [n] are places in the split's table, of all its rows or of a sample."""

    rows: "np.ndarray"
    label_ids: "np.ndarray"
    predicted: dict[Baseline, "np.ndarray"]
    num_labels: int

    def scores(self, baseline: Baseline) -> dict[str, float]:
        """By name of a metric; all but the loss."""
        return _scores(self.label_ids, self.predicted[baseline], self.num_labels)


@dataclass(frozen=True)
class Floor:
    """TF-IDF with logistic regression, and logistic regression on the frozen base's mean-pooled states.

    `splits` by name, validation and, where there is one, test; `train_rows` both were fitted on; `seconds` they took.
    """

    splits: dict[str, FloorSplit]
    train_rows: int
    seconds: float

    def to_json(self) -> str:
        splits = {
            name: {
                "rows": split.rows.tolist(),
                "label_ids": split.label_ids.tolist(),
                "predicted": {baseline: ids.tolist() for baseline, ids in split.predicted.items()},
                "num_labels": split.num_labels,
            }
            for name, split in self.splits.items()
        }
        return json.dumps({"splits": splits, "train_rows": self.train_rows, "seconds": self.seconds})


def read_floor(text: str) -> Floor:
    """`Floor.to_json` undone."""
    import numpy as np

    held = json.loads(text)
    splits = {
        name: FloorSplit(
            np.array(split["rows"]),
            np.array(split["label_ids"]),
            {baseline: np.array(ids) for baseline, ids in split["predicted"].items()},
            # of runs before December 2026: as many as were seen
            split.get("num_labels") or 1 + max(map(max, (split["label_ids"], *split["predicted"].values()))),
        )
        for name, split in held["splits"].items()
    }
    return Floor(splits, held["train_rows"], held["seconds"])


@dataclass(frozen=True)
class Difference:
    """How much better an adapter is than a baseline; `low` and `high` end the 95 % interval."""

    value: float
    low: float
    high: float


def fit_tfidf(train: Sequence["np.ndarray"], label_ids: "np.ndarray", num_labels: int) -> "TfidfClassifier":
    """Logistic regression on TF-IDF of tokens and of pairs of neighbours, sublinear in counts (Joachims 1998).

    Args:
        train: token ids of each row.
        label_ids: [N] in [0, num_labels).
    """
    import numpy as np
    from sklearn.feature_extraction.text import TfidfTransformer

    longest = max(2, MOST_TOKENS // len(train))
    terms, rows = _terms(train, longest)
    known, first, codes = np.unique(terms, return_index=True, return_inverse=True)
    counts = _counts(codes, rows, len(train), len(known))
    in_rows = np.bincount(counts.indices, minlength=len(known))
    most = max(1000, MOST_TERMS // num_labels)
    single = known < PAIR
    wanted = np.flatnonzero(single | (in_rows > 1))
    wanted = np.sort(wanted[np.lexsort((first[wanted], -in_rows[wanted]))[:most]])
    transformer = TfidfTransformer(sublinear_tf=True)
    with quiet():
        model = _regression().fit(transformer.fit_transform(counts[:, wanted]), label_ids)
    return TfidfClassifier(known[wanted], longest, transformer, model)


@dataclass(frozen=True)
class TfidfClassifier:
    """`terms` are the columns, sorted; tokens beyond `longest` of a row are not looked at."""

    terms: "np.ndarray"
    longest: int
    transformer: Any
    model: Any

    def predict(self, texts: Sequence["np.ndarray"]) -> "np.ndarray":
        """[N] label ids of rows of token ids."""
        import numpy as np

        terms, rows = _terms(texts, self.longest)
        at = np.searchsorted(self.terms, terms)
        known = (at < len(self.terms)) & (self.terms[np.minimum(at, len(self.terms) - 1)] == terms)
        counts = _counts(at[known], rows[known], len(texts), len(self.terms))
        return self.model.predict(self.transformer.transform(counts))


PAIR = 1 << 31  # a term below is a token, one above a pair of neighbours


def _terms(texts: Sequence["np.ndarray"], longest: int) -> tuple["np.ndarray", "np.ndarray"]:
    """All tokens and pairs of neighbours as numbers, and the row of each."""
    import numpy as np

    lengths = np.array([min(len(text), longest) for text in texts])
    tokens = np.concatenate([text[:longest] for text in texts]).astype(np.int64)
    rows = np.repeat(np.arange(len(texts)), lengths)
    inside = rows[1:] == rows[:-1]
    pairs = PAIR + (tokens[:-1] << 31) + tokens[1:]
    return np.concatenate([tokens, pairs[inside]]), np.concatenate([rows, rows[1:][inside]])


def _counts(codes: "np.ndarray", rows: "np.ndarray", num_rows: int, num_terms: int) -> Any:
    import numpy as np
    from scipy.sparse import csr_matrix

    counts = csr_matrix((np.ones(len(codes), dtype=np.float32), (rows, codes)), shape=(num_rows, num_terms))
    counts.sum_duplicates()
    return counts


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=10.0, max_iter=MAX_ITERATIONS, tol=1e-3)


def difference(
    label_ids: "np.ndarray", ours: "np.ndarray", theirs: "np.ndarray", metric: str, num_labels: int
) -> Difference:
    """Of two classifiers on the same rows, with a paired bootstrap's interval (Efron & Tibshirani 1993, ch. 13).

    Args:
        label_ids, ours, theirs: [N] label ids: the true ones, and what each classifier says.
        metric: one of `KNOWN`, as `metrics.Scores` means it.
    """
    import numpy as np

    random = np.random.default_rng(0)
    share = np.full(len(label_ids), 1 / len(label_ids))
    # [R, N]: how often each row is drawn; the first resample is the rows themselves
    draws = np.concatenate([np.ones((1, len(share))), random.multinomial(len(share), share, RESAMPLES)])
    differences = _values(metric, draws, label_ids, ours, num_labels) - _values(
        metric, draws, label_ids, theirs, num_labels
    )
    low, high = np.quantile(differences[1:], (0.025, 0.975))
    return Difference(float(differences[0]), float(low), float(high))


def _values(
    metric: str, draws: "np.ndarray", label_ids: "np.ndarray", predicted: "np.ndarray", num_labels: int
) -> "np.ndarray":
    """[R] of each resample, which `draws` [R, N] how often from each row."""
    import numpy as np

    if metric == "accuracy":
        return draws @ (label_ids == predicted) / draws.sum(axis=1)
    if metric == "f1" and num_labels == 2:
        return _f1(draws, label_ids, predicted, POSITIVE)[0]
    labels = np.unique(np.concatenate([label_ids, predicted]))
    f1s, occur = zip(*(_f1(draws, label_ids, predicted, label) for label in labels), strict=True)
    return np.sum(f1s, axis=0) / np.sum(occur, axis=0)


def _f1(draws: "np.ndarray", label_ids: "np.ndarray", predicted: "np.ndarray", label: int) -> tuple[Any, Any]:
    """[R] F1 of a label in each resample, 0 where it neither is held nor predicted; and [R] whether it is."""
    import numpy as np

    both = draws @ ((label_ids == label) & (predicted == label))
    total = draws @ (label_ids == label) + draws @ (predicted == label)
    return np.where(total > 0, 2 * both / np.maximum(total, 1), 0.0), total > 0


def _scores(label_ids: "np.ndarray", predicted: "np.ndarray", num_labels: int) -> dict[str, float]:
    import numpy as np

    once = np.ones((1, len(label_ids)))
    return {metric: float(_values(metric, once, label_ids, predicted, num_labels)[0]) for metric in KNOWN}


def summary(floor: Floor, predicted: Mapping[str, "np.ndarray"], metric_for_best_model: str) -> dict[str, Any]:
    """A floor beside an adapter, as metrics.json and the adapter's manifest hold it.

    Args:
        predicted: [N] label ids of a whole split by the adapter; a split that is left out is not compared.
        metric_for_best_model: by which the higher baseline is chosen and the difference is taken (`metric_of`).
    """
    metric = metric_of(metric_for_best_model)
    splits: dict[str, Any] = {}
    for name, split in floor.splits.items():
        scores = {baseline: split.scores(baseline) for baseline in split.predicted}
        highest = max(split.predicted, key=lambda baseline: scores[baseline][metric])
        splits[name] = {**scores, "rows": len(split.rows), "highest": highest}
        if name in predicted:
            ours = predicted[name][split.rows]
            gap = difference(split.label_ids, ours, split.predicted[highest], metric, split.num_labels)
            splits[name]["difference"] = {"against": highest, **asdict(gap)}
    return {**splits, "metric": metric, "train_rows": floor.train_rows, "seconds": round(floor.seconds, 3)}


def metric_of(metric_for_best_model: str) -> str:
    """The metric that a floor is compared by; it has no loss."""
    return metric_for_best_model if metric_for_best_model in KNOWN else "accuracy"


def floor_line(floor: Mapping[str, Any]) -> str:
    """What the baselines reach, for a terminal."""
    split, metric = floor["validation"], floor["metric"]
    scores = ", ".join(f"{words} {split[baseline][metric]:.4f}" for baseline, words in WORDS.items())
    of = f"validation {metric}, {split['rows']:,} rows; {floor['train_rows']:,} train rows, {floor['seconds']:.0f} s"
    return f"{scores}  ({of})"


def difference_line(floor: Mapping[str, Any], split: str) -> str:
    """How an adapter stands to the higher baseline of a split, for a terminal."""
    gap, metric = floor[split]["difference"], floor["metric"]
    highest = f"{WORDS[gap['against']]} {floor[split][gap['against']][metric]:.4f}"
    interval = f"95 % interval {gap['low']:+.4f} to {gap['high']:+.4f}, {floor[split]['rows']:,} rows"
    return f"{metric} {gap['value']:+.4f} against {highest}  ({interval})"


def advice(job: Job) -> str:
    """What to change where an adapter ends below its floor: what differs from the defaults, by what mattered most."""
    default, now = Job(), job
    wanted: list[str] = []
    if now.train.head_init != default.train.head_init:
        wanted.append(f"train.head_init={default.train.head_init}")
    if now.lora.target_modules != default.lora.target_modules:
        wanted.append(f"lora.target_modules={default.lora.target_modules}")
    if now.lora.layers_to_transform is not None:
        wanted.append("lora.layers_to_transform=null")
    if now.train.learning_rate < default.train.learning_rate:
        wanted.append(f"train.learning_rate={default.train.learning_rate:g}")
    if now.train.num_train_epochs < default.train.num_train_epochs:
        wanted.append(f"train.num_train_epochs={default.train.num_train_epochs}")
    changes = f"Change what keeps it there: {' '.join(wanted)}. " if wanted else ""
    return (
        f"{changes}Else more rows, more `train.num_train_epochs` or other hyperparameters may lift it; if not, this "
        "base model knows little of these texts."
    )


def is_below(floor: Mapping[str, Any]) -> bool:
    """Whether the adapter ends below its floor: on the test split where there is one, else on validation."""
    split = "test" if "test" in floor else "validation"
    return floor[split].get("difference", {"value": 0})["value"] < 0
