"""Data, training, evaluation: the costly rules, as shell commands, so that editing code retrains nothing."""


rule data:
    output:
        f"{RESULTS}/data/{{dataset}}.json",
    log:
        f"{RESULTS}/logs/data/{{dataset}}.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        ssvi=SSVI,
        flags=data_flags,
        root=DATA_ROOT,
    shell:
        "{params.ssvi} data {params.flags} --root {params.root:q} > {output:q} 2> {log:q} || (cat {log:q} >&2; exit 1);"
        " cat {log:q} >&2"


rule train:
    input:
        train_input,
    output:
        [f"{RESULTS}/runs/{{run}}/{name}" for name in run_files.TRAINED],
    log:
        f"{RESULTS}/logs/train/{{run}}.log",
    priority: run_priority
    conda:
        "../../environment.yml"
    threads: TRAIN_THREADS
    resources:
        gpu=min(GPUS, 1),
        mem_mb=8000 if GPUS else 2000,
    params:
        ssvi=SSVI,
        flags=run_flags,
        folder=run_folder,
    # A scheduler that ends a job tells all its processes. The shell waits for the checkpoint that this makes
    # the training write; if the shell died, what it waits for would be killed. The log is appended to, because a
    # training that waits for another one to end must not cut off what that one writes.
    shell:
        "trap : TERM USR1 HUP; {params.ssvi} train {params.flags} --out {params.folder:q} --threads {threads}"
        " >> {log:q} 2>&1 || (code=$?; tail -n 5 {log:q} >&2; exit $code)"


rule evaluate:
    input:
        trained_input,
        due_again(run_files.METRICS),
    output:
        metrics=f"{RESULTS}/runs/{{run}}/{run_files.METRICS}",
        predictions=f"{RESULTS}/runs/{{run}}/{run_files.PREDICTIONS}",
    log:
        f"{RESULTS}/logs/evaluate/{{run}}.log",
    priority: run_priority
    conda:
        "../../environment.yml"
    threads: TRAIN_THREADS
    resources:
        gpu=min(GPUS, 1),
    params:
        ssvi=SSVI,
        folder=run_folder,
        samples=CONFIG["evaluation"]["samples"],
        bins=CONFIG["evaluation"]["bins"],
        licence=licence_flag(),
    shell:
        "{params.ssvi} evaluate {params.folder:q} --samples {params.samples} --bins {params.bins}"
        " {params.licence} --threads {threads} > {log:q} 2>&1 || (tail -n 5 {log:q} >&2; exit 1)"


rule suite:
    input:
        evaluated_input,
        due_again(run_files.UNCERTAINTY),
    output:
        figures=f"{RESULTS}/runs/{{run}}/{run_files.UNCERTAINTY}",
        predictions=f"{RESULTS}/runs/{{run}}/{run_files.UNCERTAINTY_PREDICTIONS}",
    log:
        f"{RESULTS}/logs/suite/{{run}}.log",
    priority: run_priority
    conda:
        "../../environment.yml"
    threads: TRAIN_THREADS
    resources:
        gpu=min(GPUS, 1),
    params:
        ssvi=SSVI,
        folder=run_folder,
        outside=outside_flags(),
    shell:
        "{params.ssvi} evaluate {params.folder:q} --suite uncertainty {params.outside}"
        " --threads {threads} > {log:q} 2>&1 || (tail -n 5 {log:q} >&2; exit 1)"


rule samples:
    input:
        trained_input,
        due_again(run_files.SAMPLES),
    output:
        f"{RESULTS}/runs/{{run}}/{run_files.SAMPLES}",
    log:
        f"{RESULTS}/logs/samples/{{run}}.log",
    priority: run_priority
    conda:
        "../../environment.yml"
    threads: TRAIN_THREADS
    resources:
        gpu=min(GPUS, 1),
    params:
        ssvi=SSVI,
        folder=run_folder,
        samples=most_samples(CONFIG["evaluation"]),
        bins=CONFIG["evaluation"]["bins"],
    shell:
        "{params.ssvi} samples {params.folder:q} --samples {params.samples} --bins {params.bins}"
        " --threads {threads} > {log:q} 2>&1 || (tail -n 5 {log:q} >&2; exit 1)"
