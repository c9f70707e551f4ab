"""A trial of the trainer on a GPU within a time limit: what it computes is checked, then what it costs, then trained.

`python -m benchmarks.gpu` (`__main__.py`) plays the jobs that `plan.py` lists, each a process of its own with a limit
(`running.py`). What a job does stands in `checks.py`, `draws.py`, `agreement.py`, `commands.py` and `figures.py`, by
name in `job.py`; `record.py` says what is written of all of it.
"""
