"""All sources of a run in one parameter, and which module reads which."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import Field

from flows.config import Config
from flows.corpus.fact import Found
from flows.corpus.question_templates import Language, check_override, load_templates
from flows.corpus.sources import exams, tables, terms, transcripts
from flows.corpus.sources.exams import ExamSource
from flows.corpus.sources.tables import TableSource
from flows.corpus.sources.terms import TermSource
from flows.corpus.sources.transcripts import TranscriptSource
from flows.errors import ConfigError, DataError


class Sources(Config):
    """The field's own text. Any mixture of the shapes; at least one source in all."""

    language: Language = Field(
        default="en",
        title="Language",
        description="Of the questions made from terms, and of the exam markers: en or ko.",
    )
    domain: str = Field(
        default="",
        title="The field's name",
        description="As it should stand in a question, for instance: international trade. Empty: 'this field'.",
    )
    folder: str = Field(
        default="",
        title="Data folder",
        description="Where sources lie whose paths begin neither with / nor ~. Empty: the worker's working folder.",
    )
    exams: list[ExamSource] = Field(default=[], title="Exams", description="JSON files with marked running text.")
    terms: list[TermSource] = Field(default=[], title="Terms", description="JSON files of terms and descriptions.")
    transcripts: list[TranscriptSource] = Field(
        default=[], title="Lecture transcripts", description="JSON lines: passages with question/answer pairs."
    )
    tables: list[TableSource] = Field(
        default=[], title="Question/answer tables", description="CSV, TSV, JSON lines or Parquet with a column mapping."
    )
    templates: str = Field(
        default="",
        title="Question templates",
        description="A YAML file that overrides parts of the shipped questions/en.yaml or ko.yaml; empty: as shipped.",
    )


READERS: dict[str, ModuleType] = {"exams": exams, "terms": terms, "transcripts": transcripts, "tables": tables}


def _each(sources: Sources) -> Iterator[tuple[ModuleType, Any, str]]:
    for kind, reader in READERS.items():
        for number, source in enumerate(getattr(sources, kind)):
            here = source.model_copy(update={"path": in_folder(source.path, sources.folder)})
            yield reader, here, f"sources.{kind}[{number}]"


def in_folder(path: str, folder: str) -> str:
    """A relative path below the data folder; an absolute one, an address (s3://...) and a sample, as it is."""
    if not folder or not path or path.startswith(("/", "~", "sample:")) or "://" in path:
        return path
    if "://" in folder:  # a Path would make one slash of two
        return f"{folder.rstrip('/')}/{path}"
    return str(Path(folder, path))


def problems(sources: Sources) -> list[str]:
    """What can be told to be wrong before anything is read: no source at all, every path that is not there."""
    if not any(True for _ in _each(sources)):
        return [f"sources: no source is given. Add at least one to {', '.join(READERS)}."]
    found: list[str] = []
    for reader, source, field in _each(sources):
        try:
            reader.files(source, field)
        except DataError as error:
            found.append(str(error))
    try:
        check_override(in_folder(sources.templates, sources.folder))
    except DataError as error:
        found.append(str(error))
    return found


def read_sources(sources: Sources) -> Found:
    """Every fact of every source, in the order given.

    Raises:
        ConfigError: there is no source.
        DataError: a source cannot be read; names the file.
    """
    if not any(True for _ in _each(sources)):
        raise ConfigError(problems(sources))
    templates = load_templates(sources.language, sources.domain, in_folder(sources.templates, sources.folder))
    found = [reader.read(source, templates, field) for reader, source, field in _each(sources)]
    return Found(
        facts=[fact for part in found for fact in part.facts], drops=[drop for part in found for drop in part.drops]
    )


def named_files(sources: Sources) -> dict[str, Path]:
    """All files that `read_sources` will read, under names that tell how: source's field, number, kind of file.

    Their contents decide whether a prepared data set is still good.

    Raises:
        DataError: a path is not there, a folder holds nothing to read, or the templates cannot be read.
    """
    found = {
        f"{field}/{number}{file.suffix.lower()}": file
        for reader, source, field in _each(sources)
        for number, file in enumerate(reader.files(source, field))
    }
    if sources.templates:
        check_override(in_folder(sources.templates, sources.folder))
        found["sources.templates"] = Path(in_folder(sources.templates, sources.folder)).expanduser()
    return found
