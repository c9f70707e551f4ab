from snakemake.utils import min_version

min_version("9.3")


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
        tables=TABLE_FILES,
        figures=FIGURE_FILES,
        mirror=MIRROR,


onsuccess:
    print_where_results_are()
