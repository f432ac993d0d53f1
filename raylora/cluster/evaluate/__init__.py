"""Adapters on labelled rows, in this process.

subjects.py   the adapters by their manifests; are they of one task and the same labels?
rows.py       which rows: those that a run held out, or others, with their labels and columns
answers.py    an adapter loaded, and its logits, with progress
job.py        all of it, in order
output.py     the folder that a record is written to
"""
