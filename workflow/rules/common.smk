"""The study at hand as run specs, and the helpers of the other rule files."""

import os
import re
import shlex
import sys
from pathlib import Path

from ssvi import runs as run_files
from ssvi.config import (
    check_config,
    check_output_names,
    data_sets,
    experiment_runs,
    study_runs,
)
from ssvi.devices import gpu_count
from ssvi.errors import UserError
from ssvi.spec import non_defaults, to_flags


def checked_config():
    """The config, or one line about what is wrong with it and exit code 1."""
    where = ", ".join(str(Path(f).name) for f in workflow.configfiles) or "--config"
    try:
        check_config(config, where)
        if workflow.is_main_process:
            from ssvi.analysis.figures import FIGURES
            from ssvi.analysis.tables import TABLES

            check_output_names(config, "tables", TABLES, where)
            check_output_names(config, "figures", FIGURES, where)
    except UserError as error:
        print(f"ssvi: {error}", file=sys.stderr)
        sys.exit(1)
    return config


CONFIG = checked_config()
NAME = CONFIG["study"]
STUDY = CONFIG["studies"][NAME]
RESULTS, REPORTS = CONFIG["results"], f"{CONFIG['reports']}/{NAME}"
EXPERIMENTS = {e: experiment_runs(CONFIG, NAME, e) for e in STUDY["experiments"]}
RUNS = study_runs(CONFIG, NAME)
DATA_SETS = data_sets(RUNS)
DATA_OF = {
    run: name
    for name, spec in DATA_SETS.items()
    for run in RUNS
    if data_sets({run: RUNS[run]}).keys() == {name}
}

TABLE_FILES = expand(
    f"{REPORTS}/tables/{{table}}.{{ext}}",
    table=STUDY.get("tables", {}),
    ext=["csv", "md", "html", "tex"],
)
FIGURE_FILES = expand(
    f"{REPORTS}/figures/{{figure}}.{{ext}}",
    figure=STUDY.get("figures", {}),
    ext=["png", "svg", "csv"],
)
# The runs themselves too: one whose files were lost is made again even where the tables are still there.
RUN_FILES = [
    f"{RESULTS}/runs/{run}/{name}"
    for run in RUNS
    for name in (run_files.MODEL, run_files.METRICS)
]
MIRROR = f"{RESULTS}/mlflow/{NAME}.json"

# Told to the commands by their environment: as a param it would train everything again when the data move.
DATA_ROOT = CONFIG["data_root"]
os.environ.update(SSVI_DATA=DATA_ROOT)
# Another MLflow server is to be filled as well; its password is nobody's business.
MLFLOW = os.environ.get("MLFLOW_TRACKING_URI", "").rpartition("@")[2]
ANALYSIS = os.path.relpath(Path(workflow.basedir) / "ssvi" / "analysis")

GPUS = gpu_count()
# On a CPU the runs of a study share the cores best as one thread a run; a study with fewer runs than
# cores gives each more. On a GPU the threads only feed it.
TRAIN_THREADS = (
    2 if GPUS else max(1, (workflow.resource_settings.cores or 1) // len(RUNS))
)


wildcard_constraints:
    run="|".join(map(re.escape, RUNS)),
    dataset=r"[^/]+",
    experiment=r"[^/]+",
    table=r"[^/]+",
    figure=r"[^/]+",


def run_flags(wildcards):
    """What `ssvi train` is told: only what differs from the defaults, so a new option retrains nothing."""
    return shlex.join(to_flags(RUNS[wildcards.run]))


def run_data(wildcards):
    return f"{RESULTS}/data/{DATA_OF[wildcards.run]}.json"


def data_flags(wildcards):
    spec = DATA_SETS[wildcards.dataset]
    size = (
        ["--image-size", str(spec.image_size)]
        if spec.dataset.startswith("folder:")
        else []
    )
    download = ["--download"] if CONFIG.get("download", False) else []
    return shlex.join([spec.dataset, *size, *download])


def experiment_metrics(wildcards):
    return [
        f"{RESULTS}/runs/{run}/metrics.json"
        for run in EXPERIMENTS[wildcards.experiment]
    ]


def experiment_specs(wildcards):
    return {
        run: non_defaults(spec)
        for run, spec in EXPERIMENTS[wildcards.experiment].items()
    }


def study_specs(wildcards):
    return {run: non_defaults(spec) for run, spec in RUNS.items()}


def results_folder(wildcards):
    return RESULTS


def run_folder(wildcards):
    return f"{RESULTS}/runs/{wildcards.run}"


def collected(experiments, kind="runs"):
    return [f"{RESULTS}/collected/{NAME}/{e}/{kind}.csv" for e in experiments]


def table_input(wildcards):
    return collected(STUDY["tables"][wildcards.table])


def figure_input(wildcards):
    return collected(STUDY["figures"][wildcards.figure])


def figure_history(wildcards):
    return collected(STUDY["figures"][wildcards.figure], "history")


def print_where_results_are():
    diverged = [run for run in RUNS if run_status(run) == "diverged"]
    print(f"\nStudy {NAME}: {len(RUNS)} runs in {RESULTS}/runs", file=sys.stderr)
    for run in diverged:
        print(f"  diverged: {run}", file=sys.stderr)
    print(
        f"  tables and figures   {REPORTS}/tables, {REPORTS}/figures", file=sys.stderr
    )
    print(
        f"  HTML report          snakemake --config study={NAME} --report {REPORTS}/report.html",
        file=sys.stderr,
    )
    print(
        "  MLflow UI            ssvi ui    (then open http://127.0.0.1:5000)",
        file=sys.stderr,
    )


def run_status(run):
    path = Path(RESULTS, "runs", run, run_files.TRAINING)
    return run_files.read_json(path)["status"] if path.exists() else "missing"
