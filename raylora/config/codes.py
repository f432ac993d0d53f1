"""The codes of warnings about data. A code keeps its meaning for good: it is muted, looked up and grepped for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """`name` is the heading of the code's section in docs/data.md."""

    name: str
    meaning: str


CODES = {
    "D001": Code("Rows that cannot be used", "Rows have no text, no label, or are broken."),
    "D002": Code("Duplicates", "At least 1 % of a split's rows repeat another row, text and label."),
    "D003": Code(
        "Equal texts with other labels", "Texts stand in a split more than once, in rows of different labels."
    ),
    "D004": Code("Leaks", "Texts of validation or test stand in train too."),
    "D005": Code("Cut texts", "More than 5 % of the train texts are longer than `data.max_length`."),
    "D006": Code("Labels with very few rows", "Labels have fewer than 10 train rows."),
    "D007": Code("Missing labels", "A label has no row in train, or none in validation."),
    "D008": Code("Lopsided labels", "The commonest label has at least 10 times the train rows of the rarest."),
    "D009": Code("Texts without a token", "The tokenizer of the base sees nothing in texts that are not blank."),
    "D010": Code("Scripts that the base hardly knows", "Texts are in letters of which its vocabulary has few pieces."),
    "D011": Code(
        "Unused files",
        "Files in a folder of `data.train` are named for a split that the job does not name, or for none beside such.",
    ),
    "D012": Code("Labels that look alike", "Labels differ by case, white space or Unicode form only."),
}
