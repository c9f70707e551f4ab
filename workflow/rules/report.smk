"""From run folders to tables and figures: cheap rules, remade when their module changes."""


localrules:
    collect,
    table,
    figure,


rule collect:
    input:
        metrics=experiment_metrics,
        code=f"{ANALYSIS}/collect.py",
    output:
        runs=f"{RESULTS}/collected/{NAME}/{{experiment}}/runs.csv",
        history=f"{RESULTS}/collected/{NAME}/{{experiment}}/history.csv",
    log:
        f"{RESULTS}/logs/collect/{NAME}/{{experiment}}.log",
    conda:
        "../../environment.yml"
    params:
        results=results_folder,
        specs=experiment_specs,
    script:
        "../scripts/collect.py"


rule table:
    input:
        collected=table_input,
        code=f"{ANALYSIS}/tables.py",
    output:
        csv=f"{REPORTS}/tables/{{table}}.csv",
        md=f"{REPORTS}/tables/{{table}}.md",
        html=report(
            f"{REPORTS}/tables/{{table}}.html",
            category="Tables",
            caption="../report/table.rst",
            labels={"table": "{table}"},
        ),
        tex=f"{REPORTS}/tables/{{table}}.tex",
    log:
        f"{RESULTS}/logs/table/{NAME}/{{table}}.log",
    conda:
        "../../environment.yml"
    script:
        "../scripts/table.py"


rule figure:
    input:
        collected=figure_input,
        history=figure_history,
        code=[f"{ANALYSIS}/figures.py", f"{ANALYSIS}/tables.py"],
    output:
        png=f"{REPORTS}/figures/{{figure}}.png",
        svg=report(
            f"{REPORTS}/figures/{{figure}}.svg",
            category="Figures",
            caption="../report/figure.rst",
            labels={"figure": "{figure}"},
        ),
        csv=f"{REPORTS}/figures/{{figure}}.csv",
    log:
        f"{RESULTS}/logs/figure/{NAME}/{{figure}}.log",
    conda:
        "../../environment.yml"
    script:
        "../scripts/figure.py"
