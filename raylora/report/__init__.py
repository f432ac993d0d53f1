"""report.html: one page of a run, a sweep or an evaluation, out of the numbers that lie in its folder."""

from raylora.report.page import evaluation_page, run_page, sweep_page

__all__ = ["evaluation_page", "run_page", "sweep_page"]
