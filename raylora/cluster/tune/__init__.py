"""A sweep: Ray Tune decides, workers of our own train, and a broker stands between them.

One trial, step by step:

1. `sweep` reads and tokenizes the rows once and loads each base once (`shared_base`), starts the workers and their
   broker (`pool`), and runs Ray Tune with a light `trainable` for each trial.
2. The trainable makes a `TrialRequest` of its sample, with its last checkpoint where there is one, and queues it at the
   `broker`: one attempt, with an id of its own.
3. A `worker` that is free takes as many requests of one key as fit in its slots, and trains them packed over one base
   (`model.bank`); a request without a key it trains alone (`model.fit`).
4. After each epoch the worker posts a `Report` of every trial, metrics and checkpoint, to the broker.
5. The trainable, which waits for it, hands it to Ray Tune. The scheduler decides, and remembers through a kill
   (`schedulers`): the trainable asks for the next report, which says that the trial goes on, or it is ended, and
   leaves. Where a worker hands a trial back, it queues it again from this report.
6. The worker asks the broker for these decisions, drops the trials that ended, and fills their slots with new requests.
7. The driver takes the broker's events every half second: printed, kept in history.jsonl, shown as metrics (`events`).
8. When all trials have ended, `conclude` ranks them, scores the winner's adapter on the test split, and saves it.

Meanwhile more workers start, and more trials at once, where there is room for them (`growth`). A broker that is killed
is started anew: it knows no attempt, says so to whoever asks, and their trials are queued again.

Trials of several workers (`nested`) are Ray Train runs of their own, and pass neither broker nor pool.
"""
