"""MLflow: a mirror of the run folders, brought up to date by one job; `ssvi ui` does the same while it serves."""


localrules:
    mirror,


rule mirror:
    input:
        metrics=mirror_input,
        artifacts=[*files_of("tables"), *files_of("figures"), REPORT],
        code=code("mirror.py"),
        due=mirror_due,
    output:
        MIRROR,
    log:
        f"{RESULTS}/logs/mirror/{NAME}.log",
    conda:
        "../../environment.yml"
    params:
        study=NAME,
        models=STUDY["log_models"],
        server=MLFLOW,
    script:
        "../scripts/mirror.py"
