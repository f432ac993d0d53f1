"""The bundled dataset: short reviews of products and services, written for raylora, and sentences to try."""

from pathlib import Path

REVIEWS = Path(__file__).parent / "reviews.jsonl"

NEW_SENTENCES = (
    "Beautifully made, and a pleasure to use every day.",
    "Three phone calls later I still have no refund and no explanation.",
    "I keep finding excuses to use it.",
)
