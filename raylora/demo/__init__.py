"""The bundled dataset: short reviews of products and services, written for raylora, and sentences to try."""

from pathlib import Path

REVIEWS = Path(__file__).parent / "reviews.jsonl"

NEW_SENTENCES = (
    "Arrived a day early and has not left my kitchen counter since.",
    "Three phone calls later I still have no refund and no explanation.",
    "I keep finding excuses to use it.",
)
