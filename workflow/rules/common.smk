"""The study at hand as run specs, and the helpers of the other rule files."""

import atexit
import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from functools import cache
from pathlib import Path

from snakemake.common import SNAKEFILE_CHOICES
from snakemake.persistence import NO_PARAMS_CHANGE
from snakemake.settings.types import DeploymentMethod

from ssvi.machine import preload
from ssvi.runs import plugins
from ssvi.runs import files as run_files
from ssvi.analysis.address import VARIABLE, given_address
from ssvi.analysis.passwords import without_password
from ssvi.runs.changed import changed_data_sets, is_outdated
from ssvi.runs.config import (
    check_output_names,
    data_sets,
    load,
    output_experiments,
    resolve,
    study_experiments,
)
from ssvi.machine.devices import gpu_count
from ssvi.machine.disk import write_bytes
from ssvi.runs.due import to_train_anew
from ssvi.errors import UserError
from ssvi.runs.evaluated import most_samples, to_evaluate
from ssvi.runs.paths import run_path, to_flags, unique
from ssvi.runs.imports import closure
from ssvi.runs.parents import parents_of, with_parents
from ssvi.runs.plan import make_plan, to_text
from ssvi.runs.records import read_json, read_record

# Rules that take long, and that no time of a file, no edit of code and no note of Snakemake's is a reason for.
COSTLY = ("train", "evaluate", "samples", "suite")
# Of these the ones that make what a table or a figure may need of a run beside its metrics.
MEASURING = {"samples": run_files.SAMPLES, "suite": run_files.UNCERTAINTY}
# The Python that runs this workflow, or this part of it on a cluster, whether its environment is activated or not; of
# an environment that Snakemake makes for a job (--sdm conda) its own.
SSVI = (
    "ssvi"
    if DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method
    else shlex.join([sys.executable, "-m", "ssvi"])
)
# The jobs of this workflow parse it again, but only to run one of its rules.
MAIN = workflow.is_main_process


def check_names(config, where):
    """Of tables, figures and columns, which takes the code that makes them."""
    from ssvi.analysis.collect import RUN_COLUMNS
    from ssvi.analysis.figures import FIGURES
    from ssvi.analysis.tables import TABLES

    check_output_names(config, "tables", TABLES, RUN_COLUMNS, where)
    check_output_names(config, "figures", FIGURES, RUN_COLUMNS, where)


def checked_config():
    """The config, or one line about what is wrong with it and exit code 1."""
    try:
        found = load(SOURCES, check_names) if MAIN else load(SOURCES)
    except UserError as error:
        print(f"ssvi: {error}", file=sys.stderr)
        sys.exit(1)
    # what the scripts are handed over
    config.clear()
    config.update(found)
    return config


CONFIG = checked_config()
NAME = CONFIG["study"]
STUDY = resolve(CONFIG, NAME)
RESULTS, REPORTS = CONFIG["results"], f"{CONFIG['reports']}/{NAME}"
EXPERIMENTS = study_experiments(CONFIG, NAME)
RUNS = with_parents(
    unique(spec for runs in EXPERIMENTS.values() for spec in runs.values())
)
DATA_SETS = data_sets(RUNS)
DATA_OF = {
    run: name
    for name, spec in DATA_SETS.items()
    for run in RUNS
    if data_sets({run: RUNS[run]}).keys() == {name}
}

EXTENSIONS = {
    "tables": ["csv", "md", "html", "tex"],
    "figures": ["png", "svg", "pdf", "csv", "md"],
}
# A name is a target: of a figure, of a table, or of one of each.
NAMES = list(dict.fromkeys([*STUDY["quick"], *STUDY["figures"], *STUDY["tables"]]))
# Every figure and table, by kind and name, with its runs, the most telling first: quick ones, figures, tables.
OUTPUTS = {
    (kind, name): list(
        dict.fromkeys(
            run
            for experiment in output_experiments(STUDY[kind][name])
            for run in EXPERIMENTS[experiment]
        )
    )
    for name in NAMES
    for kind in ("figures", "tables")
    if name in STUDY[kind]
}
PRIORITY = {}
for position, runs_of_output in enumerate(reversed(OUTPUTS.values()), 1):
    of_output = {run: RUNS[run] for run in runs_of_output}
    PRIORITY.update(dict.fromkeys(with_parents(of_output), position))

# The runs themselves too: one whose files were lost is made again even where the tables are still there; so is what
# some outputs alone need of them (`lost_beside`).
RUN_FILES = [
    f"{RESULTS}/runs/{run}/{name}"
    for run in RUNS
    for name in (*run_files.TRAINED, run_files.METRICS, run_files.PREDICTIONS)
]
MIRROR = f"{RESULTS}/mlflow/{NAME}.json"
REPORT = f"{REPORTS}/report.html"
COLLECTED = [f"{REPORTS}/data/{name}.csv" for name in ("runs", "history")]

# Told to the commands by their environment: as params they would train everything again when they change.
DATA_ROOT = CONFIG["data_root"]
os.environ.update(
    SSVI_DATA=DATA_ROOT,
    SSVI_CHECKPOINT_SECONDS=str(CONFIG.get("checkpoint_seconds", 60)),
    SSVI_FOLLOW_LINKS=str(CONFIG.get("follow_links", False)).lower(),
    SSVI_PLUGINS=",".join(CONFIG.get("plugins", [])),
)
# Another MLflow server is to be filled as well; its password is nobody's business.
MLFLOW = without_password(os.environ.get(VARIABLE, "").strip())
ROOT = Path(os.path.relpath(workflow.basedir))


def is_to_run():
    """Whether this is a run, dry or not, that builds its graph: --unlock, --list and --summary train nothing."""
    return MAIN and workflow.executor_plugin is not None


@cache
def changed_images():
    """The data sets of this study whose images are not those that its runs were trained, or evaluated, on."""
    return changed_data_sets(Path(RESULTS), RUNS, Path(DATA_ROOT))


@cache
def check_images():
    """End with a line for each data set whose images are not those that runs of this study were trained on."""
    if not is_to_run():
        return
    lines = [
        f"{one}; bring those files back, or move these run folders, in {RESULTS}/runs, away to train on the "
        "present ones."
        for one in changed_images()
        if not one.is_of_tests
    ]
    if lines:
        print(*(f"ssvi: {line}" for line in lines), sep="\n", file=sys.stderr)
        sys.exit(1)


def mirror_input(wildcards):
    """All that is mirrored; before anything is trained for it, whether there can be a mirror where it is to be."""
    if is_to_run():
        try:
            given_address()
        except UserError as error:
            print(f"ssvi: {error}", file=sys.stderr)
            sys.exit(1)
    return metrics_of(RUNS)


GPUS = gpu_count()
# So many runs at once on this machine (on a cluster, its scheduler gives out GPUs), unless --resources gpu=N says
# otherwise; which GPU a run takes is found out when it starts.
if MAIN and GPUS and workflow.nodes is None and "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", GPUS * CONFIG.get("runs_per_gpu", 1))
# On a CPU the runs of a study share the cores best as one thread a run; a study with fewer runs than
# cores gives each more, unless the config says how many, since last digits and times depend on that. On a GPU the
# threads only feed it.
CORES = workflow.resource_settings.cores
TRAIN_THREADS = 2 if GPUS else CONFIG.get("threads", max(1, (CORES or 1) // len(RUNS)))


wildcard_constraints:
    run=r".+/seed=\d+",
    dataset=r"[^/]+",
    table=r"[^/]+",
    figure=r"[^/]+",


def output_files(kind, name):
    return [f"{REPORTS}/{kind}/{name}.{ext}" for ext in EXTENSIONS[kind]]


def files_of(kind):
    return [path for name in STUDY[kind] for path in output_files(kind, name)]


def files_called(name):
    """The files of a target."""
    return [
        path for kind, one in OUTPUTS if one == name for path in output_files(kind, one)
    ]


def run_flags(wildcards):
    """What `ssvi train` is told: only what differs from the defaults, so a new option retrains nothing."""
    return shlex.join(to_flags(RUNS[wildcards.run]))


def train_input(wildcards):
    """The record of the data, and the files of the runs that this one starts from, which are trained first and once.

    Once it is trained, what it was trained from may be lost: that is made again for itself, if at all.
    """
    check_images()
    check_outside()
    run = wildcards.run
    if run not in RUNS:
        raise WorkflowError(f"{run} is no run of study {NAME}.")
    files = [f"{RESULTS}/data/{DATA_OF[run]}.json"] + [
        f"{RESULTS}/runs/{run_path(parent)}/{name}"
        for parent in parents_of(RUNS[run])
        for name in (run_files.MODEL, run_files.TRAINING)
    ]
    if run in TRAIN_ANEW:
        workflow.dag.forcefiles.add(f"{RESULTS}/runs/{run}/{run_files.MODEL}")
    kept = run_files.is_trained(Path(RESULTS, "runs", run)) and not is_trained_anew(run)
    return untimed(run, [path for path in files if os.path.exists(path) or not kept])


def trained_input(wildcards):
    """What a training publishes: whatever is made of it is made anew if that one is."""
    return untimed(wildcards.run, trained_files(wildcards.run))


def evaluated_input(wildcards):
    """The same, and what an evaluation adds to it: how it was made, and not when, tells whether that is to be anew.

    Snakemake asks no job for reasons of its own that comes after one that is due, if all between them is ancient.
    """
    run, folder = wildcards.run, run_folder(wildcards)
    files = [f"{folder}/{name}" for name in (run_files.METRICS, run_files.PREDICTIONS)]
    dag = workflow.dag
    anew = (
        is_made_anew(run, run_files.METRICS)
        or any(rule.name == "evaluate" for rule in dag.forcerules)
        or not dag.forcefiles.isdisjoint(files)
    )
    made = files if anew else untimed(run, files)
    return untimed(run, trained_files(run)) + made


def outside_flags():
    """The folders of images of no class that the suite is told of."""
    folders = CONFIG["evaluation"].get("outside", [])
    return shlex.join(f"--outside={folder}" for folder in folders)


def trained_files(run):
    return [f"{RESULTS}/runs/{run}/{name}" for name in run_files.TRAINED]


def is_trained_anew(run):
    """Whether it is trained though its files are there: for what is in them, or because Snakemake is told to."""
    dag = workflow.dag
    return (
        run in TRAIN_ANEW
        or any(rule.name == "train" for rule in dag.forcerules)
        or not dag.forcefiles.isdisjoint(trained_files(run))
    )


def untimed(run, files):
    """Inputs of a costly job, whose times mean nothing: they depend on how and in which order files were copied."""
    let_content_decide(workflow.dag)
    return files if is_trained_anew(run) else [ancient(path) for path in files]


@cache
def let_content_decide(dag):
    """What is due is asked of the files themselves: Snakemake shall have no reasons of its own beside that.

    It would train again where its notes (in .snakemake) of options, input files or code differ, or where they say that
    a training was cut off, which has since gone on; and it fails jobs whose input is of the future.
    """
    notes = dag.workflow.persistence
    nothing = {
        "has_metadata": True,
        "params_changed": NO_PARAMS_CHANGE,
    } | dict.fromkeys(("input_changed", "code_changed", "software_stack_changed"), ())
    for name, answer in nothing.items():
        setattr(notes, name, unless_costly(getattr(notes, name), answer))
    incomplete = notes.incomplete

    async def incomplete_files(job):
        return [] if job.rule.name == "train" else await incomplete(job)

    async def any_time(job, files):
        pass

    notes.incomplete = incomplete_files
    dag.check_output_mtime = any_time


def unless_costly(ask, answer):
    """The same question about a job, with this answer for the costly ones."""

    def answered(job, *more, **options):
        return answer if job.rule.name in COSTLY else ask(job, *more, **options)

    return answered


def licence_flag():
    """What `ssvi evaluate` is told of it; a run that is evaluated keeps what it was told."""
    given = [f"--licence={CONFIG['licence']}"] if "licence" in CONFIG else []
    return shlex.join(given)


def run_folder(wildcards):
    return f"{RESULTS}/runs/{wildcards.run}"


def run_priority(wildcards):
    """Runs of the most telling outputs first."""
    return PRIORITY.get(wildcards.run, 0)


def data_flags(wildcards):
    return shlex.join(data_words(DATA_SETS[wildcards.dataset]))


def data_words(spec):
    size = (
        ["--image-size", str(spec.image_size)]
        if spec.dataset.startswith("folder:")
        else []
    )
    download = ["--download"] if CONFIG.get("download", False) else []
    return [spec.dataset, *size, *download]


def code(script):
    """The files that a cheap step is made anew for when one changes: its script, all that this imports, and plugins."""

    # told when the rule is looked at, which most jobs of this workflow, parsing it again, never do
    def input_code(wildcards):
        let_content_decide(workflow.dag)
        path = ROOT / "workflow" / "scripts" / script
        return [str(found) for found in (*closure(path, ROOT), *plugins.files())]

    return input_code


def metrics_of(runs):
    return [f"{RESULTS}/runs/{run}/{run_files.METRICS}" for run in runs]


@cache
def needed_beside(output):
    """The files, of those that some outputs alone need of their runs, that an output needs."""
    from ssvi.analysis.figures import needs
    from ssvi.analysis.tables import TABLES

    kind, name = output
    frames = TABLES[name].needs if kind == "tables" else needs(name)
    return [file for file in MEASURING.values() if Path(file).stem in frames]


@cache
def measured(file):
    """The runs of which some output needs this file."""
    return {
        run
        for output, runs in OUTPUTS.items()
        if file in needed_beside(output)
        for run in runs
    }


def lost_beside(wildcards):
    """What some output needs of its runs beside their metrics: made again if it was lost."""
    return [
        f"{RESULTS}/runs/{run}/{file}"
        for file in MEASURING.values()
        for run in sorted(measured(file))
    ]


@cache
def check_outside():
    """End with a line for each folder of images from outside that is not there, before anything is trained."""
    folders = CONFIG["evaluation"].get("outside", [])
    missing = [
        one
        for one in folders
        if not Path(one.partition("folder:")[2]).expanduser().is_dir()
    ]
    names = [run_files.outside_name(one) for one in folders]
    said = [f"{one}: no such folder." for one in missing]
    said += [
        f"two folders are called {one}; give one of them another name."
        for one in sorted({one for one in names if names.count(one) > 1})
    ]
    if is_to_run() and said and measured(run_files.UNCERTAINTY):
        print(
            *(f"ssvi: evaluation.outside: {one}" for one in said),
            sep="\n",
            file=sys.stderr,
        )
        sys.exit(1)


def used_beside(output):
    """The same files, of the runs of which they are made for other outputs, of an output that shows them if they are
    there."""
    from ssvi.analysis.tables import TABLES

    kind, name = output
    frames = TABLES[name].uses if kind == "tables" else ()
    return [file for file in MEASURING.values() if Path(file).stem in frames]


def output_input(kind, name):
    """What an output is made of: the metrics of its runs, and what else it needs of them."""
    output, runs = (kind, name), OUTPUTS[kind, name]
    beside = [(file, runs) for file in needed_beside(output)]
    beside += [
        (file, [run for run in runs if run in measured(file)])
        for file in used_beside(output)
    ]
    return metrics_of(runs) + [
        f"{RESULTS}/runs/{run}/{file}" for file, of in beside for run in of
    ]


def table_input(wildcards):
    return output_input("tables", wildcards.table)


def figure_input(wildcards):
    return output_input("figures", wildcards.figure)


def say_anew(done, said):
    """A line about what is there and will be made again."""
    if said:
        more = f"; and {len(said) - 3} more" if len(said) > 3 else ""
        line = f"{done} anew where they are needed, {len(said)} in all: {'; '.join(said[:3])}{more}."
        print(f"ssvi: {line}", file=sys.stderr)


def trained_otherwise():
    """The runs that are to be trained anew for what is in their files, each said with its cause."""
    found = to_train_anew(Path(RESULTS), RUNS)
    say_anew("trained", [f"{run} {cause}" for run, cause in found.items()])
    return found


def made_otherwise():
    """What was made of another training, or evaluated otherwise than the config says, each said with its cause."""
    needed = {file: measured(file) for file in MEASURING.values()}
    found = to_evaluate(Path(RESULTS), RUNS, needed, CONFIG["evaluation"])
    say_anew("made", [f"{run}/{name} {cause}" for (run, name), cause in found.items()])
    return found


@cache
def tested_otherwise():
    """The runs that were evaluated on other test images than there are now, said in a line for each data set."""
    found = [one for one in changed_images() if one.is_of_tests] if is_to_run() else []
    for one in found:
        print(f"ssvi: {one.remedy}", file=sys.stderr)
    return {run for one in found for run in one.runs}


TRAIN_ANEW = trained_otherwise() if MAIN else {}
OTHERWISE = made_otherwise() if MAIN else {}


def is_made_anew(run, name):
    """Whether this file of a run was made otherwise than it would be now."""
    return (run, name) in OTHERWISE or run in tested_otherwise()


def due_again(name):
    """No input, but a job that makes this file of a run is due if that was made otherwise, whatever its time."""

    # told when the graph is built, of the runs that are needed; before it is asked which jobs are due
    def input_due(wildcards):
        if is_made_anew(wildcards.run, name):
            workflow.dag.forcefiles.add(f"{run_folder(wildcards)}/{name}")
        return []

    return input_due


def figure_content(wildcards):
    """The axes of a figure that config.yaml describes; other figures are described by their code."""
    content = STUDY["figures"][wildcards.figure]
    return content if isinstance(content, dict) else {}


def remake_records():
    """Before anything is trained or evaluated on images that no run was, their record is made to be of them.

    Not by its job: where that is due, Snakemake leaves out the trainings that need its file, which is ancient to them.
    """
    needed = {
        DATA_OF[job.wildcards.run]
        for job in workflow.dag.needrun_jobs()
        if job.rule.name in COSTLY
    }
    for name in sorted(needed):
        record = Path(RESULTS, "data", f"{name}.json")
        if is_outdated(record, DATA_SETS[name].dataset, Path(DATA_ROOT)):
            words = ["data", "--root", DATA_ROOT, *data_words(DATA_SETS[name])]
            done = subprocess.run(
                [sys.executable, "-m", "ssvi", *words], stdout=subprocess.PIPE
            )
            # what went wrong is said, and again by the trainings
            if not done.returncode:
                write_bytes(record, done.stdout)


def check_cores():
    """Refuse fewer cores than a training is to have threads, which Snakemake would give it in silence."""
    if not GPUS and CORES is not None and CONFIG.get("threads", 1) > CORES:
        print(
            f"ssvi: threads is {TRAIN_THREADS} in the config, but --cores is {CORES}; give as many cores or more.",
            file=sys.stderr,
        )
        sys.exit(1)


# What the server of preloaded processes may take to end.
STOP_SECONDS = 10


def start_preloaded():
    """Short local trainings would spend more time on importing torch than on anything else."""
    jobs = sum(job.rule.name in COSTLY for job in workflow.dag.needrun_jobs())
    if jobs < 2 or not workflow.local_exec:
        return
    path = preload.socket_path()
    # It ends when this end of its standard input does, however this process ends; the terminal's signals are
    # for the jobs, so it has a session of its own.
    server = subprocess.Popen(
        [sys.executable, "-m", "ssvi", "preload", path],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    os.environ[preload.SOCKET] = path
    atexit.register(stop_preloaded, server, path)


def stop_preloaded(server, path):
    server.stdin.close()
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        # stopped by a signal, say; there is no job left that it could serve
        server.kill()
        server.wait()
    shutil.rmtree(Path(path).parent)


def print_plan():
    """Of a dry run, by the jobs of its graph: what Snakemake would do. There is none where the graph failed."""
    if not workflow.dryrun or workflow.scheduler is None:
        return
    jobs = {True: defaultdict(list), False: defaultdict(list)}
    for job in workflow.dag.jobs:
        jobs[workflow.dag.needrun(job)][job.rule.name].append(job.wildcards)
    due = {rule: {w.run for w in jobs[True][rule]} for rule in COSTLY}
    asked = {
        (f"{kind}s", w.get(kind))
        for kind in ("table", "figure")
        for some in jobs.values()
        for w in some[kind]
    }
    runs = {w.run for some in jobs.values() for rule in COSTLY for w in some[rule]}
    called = [name for _, name in OUTPUTS]
    shown, to_measure = {}, {}
    for output in (one for one in OUTPUTS if one in asked):
        kind, name = output
        title = name if called.count(name) == 1 else f"{name} ({kind[:-1]})"
        shown[title] = OUTPUTS[output]
        to_measure[title] = {
            run
            for rule, file in MEASURING.items()
            if file in needed_beside(output)
            for run in due[rule]
        } & {*OUTPUTS[output]}
    plan = make_plan(
        Path(RESULTS),
        shown,
        {run: spec for run, spec in RUNS.items() if run in runs},
        due["train"],
        due["evaluate"],
        to_measure,
    )
    print(f"\n{to_text(NAME, plan)}")


if MAIN:
    # Whether this is a dry run is only known once the workflow is executed.
    atexit.register(print_plan)


def typed(command, *words):
    """A command as it works from the folder where this workflow was started, on the config that it was started with."""
    settings = [word for word in SETTINGS if word.partition("=")[0] != "study"]
    files = list(map(str, CONFIG_FILES))
    alone = workflow.config_settings.replace_workflow_config
    if command == "snakemake":
        settings.append(f"study={NAME}")
        snakefile = os.path.relpath(workflow.main_snakefile)
        words += (
            ()
            if Path(snakefile) in map(Path, SNAKEFILE_CHOICES)
            else ("--snakefile", snakefile)
        )
        words += ("--replace-workflow-config",) * alone
    elif alone:
        settings, files = [*files[:1], *settings], files[1:]
    for flag, values in (("--configfile", files), ("--config", settings)):
        words += (flag, *values) if values else ()
    moved = workflow.overwrite_workdir is not None
    here = f"cd {shlex.quote(os.getcwd())} && " * moved
    return f"{here}{program(command)} {shlex.join(words)}"


def program(name):
    """A program of this environment: by its name where that finds it, else by its place."""
    place, found = Path(sys.executable).with_name(name), shutil.which(name)
    if not place.exists():
        return shlex.join([sys.executable, "-m", name])
    return name if found and os.path.samefile(found, place) else shlex.quote(str(place))


def print_where_results_are():
    status = {run: run_status(run) for run in RUNS}
    done = sum(found != "missing" for found in status.values())
    said = [f"Study {NAME}: {done} of {len(RUNS)} runs are trained, in {RESULTS}/runs"]
    said += [
        f"  diverged: {run}" for run, found in status.items() if found == "diverged"
    ]
    said += refused_runs()
    said += [f"  tables and figures   {REPORTS}/tables, {REPORTS}/figures"]
    if Path(REPORT).exists():
        said += [
            f"  HTML report          {REPORT}",
            "  of the workflow      "
            + typed("snakemake", "--report", f"{REPORTS}/workflow.html"),
        ]
    else:
        said += [report_so_far()]
    said += [
        f"  MLflow UI            {typed('ssvi', 'ui')}",
        "                       (then open http://127.0.0.1:5000)",
    ]
    print("", *said, *mirror_warning(), sep="\n", file=sys.stderr)


def report_so_far():
    return f"  report so far        {typed('ssvi', 'report', '--study', NAME)}"


def refused_runs():
    """Runs that tables and figures leave out because of what is in their folders, by the runs as collected."""
    path = Path(COLLECTED[0])
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["status"] == "refused"]
    return [f"  refused: {row['cause']}" for row in rows]


def print_what_failed():
    done = sum(run_status(run) != "missing" for run in RUNS)
    said = [
        f"Study {NAME}: {done} of {len(RUNS)} runs are trained; the same command goes on from here.",
        f"  logs                 {RESULTS}/logs",
        report_so_far(),
    ]
    print("", *said, *mirror_warning(), sep="\n", file=sys.stderr)


def mirror_error():
    """Why the mirror could not be brought up to date, by its record; None if it was, or was not tried."""
    path = Path(MIRROR)
    try:
        record = read_json(path) if path.exists() else {}
    except UserError as error:
        return str(error)
    return record.get("error") if isinstance(record, dict) else f"{path}: no record"


def mirror_warning():
    error = mirror_error()
    catch_up = "The same command, or ssvi ui, catches up; the run folders have it all."
    return (
        [f"ssvi: warning: the mirror is not up to date. {error}. {catch_up}"]
        if error
        else []
    )


def mirror_due(wildcards):
    """No input, but the job is due where its record says that the mirror is not up to date."""
    if mirror_error():
        workflow.dag.forcefiles.add(MIRROR)
    return []


def run_status(run):
    path = Path(RESULTS, "runs", run, run_files.TRAINING)
    try:
        return read_record(path, status=str)["status"]
    except UserError:
        return "missing"  # or damaged, which is said by the job that needs it
