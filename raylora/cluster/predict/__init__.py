"""Batch scoring: a table of texts through adapters, each part of it once.

    list_sources    the files, as training finds them
    survey          all rows are read once: bad ones, the columns' types, how many there are; each file's digest
    plan            what all that comes to, kept as predict.json: what is scored, by what, in which parts
    scorer          an actor of Ray Data's pool reads a part, predicts and writes it whole, then a mark that it is done
    job             what has no mark is scored; at the end `_SUCCESS`

A part is named by its number, its file and its place in that. Whoever scores it writes the same bytes, so that a part
that is scored twice, by an actor that was taken for lost, does no harm.
"""
