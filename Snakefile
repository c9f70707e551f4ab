import os
import sys
from pathlib import Path

from snakemake.utils import min_version

from ssvi.runs.configfile import Sources, end_if_unreadable
from ssvi.machine.extras import end_if_missing

min_version("9.27")

# What the config is made of: read here too, since Snakemake reads some of it otherwise than it looks.
CONFIG_FILES = [Path(os.path.relpath(path)) for path in workflow.overwrite_configfiles]
SETTINGS = workflow.config_settings.config_args or []
SOURCES = (
    Sources(tuple(CONFIG_FILES), tuple(SETTINGS))
    if workflow.config_settings.replace_workflow_config
    else Sources.over(Path("config.yaml"), CONFIG_FILES, SETTINGS)
)
# Before its values are used; the jobs of this workflow parse it again, but only to run one of its rules.
if workflow.is_main_process:
    end_if_missing("pipeline", "the workflow")
    end_if_unreadable(SOURCES, sys.argv[1:])


configfile: "config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/mirror.smk"


rule all:
    default_target: True
    input:
        runs=RUN_FILES,
        beside=lost_beside,
        tables=files_of("tables"),
        figures=files_of("figures"),
        collected=COLLECTED,
        report=REPORT,
        mirror=MIRROR,


rule quick:
    input:
        [path for name in STUDY["quick"] for path in files_called(name)],


onstart:
    check_cores()
    remake_records()
    start_preloaded()


onsuccess:
    print_where_results_are()


onerror:
    print_what_failed()
