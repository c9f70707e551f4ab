import sys

from snakemake.utils import min_version

from ssvi.configfile import end_if_unreadable

min_version("9.27")

# Before its values are used; the jobs of this workflow parse it again, but only to run one of its rules.
if workflow.is_main_process:
    end_if_unreadable(
        ["config.yaml", *workflow.overwrite_configfiles],
        workflow.config_settings.config_args or [],
        sys.argv[1:],
    )


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
        tables=files_of("tables"),
        figures=files_of("figures"),
        collected=COLLECTED,
        report=REPORT,
        mirror=MIRROR,


rule quick:
    input:
        [path for name in STUDY["quick"] for path in output_files(name)],


onstart:
    check_cores()
    remake_records()
    start_preloaded()


onsuccess:
    print_where_results_are()


onerror:
    print_what_failed()
