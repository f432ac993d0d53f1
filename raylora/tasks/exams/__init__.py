"""What an evaluation asks of a task beyond its scores: all that differs between tasks there."""

from raylora.tasks.answers import ProblemType
from raylora.tasks.exams.exam import Claims, Exam, Group
from raylora.tasks.exams.multi_label import MultiLabelExam
from raylora.tasks.exams.regression import RegressionExam
from raylora.tasks.exams.single_label import SingleLabelExam
from raylora.tasks.task import Task

__all__ = ["Claims", "Exam", "Group", "exam_of"]

EXAMS: dict[ProblemType, type[Exam]] = {
    "single_label_classification": SingleLabelExam,
    "multi_label_classification": MultiLabelExam,
    "regression": RegressionExam,
}


def exam_of(task: Task) -> Exam:
    return EXAMS[task.problem_type](task)
