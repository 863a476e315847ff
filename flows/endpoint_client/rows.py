"""Files of questions in: CSV, TSV, JSON lines or Parquet with `messages`, `question` or `prompt`. Files of replies out.

A line: {"messages": [{"role": "user", "content": "What is a tare weight?"}]}
    or: {"id": "tare", "instruction": "Answer the question.", "question": "What is a tare weight?"}
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from flows.corpus.row import Drop
from flows.corpus.sources.files import source_files
from flows.corpus.sources.records import SUFFIXES, records
from flows.corpus.sources.transcripts import as_lines
from flows.endpoint_client.request import Completion, Request
from flows.errors import DataError
from flows.store.files import write_atomically

SHOWN = 20  # problems


class _Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str = Field(min_length=1)


class QuestionRow(BaseModel):
    """One row of a file: exactly one of `messages`, `question` (after an `instruction`, if there is one) and `prompt`.

    Other columns are left alone. In a CSV file `messages` is JSON.
    """

    id: str = ""
    messages: list[_Message] = []
    question: str = ""
    instruction: str = ""
    prompt: str = ""

    @field_validator("messages", mode="before")
    @classmethod
    def _json_or_nothing(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value or []
        try:
            return json.loads(value) if value.strip() else []
        except ValueError as error:
            raise ValueError(f"not JSON ({error})") from error

    @field_validator("id", "question", "instruction", "prompt", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        if value is None:
            return ""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return as_lines(value) if isinstance(value, str) else str(value) if number else value

    @model_validator(mode="after")
    def _one_of_three(self) -> QuestionRow:
        given = [name for name in ("messages", "question", "prompt") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of messages, question and prompt; there is {' and '.join(given) or None}"
            )
        return self

    def request(self, name: str) -> Request:
        """What is asked; in the words that training uses."""
        if self.prompt:
            return Request(id=self.id or name, prompt=self.prompt)
        user = f"{self.instruction}\n{self.question}" if self.instruction else self.question
        messages = [message.model_dump() for message in self.messages]
        return Request(id=self.id or name, messages=messages or [{"role": "user", "content": user}])


def read_requests(path: str, field: str) -> list[Request]:
    """The requests of a file, or of all such files in a folder. A row without an `id` is called `<file>:<line>`.

    Raises:
        DataError: there is no such file, no row in it, or a row is none; names all with file, line and field.
    """
    found: list[Request] = []
    problems: list[str] = []
    for file in source_files(path, SUFFIXES, field):
        drops: list[Drop] = []
        for line, record in records(file, functools.partial(_columns, file), drops, field):
            try:
                found.append(QuestionRow.model_validate(record).request(f"{file.name}:{line}"))
            except ValidationError as error:
                problems += [f"{file}, line {line}: {_words(problem)}" for problem in error.errors()]
        problems += [f"{drop.file}, line {drop.line}: {drop.reason}: {drop.detail}" for drop in drops]
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise DataError("\n".join([*problems[:SHOWN], *more]))
    if not found:
        raise DataError(f"{field}: there is no row in '{path}'.")
    return found


def _columns(file: Path, present: list[str], line: int | None) -> list[str]:
    """Those that are read; a row of JSON lines is looked at itself."""
    columns = [name for name in QuestionRow.model_fields if name in present]
    if not {"messages", "question", "prompt"} & set(columns) and file.suffix.lower() not in (".jsonl", ".ndjson"):
        raise DataError(f"{file}: no column messages, question or prompt. There are: {', '.join(present) or 'none'}.")
    return columns


def _words(problem: Any) -> str:
    place = ".".join(map(str, problem["loc"]))
    what = str(problem["msg"]).removeprefix("Value error, ")
    return f"{place}: {what}" if place else what


def write_replies(path: Path, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
    """Write one JSON object a request, in order: what was asked, the reply, and the server's figures about it."""
    lines = []
    for request, completion in zip(requests, completions, strict=True):
        asked = {"prompt": request.prompt} if request.prompt else {"messages": request.messages}
        found = completion.model_dump(exclude={"id", "text"})
        lines.append(json.dumps({"id": request.id, **asked, "reply": completion.text, **found}, ensure_ascii=False))
    write_atomically(path, "".join(f"{line}\n" for line in lines))
