"""A linear model on TF-IDF: a baseline that costs next to nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raylora.probe import each_against_rest, quiet
from raylora.tasks import TASKS, ProblemType, Task

if TYPE_CHECKING:
    import numpy as np

MOST_TERMS = 4_000_000  # weights of the TF-IDF classifier, over all labels
MOST_TOKENS = 5_000_000  # of all rows that it is fitted on; longer rows are cut
MAX_ITERATIONS = 30


def fit_tfidf(
    train: Sequence["np.ndarray"],
    targets: "np.ndarray",
    num_labels: int,
    task: Task = TASKS["single_label_classification"],
) -> "TfidfModel":
    """A linear model on TF-IDF of tokens and of pairs of neighbours, sublinear in counts (Joachims 1998).

    Args:
        train: token ids of each row.
        targets: [N, ...] of the task.
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
        outputs = LINEAR[task.problem_type](transformer.fit_transform(counts[:, wanted]), targets, num_labels)
    return TfidfModel(known[wanted], longest, transformer, outputs)


@dataclass(frozen=True)
class TfidfModel:
    """`terms` are the columns, sorted; tokens beyond `longest` of a row are not looked at."""

    terms: "np.ndarray"
    longest: int
    transformer: Any
    linear: "Outputs"

    def outputs(self, texts: Sequence["np.ndarray"]) -> "np.ndarray":
        """[N, C] for rows of token ids: logits, or numbers."""
        import numpy as np

        terms, rows = _terms(texts, self.longest)
        at = np.searchsorted(self.terms, terms)
        known = (at < len(self.terms)) & (self.terms[np.minimum(at, len(self.terms) - 1)] == terms)
        counts = _counts(at[known], rows[known], len(texts), len(self.terms))
        return self.linear(self.transformer.transform(counts))


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


Outputs = Callable[[Any], "np.ndarray"]  # features [N, F], dense or sparse, to [N, C]


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=10.0, max_iter=MAX_ITERATIONS, tol=1e-3)


def _logistic(features: Any, label_ids: "np.ndarray", num_labels: int) -> Outputs:
    """Of a label that no row carries, minus infinity."""
    import numpy as np

    model = _regression().fit(features, label_ids)

    def outputs(features: Any) -> "np.ndarray":
        found = np.full((features.shape[0], num_labels), -np.inf)
        found[:, model.classes_] = model.predict_log_proba(features)
        return found

    return outputs


def _one_against_rest(features: Any, targets: "np.ndarray", num_labels: int) -> Outputs:
    weight, offsets = each_against_rest(features, targets, _regression())
    return lambda features: features @ weight.T + offsets


def _ridge(features: Any, targets: "np.ndarray", num_labels: int) -> Outputs:
    from sklearn.linear_model import Ridge

    model: Any = Ridge(alpha=1.0, solver="sparse_cg", tol=1e-3, random_state=0).fit(features, targets)
    return lambda features: model.predict(features).reshape(-1, num_labels)


LINEAR: dict[ProblemType, Callable[[Any, "np.ndarray", int], Outputs]] = {
    "single_label_classification": _logistic,
    "multi_label_classification": _one_against_rest,
    "regression": _ridge,
}
