"""Certification exams: running text in which each question and its answer are marked.

A file: {"fixed_text": "Question: Which rule ...? 1. EXW. 2. FOB. Answer: EXW. Question: ..."}
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from flows.config import Config
from flows.corpus.fact import Fact, Found, normalised
from flows.corpus.question_templates import QuestionTemplates
from flows.corpus.row import Drop, Row
from flows.corpus.sources.files import read_json, source_files
from flows.errors import DataError

# An option's number: after a space or a sentence end, up to two digits and a full stop or a bracket.
OPTION = re.compile(r"(?:^|(?<=\s))([1-9]\d?)[.)]\s+")
# In scraped text options are glued: "...price.2.When" must become "...price. 2. When" to stay readable.
GLUED_BEFORE = re.compile(r"(?<=[^\s\d])([.?!。])\s*([1-9])\.(?=[^\s\d])")
GLUED_AFTER = re.compile(r"((?:^|\s)[1-9])\.(?=[^\s\d])")


CIRCLED = "①②③④⑤⑥⑦⑧⑨"
NUMBERED_ANSWER = re.compile(rf"^\(?(?:(?P<digit>[1-9])|(?P<circled>[{CIRCLED}]))[.)번]*\s*(?P<rest>.*)$")


class ExamSource(Config):
    """Exam papers as JSON files."""

    path: str = Field(
        title="Folder or file",
        description="JSON files with a fixed_text field each; or sample:trade_en/exams.",
        min_length=1,
    )
    question_marker: str = Field(
        default="",
        title="Question marker",
        description="What stands before each question; empty: that of the language.",
    )
    answer_marker: str = Field(
        default="", title="Answer marker", description="What stands before each answer; empty: that of the language."
    )
    limit: int = Field(
        default=0, ge=0, title="Limit (items)", description="Use only the first items; 0 is all of them."
    )


def files(source: ExamSource, field: str) -> list[Path]:
    """The files to read."""
    return source_files(source.path, (".json",), field)


def read(source: ExamSource, templates: QuestionTemplates, field: str) -> Found:
    """Each question with its options becomes a fact; the reworded form has another instruction and shuffled options.

    Raises:
        DataError: a file is not UTF-8 JSON, has no fixed_text, or no question marker at all.
    """
    question_marker = source.question_marker or templates.exam.question_marker
    answer_marker = source.answer_marker or templates.exam.answer_marker
    facts: list[Fact] = []
    drops: list[Drop] = []
    for file in files(source, field):
        text = _fixed_text(file, question_marker)
        for number, item in enumerate(text.split(question_marker)[1:], start=1):
            question, marker, answer = item.partition(answer_marker)
            question, answer = repair_options(question), " ".join(answer.split())
            if not (marker and question and answer):
                reason = "no-question" if not question else "no-answer"
                detail = f"item {number}: no '{answer_marker}' after: {question[:80]}"
                drops.append(Drop(file=str(file), reason=reason, detail=detail))
                continue
            facts.append(_fact(question, answer, templates).model_copy(update={"file": str(file)}))
    return Found(facts=facts[: source.limit or None], drops=drops)


def repair_options(question: str) -> str:
    """Spaces around option numbers (`....1.The` becomes `.... 1. The`), and single spaces elsewhere."""
    text = GLUED_BEFORE.sub(r"\1 \2. ", " ".join(question.split()))
    return GLUED_AFTER.sub(r"\1. ", text)


def split_options(question: str) -> tuple[str, list[str]]:
    """(stem, options) of a question whose options are numbered 1, 2, 3 ... in order; no options if they are not."""
    wanted = 1
    cuts: list[re.Match[str]] = []
    for match in OPTION.finditer(question):
        if int(match.group(1)) == wanted:
            cuts.append(match)
            wanted += 1
    if len(cuts) < 2:
        return question, []
    ends = [cut.start() for cut in cuts[1:]] + [len(question)]
    options = [question[cut.end() : end].strip() for cut, end in zip(cuts, ends, strict=True)]
    return question[: cuts[0].start()].strip(), options


def resolve_answer(answer: str, options: list[str]) -> str | None:
    """The answer in words: `2`, `(2)`, `②` and `2. FOB` become the second option's text.

    None when the answer names a number that no option has, so that its meaning hangs on an order we do not know.
    """
    if not options or answer in options:
        return answer
    found = NUMBERED_ANSWER.match(answer)
    if found is None:
        return answer
    number = int(found["digit"]) if found["digit"] else CIRCLED.index(found["circled"]) + 1
    option = options[number - 1] if number <= len(options) else None
    if not found["rest"]:
        return option
    return option if option and normalised(found["rest"]) == normalised(option) else answer


def _fixed_text(file: Path, question_marker: str) -> str:
    value = read_json(file)
    text = value.get("fixed_text") if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise DataError(
            f'{file}: no field "fixed_text" with the exam\'s text. An exam file is {{"fixed_text": "..."}}.'
        )
    if question_marker not in text:
        raise DataError(
            f"{file}: fixed_text holds no '{question_marker}'. Set the language, or question_marker of this source."
        )
    return text


def _fact(question: str, answer: str, templates: QuestionTemplates) -> Fact:
    stem, options = split_options(question)
    in_words = resolve_answer(answer, options)
    answer = in_words or answer
    group = f"exam:{normalised(stem)}"
    context = f"{question} {templates.exam.answer_marker} {answer}"
    base = {"source": "exam", "group": group, "context": context, "answer": answer}
    row = Row(id=group, question=question, instruction=templates.instruction, **base)
    reworded = [
        Row(
            id=f"{group}#shuffled",
            question=shuffled,
            instruction=templates.instruction_reworded,
            reworded_by="shuffled-options",
            **base,
        )
        for shuffled in (_shuffled(stem, options) if in_words else ())
    ]
    return Fact(group=group, source="exam", rows=[row], reworded=reworded, documents=[context])


def _shuffled(stem: str, options: list[str]) -> Iterator[str]:
    """The question once more with its options in another order, the same every time; nothing without options."""
    if len(set(options)) < 2:
        return
    order = list(options)
    rng = random.Random(stem)
    while order == options:
        rng.shuffle(order)
    yield f"{stem} " + " ".join(f"{number}. {option}" for number, option in enumerate(order, start=1))
