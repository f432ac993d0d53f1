"""Which rows a run learns from, and how they are read."""

import codecs
from functools import cached_property
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from raylora.config.codes import CODES
from raylora.config.explain import close_to
from raylora.config.section import Count, Fraction, Name, Section, Seed
from raylora.tasks import LabelColumn, ProblemType, task_of

Truncation = Literal["end", "start", "middle", "windows"]

NO_TEXT = ("idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape", "mbcs", "oem")


def check_encoding(name: str) -> None:
    """Raises:
    ValueError: Python knows no encoding of texts by this name.
    """
    try:
        found = codecs.lookup(name)
        "".encode(name)  # refuses what turns bytes into bytes (base64, zip)
    except (LookupError, ValueError):
        found = None
    if found is None or found.name.replace("-", "_") in NO_TEXT:
        raise ValueError(
            f"`encoding` must be one that Python knows, as cp1252, latin-1, utf-16 or gb18030, found '{name}'"
        )


class DataSection(Section):
    is_labelled: ClassVar[bool] = True

    train: str | list[str] | None = Field(
        default=None,
        description="file, folder, glob, list of these, s3://, gs://, https://, hf://org/name; null = the bundled demo",
    )
    validation: str | list[str] | None = Field(default=None, description="like `train`; null = split from `train`")
    test: str | list[str] | None = Field(default=None, description="like `train`; scored once, by the finished adapter")
    validation_fraction: Fraction = Field(
        default=0.2, description="share of `train` that becomes validation, per label"
    )
    format: Literal["auto", "csv", "tsv", "txt", "jsonl", "json", "parquet", "arrow", "text"] = Field(
        default="auto",
        description="auto = by file name; tsv takes quotes literally; arrow = feather too; text = each file is a text, "
        "its folder the label",
    )
    delimiter: str | None = Field(
        default=None,
        description="what stands between the cells of a csv or txt, one character or more, or `tab`; null = told by "
        "the file: comma, semicolon, tab or bar",
    )
    quoting: Literal["auto", "doubled", "backslash", "none"] = Field(
        default="auto",
        description='a quote in a quoted cell is "" (doubled) or \\" (backslash); none = quotes are characters like '
        "others; auto = doubled, none in a tsv and in a txt with tabs",
    )
    decimal: Literal[".", ","] = Field(
        default=".", description="decimal mark of labels that are numbers, in csv and tsv"
    )
    encoding: str | None = Field(
        default=None,
        description="of text files, as Python names it (cp1252, gb18030); null = UTF-8, or by the file's mark",
    )
    columns: list[Name] | None = Field(
        default=None,
        description="names of the columns of a csv or tsv whose first line is a row; null = its first line",
    )
    text_column: Name = Field(
        default="text",
        description="name of the column of texts; where a file has no names, its position: 0 is the first",
    )
    text_pair_column: Name | None = Field(default=None, description="second text of a pair")
    label_column: Name = Field(
        default="label",
        description="name of the column of labels: strings, ints, lists of labels, or numbers; or its position",
    )
    label_separator: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="what stands between the labels of a row that holds several in one text"
    )
    problem_type: ProblemType | None = Field(
        default=None,
        description="null = by the first rows of the files of `train`: lists are multi_label_classification, numbers "
        "with fractions regression (unless `labels` names numbers), all else single_label_classification",
    )
    labels: list[Name] | None = Field(default=None, description="fixes the labels and their order; null = sorted")
    positive_label: Name | None = Field(
        default=None, description="of two labels, the one that f1, precision and recall are of; null = the second"
    )
    max_length: Annotated[int, Field(ge=4)] = Field(
        default=128, description="tokens kept of a row, or of each of its windows, special tokens included"
    )
    truncation: Truncation = Field(
        default="end",
        description="what is cut of a longer text: its end (its start, where the tokenizer's own `truncation_side` is "
        "left), its start, or its middle (a quarter of what is kept is its head); windows = nothing, it is read in "
        "windows",
    )
    stride: Annotated[int, Field(ge=0)] = Field(
        default=0, description="of `truncation: windows`: tokens that neighbouring windows share"
    )
    max_windows: Count = Field(
        default=8, description="of `truncation: windows`: windows kept of a row; what comes after them is cut"
    )
    max_samples: Count | None = Field(
        default=None, description="take this many rows of `train`, before the split; each label keeps its share"
    )
    seed: Seed | None = Field(default=None, description="of the split; null = `seed`")
    on_bad_row: Literal["error", "skip"] = Field(
        default="error", description="skip = leave it out, list it in bad_rows.jsonl"
    )
    exclude: str | None = Field(
        default=None,
        description="a review.csv of `raylora inspect RUN`: its rows are left out of train and validation, known by "
        "their text and label",
    )
    mute: list[str] = Field(default=[], description="codes of warnings that are not said, as D002: see docs/data.md")

    @model_validator(mode="after")
    def encoding_is_known(self) -> Self:
        if self.encoding is not None:
            check_encoding(self.encoding)
        return self

    @model_validator(mode="after")
    def delimiter_parts_cells(self) -> Self:
        if self.delimiter is not None and (not self.delimiter or set(self.delimiter) & set('"\r\n')):
            raise ValueError(
                f"`delimiter` must be one or more characters, no quote and no line break, found {self.delimiter!r}"
            )
        encoding = self.encoding or "utf-8"
        if self.delimiter and self.delimiter.encode(encoding, "ignore").decode(encoding) != self.delimiter:
            raise ValueError(f"`delimiter` {self.delimiter!r} cannot be in a file of `encoding` {encoding}")
        return self

    @model_validator(mode="after")
    def columns_differ(self) -> Self:
        if self.columns is not None and (not self.columns or len(set(self.columns)) != len(self.columns)):
            raise ValueError(f"`columns` must name each column once, found {self.columns}")
        return self

    @model_validator(mode="after")
    def labels_differ(self) -> Self:
        fewest = task_of(self.problem_type).fewest_labels
        if self.labels is not None and (len(set(self.labels)) != len(self.labels) or len(self.labels) < fewest):
            number = {1: "one label", 2: "two labels"}[fewest]
            raise ValueError(f"`labels` must name at least {number}, each once, found {self.labels}")
        return self

    @model_validator(mode="after")
    def truncation_fits(self) -> Self:
        if self.text_pair_column and self.truncation in ("middle", "windows"):
            raise ValueError(
                f"`truncation: {self.truncation}` is of single texts, found `text_pair_column: "
                f"{self.text_pair_column}`. Of pairs, end or start cut the longer text"
            )
        if self.stride and self.truncation != "windows":
            raise ValueError(f"`stride` is of `truncation: windows`, found {self.stride} with {self.truncation}")
        if self.stride >= self.max_length:
            raise ValueError(f"`stride` must be less than `max_length` ({self.max_length}), found {self.stride}")
        return self

    @model_validator(mode="after")
    def muted_codes_are_known(self) -> Self:
        unknown = next((code for code in self.mute if code not in CODES), None)
        if unknown is not None:
            known = f"Known: {', '.join(CODES)}."
            raise ValueError(
                f"`mute` names '{unknown}', which is no code of a warning{close_to(unknown, CODES)} {known}"
            )
        return self

    @cached_property
    def column(self) -> LabelColumn:
        """What the task knows of labels."""
        labels = None if self.labels is None else tuple(self.labels)
        return LabelColumn(self.label_column, labels, self.label_separator)


class Unlabelled(DataSection):
    """How texts alone are read: readers find the text again where they look for a label, and no task looks at it."""

    is_labelled: ClassVar[bool] = False


def unlabelled(data: DataSection, text_column: str, text_pair_column: str | None) -> Unlabelled:
    """These settings of reading, without those of labels."""
    of_labels = {"label_column": text_column, "label_separator": None, "labels": None, "positive_label": None}
    columns = {"text_column": text_column, "text_pair_column": text_pair_column}
    return Unlabelled.model_validate({**data.model_dump(), **of_labels, **columns, "problem_type": None})
