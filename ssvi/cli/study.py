"""`ssvi report`, `ssvi ui` and `ssvi register`: the runs of a study, as they are now or as they train."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ssvi.cli.arguments import add_config_options, config_sources, to_path, to_whole
from ssvi.errors import UserError, say, unknown
from ssvi.runs import plugins


def add_report(commands: Any) -> None:
    """Tables, figures and report of the runs so far."""
    report = commands.add_parser("report", help="make a study's tables, figures and HTML report from the runs so far")
    add_config_options(report)
    report.add_argument("--study", help="default: the study that the config names")
    report.set_defaults(run=_report)


def _report(given: argparse.Namespace) -> None:
    from ssvi.runs.changed import changed_data_sets
    from ssvi.runs.config import load, resolve, study_experiments, study_runs

    root, sources = config_sources(given)
    plugins.look_in(root)
    config = load(sources)
    study = given.study or config["study"]
    if study not in config["studies"]:
        raise unknown("study", study, config["studies"], "--study")
    from ssvi.analysis.report.make import make_all

    results = root / config["results"]
    path = make_all(
        results,
        root / config["reports"] / study / "so_far",
        study,
        resolve(config, study),
        study_experiments(config, study),
        say=say,
        changed=changed_data_sets(results, study_runs(config, study), root / config["data_root"], root),
        evaluation=config["evaluation"],
    )
    say(path, sys.stdout)


def add_ui(commands: Any) -> None:
    """The pages of MLflow."""
    ui = commands.add_parser("ui", help="mirror all runs to MLflow as they train, and serve its pages")
    add_config_options(ui)
    ui.add_argument("--host", default="127.0.0.1", help="address to listen on; any other opens it to your network")
    ui.add_argument("--port", type=to_whole, default=5000, help="default: 5000")
    ui.set_defaults(run=_ui)


def _ui(given: argparse.Namespace) -> None:
    from ssvi.analysis import tracking
    from ssvi.runs.config import load, resolve, study_runs

    root, sources = config_sources(given)
    plugins.look_in(root)

    def plan() -> tracking.Plan:
        config = load(sources)
        studies = {s: (study_runs(config, s), root / config["reports"] / s) for s in config["studies"]}
        models = [study for study in studies if resolve(config, study)["log_models"]]
        return tracking.Plan(root / config["results"], studies, config["study"], models)

    sys.exit(tracking.serve(sources.files, plan, given.host, given.port))


def add_register(commands: Any) -> None:
    """A network under a name."""
    register = commands.add_parser("register", help="put a run's network into MLflow's registry, ready to be served")
    register.add_argument("folder", type=to_path, help="run folder")
    register.add_argument("name", help="of the model in the registry")
    add_config_options(register)
    register.set_defaults(run=_register)


def _register(given: argparse.Namespace) -> None:
    from ssvi.runs.config import load, study_runs
    from ssvi.runs.runfolder import read_spec

    root, sources = config_sources(given)
    plugins.look_in(root)
    config = load(sources)
    results = root / config["results"]
    read_spec(given.folder)
    try:
        run = given.folder.resolve().relative_to((results / "runs").resolve()).as_posix()
    except ValueError:
        raise UserError(f"{given.folder}: is not in {results / 'runs'}, the runs of this config.") from None
    for study in dict.fromkeys([config["study"], *config["studies"]]):
        if run in (specs := study_runs(config, study)):
            break
    else:
        raise UserError(
            f"{given.folder}: is a run of no study of this config, and so in no MLflow experiment; name the file that "
            "has its study: --configfile FILE."
        )
    from ssvi.analysis import tracking

    version = tracking.register(results, study, specs, run, given.name)
    say(f"ssvi register: {given.name} version {version} (models:/{given.name}/{version}): {given.folder}", sys.stdout)
