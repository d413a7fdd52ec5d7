"""Learns the weights of single words that the classifier falls back on: shared/src/classify/words.txt.

    pip install scikit-learn
    cargo build -p redrive && python3 tests/vectors/words/learn.py            # writes the table
    python3 tests/vectors/words/learn.py --check                             # cross-validates, by source; writes nothing

Learnt are two logistic regressions, of the class and of whether to try again, over what `redrive classify --explain` reads of
the labelled samples beside this directory and of the lessons in it. The same input gives the same table.
"""

import json
import pathlib
import subprocess
import sys
from collections import Counter, defaultdict

from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[2]
STRENGTH = 2.0  # inverse of the regularisation
SEEN_AT_LEAST = 2  # documents that a word has to occur in
SMALLEST = 15  # weights below this many hundredths are left out
FOLDS = 8
LASTING = set(
    "quota_exhausted auth permission model_unavailable context_overflow content_policy refusal invalid_request "
    "business_rule tool_error".split()
)


def samples():
    """The labelled samples that are not ambiguous."""
    for name in ("failures.jsonl", "failures_own.jsonl"):
        for line in (HERE.parent / name).read_text().splitlines():
            sample = json.loads(line)
            if not sample.get("ambiguous"):
                yield sample


def lessons():
    """One sample for each phrase of lessons.txt; `!` behind it marks one that lasts."""
    for line in (HERE / "lessons.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            label, phrases = line.split(":", 1)
            for phrase in phrases.split(";"):
                lasts = phrase.endswith("!") or label in LASTING
                yield {"exception": phrase.strip().rstrip("!"), "label": label, "retryable": not lasts, "lesson": True}


def read(rows):
    """Notes the words that the classifier reads in each."""
    lines = [json.dumps({**row, "id": place}) for place, row in enumerate(rows)]
    command = [ROOT / "target/debug/redrive", "classify", "--explain"]
    answers = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=True).stdout
    for answer in map(json.loads, answers.splitlines()):
        row = rows[answer["id"]]
        row["answer"] = answer
        row["words"] = {word: 1 for word in answer["because"]["read"] if word != "#all"}
    return rows


def fit(rows):
    seen = Counter(word for row in rows for word in row["words"])
    vectors = DictVectorizer()
    known = [{word: 1 for word in row["words"] if seen[word] >= SEEN_AT_LEAST} for row in rows]
    matrix = vectors.fit_transform(known)
    model = lambda: LogisticRegression(C=STRENGTH, max_iter=5000)
    classes = model().fit(matrix, [row["label"] for row in rows])
    again = model().fit(matrix, [row["retryable"] for row in rows])
    return vectors, classes, again


def table(vectors, classes, again):
    """The lines of the table, in the order of the words."""
    weights = {"#all": (classes.intercept_, again.intercept_[0])}
    for word, place in vectors.vocabulary_.items():
        weights[word] = (classes.coef_[:, place], again.coef_[0][place])
    for word in sorted(weights):
        by_class, of_again = weights[word]
        pairs = [(name, round(100 * weight)) for name, weight in zip(classes.classes_, by_class)]
        pairs = sorted((pair for pair in pairs if abs(pair[1]) >= SMALLEST), key=lambda pair: -pair[1])
        pairs += [("again", round(100 * of_again))] if abs(of_again) * 100 >= SMALLEST else []
        if pairs:
            yield " ".join([word, *(f"{name}={weight}" for name, weight in pairs)])


def source(row):
    """Samples of one repository or page stay together."""
    return row.get("source", "").split("/issues")[0].split("/pull")[0][:60]


def check(rows, taught):
    folds = {key: place % FOLDS for place, key in enumerate(sorted({source(row) for row in rows}))}
    right, total = defaultdict(int), defaultdict(int)
    for fold in range(FOLDS):
        learnt = fit([row for row in rows if folds[source(row)] != fold] + taught)
        held = [row for row in rows if folds[source(row)] == fold]
        matrix = learnt[0].transform([row["words"] for row in held])
        for row, label, retry in zip(held, learnt[1].predict(matrix), learnt[2].predict(matrix)):
            kind = "hard" if row.get("hard") else "standard"
            right[kind] += label in {row["label"], *row.get("alt_labels", [])}
            total[kind] += 1
            if not row.get("retryable_ambiguous"):
                right["retryable"] += bool(retry) == row["retryable"]
                total["retryable"] += 1
    for kind, count in total.items():
        print(f"{kind}: {right[kind]} of {count} = {right[kind] / count:.3f}")


def main():
    rows, taught = read(list(samples())), read(list(lessons()))
    if "--check" in sys.argv:
        return check(rows, taught)
    lines = list(table(*fit(rows + taught)))
    (ROOT / "shared/src/classify/words.txt").write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} words")


main()
