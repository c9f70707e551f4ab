"""From run folders to tables, figures and the report: cheap rules, remade when what their scripts import changes."""


localrules:
    collect,
    table,
    figure,
    report,


# Every output is a target by its name: snakemake --cores all table1
for name in NAMES:

    rule:
        name:
            name
        input:
            files_called(name),
        localrule: True


rule table:
    input:
        metrics=table_input,
        code=code("table.py"),
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
    priority: 1000
    conda:
        "../../environment.yml"
    params:
        study=NAME,
    script:
        "../scripts/table.py"


rule figure:
    input:
        metrics=figure_input,
        code=code("figure.py"),
    output:
        png=f"{REPORTS}/figures/{{figure}}.png",
        svg=report(
            f"{REPORTS}/figures/{{figure}}.svg",
            category="Figures",
            caption="../report/figure.rst",
            labels={"figure": "{figure}"},
        ),
        pdf=f"{REPORTS}/figures/{{figure}}.pdf",
        csv=f"{REPORTS}/figures/{{figure}}.csv",
        md=f"{REPORTS}/figures/{{figure}}.md",
    log:
        f"{RESULTS}/logs/figure/{NAME}/{{figure}}.log",
    priority: 1000
    conda:
        "../../environment.yml"
    params:
        study=NAME,
        content=figure_content,
    script:
        "../scripts/figure.py"


rule collect:
    input:
        metrics=metrics_of(RUNS),
        code=code("collect.py"),
    output:
        COLLECTED,
    log:
        f"{RESULTS}/logs/collect/{NAME}.log",
    conda:
        "../../environment.yml"
    params:
        study=NAME,
    script:
        "../scripts/collect.py"


rule report:
    input:
        metrics=metrics_of(RUNS),
        tables=files_of("tables"),
        figures=files_of("figures"),
        code=code("report.py"),
    output:
        REPORT,
    log:
        f"{RESULTS}/logs/report/{NAME}.log",
    conda:
        "../../environment.yml"
    params:
        study=NAME,
        content=STUDY,
    script:
        "../scripts/report.py"
