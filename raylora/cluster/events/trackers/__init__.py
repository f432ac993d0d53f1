"""TensorBoard, MLflow and Weights & Biases, from the events that the driver has anyway: `train.report_to`.

`follow.Tracking` hands each event on to every tracker, each in a thread of its own: a server that is slow or gone
costs the job nothing. `points` says which numbers an event holds. A tracker is what `tracker.Tracker` says.
"""
