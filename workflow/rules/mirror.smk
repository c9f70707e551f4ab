"""MLflow: a mirror of the run folders, written by this one job and by nobody else."""


localrules:
    mirror,


rule mirror:
    input:
        metrics=[f"{RESULTS}/runs/{run}/{run_files.METRICS}" for run in RUNS],
        artifacts=[*TABLE_FILES, *FIGURE_FILES],
        code=f"{ANALYSIS}/tracking.py",
    output:
        MIRROR,
    log:
        f"{RESULTS}/logs/mirror/{NAME}.log",
    conda:
        "../../environment.yml"
    params:
        results=results_folder,
        study=NAME,
        server=MLFLOW,
        specs=study_specs,
    script:
        "../scripts/mirror.py"
