"""Mistakes in config.yaml."""

from __future__ import annotations

import reprlib

from spoiling import (
    link,
    pipe,
    unreadable,
    write,
)

from mistakes.kinds import (
    CHAIN,
    CONFIG,
    GRID,
    LAUGHS,
    MERGES,
    NEEDED,
    NO_FOLDER,
    YAML,
    Bad,
    config,
    config_row,
    looks,
    train,
)
from ssvi.runs.configfile import MOST_BYTES

CONFIGS = [
    Bad("no config", "ssvi report --config=none.yaml", "none.yaml: no such file."),
    Bad("a folder for a config", "ssvi report --config=pets", "pets: Is a directory"),
    config_row("a link to itself", "Too many levels of symbolic links", link("config.yaml", "config.yaml")),
    config_row("a config nobody may read", "Permission denied", unreadable("config.yaml")),
    config_row("empty", f"is empty, but must be a mapping. {NEEDED}", ""),
    config_row("a list", f"is [1], but must be a mapping. {NEEDED}", "- 1"),
    config_row("a word", f"is 'digits', but must be a mapping. {NEEDED}", "digits", "ssvi ui"),
    config_row("an open bracket", f"line 1: {YAML}: ...'<stream end>'.", "study: ["),
    config_row(
        "a tab",
        f"line 10: {YAML}: ...'\\t' that cannot start any token.",
        config("    train:", "\ttrain:"),
    ),
    config_row(
        "a key twice",
        f"line 2: {YAML}: the key 'study' is there twice.",
        config("study: tiny\n", "study: tiny\nstudy: tiny\n"),
    ),
    config_row(
        "a key in two mappings that are merged",
        f"line 4: {YAML}: two of the mappings that are merged have the key 'seed'.",
        "study: tiny\nstudies:\n  a: &a {seed: 1}\n  b: &b {seed: 2}\n  c:\n    {<<: [*a, *b]}\n",
    ),
    config_row("an experiment twice", f"line 13: {YAML}: the key 'vi' is there twice.", config("ssvi: {", "vi: {")),
    config_row("two documents", f"line 16: {YAML}: expected a single document...", f"{CONFIG}---\na: 1\n"),
    config_row(
        "an unknown reference",
        f"line 1: {YAML}: found undefined alias 'x'.",
        config("study: tiny", "study: *x"),
    ),
    config_row(
        "Python in YAML",
        f"line 1: {YAML}: could not determine a constructor for the tag '...:python/object/apply:os.system'.",
        config("study: tiny", "study: !!python/object/apply:os.system [touch evil]"),
    ),
    config_row("Python for Snakemake", "key '__use_yte__' is unknown. Choose from ...", f"__use_yte__: true\n{CONFIG}"),
    config_row(
        "not UTF-8",
        f"{YAML}: 'utf-8' codec can't decode byte 0xfc in position 32: invalid start byte.",
        CONFIG.replace("results: results", "results: ergebnisse-ü").encode("latin-1"),
    ),
    config_row("a null byte", f"{YAML}: '\\x00' at character 300 is not allowed in a text.", f"{CONFIG}\0"),
    config_row(
        "a date that is none",
        f"line 1: {YAML}: '2020-13-45' is no timestamp.",
        config("study: tiny", "study: 2020-13-45"),
    ),
    *(
        config_row(
            f"the tag of {text[:40]}",
            f"line 6: {YAML}: {reprlib.repr(text.split(maxsplit=1)[1].strip(chr(39)))} is no {text.split()[0][2:]}.",
            config("samples: 2", f"samples: {text}"),
        )
        for text in (
            *("!!bool maybe", "!!bool ''", "!!int ''", "!!int 1.5", "!!int 1e3", "!!int １", "!!int 0x", "!!float ''"),
            *("!!float one", "!!timestamp x", "!!timestamp ''", "!!null 3", f"!!int {'1' * 5000}"),
            *(f"!!int {'1:' * 2000}1", f"!!float {'1:' * 2000}1.0"),
        )
    ),
    *(
        config_row(
            f"the tag of {text}",
            f"line 6: {YAML}: could not determine a constructor for the tag '...{text.split()[0].strip('!')}'.",
            config("samples: 2", f"samples: {text}"),
        )
        for text in (
            *("!!binary aGk=", "!!set {1, 2}", "!!omap [a: 1]", "!!pairs [a: 1]", "!!python/name:os.system", "!x 3"),
            *("!x {a: 1}", "!!nosuch [1]", "!!value x"),
        )
    ),
    config_row(
        "5000 digits",
        f"line 6: {YAML}: '111111111111...1111111111111' is no int.",
        config("samples: 2", f"samples: {'1' * 5000}"),
    ),
    config_row("UTF-16", f"{YAML}: 'utf-8' codec can't decode byte 0xff in position 0: ...", CONFIG.encode("utf-16")),
    config_row("a pipe", "is not a file.", pipe("config.yaml")),
    config_row(
        "a million numbers",
        f"has more than {MOST_BYTES} bytes, which no config needs; it is not read.",
        config("seed: [0, 1]", f"seed: [{'1, ' * 10**6}]"),
    ),
    config_row("5000 brackets", f"{YAML}: maximum recursion depth exceeded...", "[" * 5000),
    config_row(
        "a thousand million values in few lines",
        "has more than 200000 values or 50 levels, references followed.",
        config("  tiny:\n", f"  laughs:\n{LAUGHS}  tiny:\n"),
    ),
    config_row(
        "a thousand million keys in few lines",
        f"line ...: {YAML}: two of the mappings that are merged have the key 'x'.",
        config("  tiny:\n", f"  laughs:\n{MERGES}  tiny:\n"),
    ),
    config_row(
        "mappings each merged into the next",
        f"line ...: {YAML}: merges more than 10000 keys into one mapping.",
        config("  tiny:\n", f"  laughs:\n{CHAIN}  tiny:\n"),
    ),
    config_row(
        "a mapping in itself",
        "has more than 200000 values or 50 levels, references followed.",
        config("experiments:\n", "experiments: &e\n      self: *e\n"),
    ),
    config_row(
        "a number for a name", "studies: the key 3 is no word; write it in quotes.", config("  tiny:\n", "  3:\n")
    ),
    config_row(
        "yes for a name",
        "studies.tiny.experiments: the key True is no word: YAML reads yes, no, on and off as true and false; write it "
        "in quotes.",
        config("      vi:", "      yes:"),
    ),
    config_row(
        "a key that is no key",
        "key 'stduy' is unknown, did you mean 'study'? Choose from ...",
        config("study: tiny", "stduy: tiny"),
    ),
    config_row(
        "a plugin that is a word",
        'plugins: "mine" is not allowed: a list of Python modules, each once, as in [my_module]',
        f"plugins: mine\n{CONFIG}",
    ),
    config_row(
        "a plugin that is not there",
        "plugins: plugin 'mine': no module 'mine' is installed, nor in the current folder, HERE.",
        f"plugins: [mine]\n{CONFIG}",
    ),
    config_row(
        "a plugin that is none",
        "plugins: plugin 'json': ...json/__init__.py has no PLUGIN = ssvi.plugins.Plugin(...).",
        f"plugins: [json]\n{CONFIG}",
    ),
    config_row(
        "a key of 400 000 letters",
        f"key '{'x' * 149} ... {'x' * 19}' is unknown. Choose from ...",
        f"? {'x' * 400_000}\n: 1\n{CONFIG}",
    ),
    config_row(
        "a number of 100 000 digits and an exponent",
        f"studies.tiny.train: lr is '{'1' * 149} ... {'1' * 17}e5', but must be a number.",
        train(f"lr: {'1' * 100_000}e5"),
    ),
    config_row("a key that is missing", f"the key 'results' is missing. {NEEDED}", config("results: results\n", "")),
    config_row(
        "an unknown study", "study: study 'digit' is unknown. Choose from tiny.", config("study: tiny", "study: digit")
    ),
    Bad(
        "an unknown study by command",
        "ssvi report --study=tiyn",
        "--study: study 'tiyn' is unknown, did you mean 'tiny'? Choose from tiny.",
    ),
    config_row(
        "studies alike in a circle",
        "studies.tiny.like: other -> tiny -> other is a circle.",
        config("  tiny:\n", "  other: {like: tiny}\n  tiny:\n    like: other\n"),
        "ssvi ui",
    ),
    config_row(
        "a study that is a word",
        'studies.other: "x" is not allowed: A study is a mapping and needs experiments, or a study it is like.',
        config("  tiny:\n", "  other: x\n  tiny:\n"),
    ),
    config_row(
        "a study without experiments",
        "studies.other: has no experiments, of its own or of a study it is like.",
        config("  tiny:\n", "  other: {}\n  tiny:\n"),
    ),
    config_row(
        "networks to be logged of one experiment",
        'studies.tiny.log_models: "vi" is not allowed: true or false',
        config("  tiny:\n", "  tiny:\n    log_models: vi\n"),
        "ssvi ui",
    ),
    config_row(
        "an empty grid",
        f"studies.tiny.experiments.vi: {{}} {GRID}",
        config("{method: vi, seed: [0, 1]}", "{}"),
    ),
    config_row(
        "an empty axis",
        f'studies.tiny.experiments.vi: {{"method": "vi", "seed": []}} {GRID}',
        config("[0, 1]", "[]"),
    ),
    config_row(
        "a grid of ten thousand million runs",
        "studies.tiny.experiments.vi: makes 10000000000 runs, but must make at most 100000.",
        config(
            "seed: [0, 1]",
            ", ".join(
                f"{name}: [{', '.join(['0.1'] * 100)}]"
                for name in ("lr", "momentum", "weight_decay", "sigma_lr", "kl_scale")
            ),
        ),
    ),
    config_row(
        "a method that is a number",
        "studies.tiny.experiments.vi: method 3 is unknown. Choose from ...",
        config("{method: vi,", "{method: 3,"),
    ),
    config_row(
        "an option that is none",
        "studies.tiny.train: option 'epoch' is unknown, did you mean 'epochs'? Choose from ...",
        train("epoch: 3"),
    ),
    config_row(
        "a number in text",
        "studies.tiny.train: lr is '1e-3', but must be a number. YAML reads 1e-3 as text: write 0.001.",
        train("lr: 1e-3"),
    ),
    *(
        config_row(f"a number that looks like another: {text}", looks(10, text, read, instead), train(f"lr: {text}"))
        for text, read, instead in (
            ("010", 8, "10"),
            ("-010", -8, "-10"),
            ("0_10", 8, "10"),
            ("1:30", 90, "90"),
            ("1:30.5", 90.5, "90.5"),
        )
    ),
    config_row("an octal number far below", looks(12, "010", 8, "10"), config("seed: [0, 1]", "seed: [0, 010]")),
    config_row("an octal name", looks(9, "010", 8, "10"), config("  tiny:\n", "  010:\n")),
    config_row(
        "a number with a zero in front",
        "studies.tiny.train: batch_size is '08', but must be a whole number. YAML reads 08 as text: write it without "
        "the zero in front.",
        train("batch_size: 08"),
    ),
    config_row(
        "no for a word",
        "studies.tiny.train: allocation is False, but must be a word. YAML reads yes, no, on and off as true and "
        "false: write a word in quotes.",
        train("allocation: no"),
    ),
    config_row(
        "nothing behind an option",
        "studies.tiny.train.lr: is empty; write a value, or leave it out. (An empty key drops what a study that this "
        "one is like says of it, but none says anything.)",
        train("lr: "),
    ),
    config_row(
        "nothing behind a table",
        "studies.tiny.tables.table1: is empty; write a value, or leave it out. (An empty key drops what a study that "
        "this one is like says of it, but none says anything.)",
        config("    tables:\n", "    tables:\n      table1:\n"),
    ),
    config_row("not a number", "studies.tiny.train: lr is nan, but must be > 0.", train("lr: .nan")),
    config_row("infinity", "studies.tiny.train: lr is inf, but must be > 0 and <= 3.40282e+38.", train("lr: .inf")),
    config_row(
        "30 digits",
        "studies.tiny.train: batch_size is 1e+30, but must be >= 2 and <= 9.22337e+18.",
        train(f"batch_size: 1{'0' * 30}"),
    ),
    config_row(
        "an option that no method uses",
        "studies.tiny.train: members is 3, but no method of this study uses members (used by ensemble).",
        train("members: 3"),
    ),
    config_row(
        "an option that no criterion uses",
        "studies.tiny.train: exp_lambda is 3, but has no effect: every run that could use it has another criterion "
        "than e_exp or snr_exp.",
        train("exp_lambda: 3"),
    ),
    *(
        config_row(
            f"mirrored images where none are made, {name}",
            "studies.tiny.train: flip is 'horizontal', but has no effect: every run that could use it has another "
            "augment than true.",
            content,
        )
        for name, content in (
            ("for all", train("flip: horizontal, augment: false")),
            (
                "one by one",
                train("flip: horizontal")
                .replace("method: vi,", "method: vi, augment: false,")
                .replace("method: ssvi,", "method: ssvi, augment: false,"),
            ),
        )
    ),
    config_row(
        "a size for images that have one",
        "studies.tiny.train: image_size is 48, but has no effect: every run that could use it has another dataset than "
        "folder:PATH.",
        train("image_size: 48"),
    ),
    config_row(
        "a size for an experiment's images that have one",
        "studies.tiny.experiments.ssvi: image_size is 48, but has no effect unless dataset is folder:PATH.",
        config("density: 0.1", "image_size: 48"),
    ),
    config_row(
        "a grid twice",
        "studies.tiny.experiments.ssvi[2]: makes the same runs as experiments.ssvi[0]; leave one of them out.",
        config("ssvi: {method: ssvi, density: 0.1}", "ssvi: [{seed: [0, 1]}, {seed: 0}, {seed: [1, 0]}]"),
    ),
    config_row(
        "an option that every experiment has of its own",
        "studies.tiny.train: density is [0.1, 0.2], but has no effect: every run that could use it has its own "
        "density.",
        train("density: [0.1, 0.2]"),
    ),
    config_row(
        "a seed twice",
        "studies.tiny.experiments.vi: seed has 0 twice, which makes one run instead of two.",
        config("seed: [0, 1]", "seed: [1, 0, 0]"),
    ),
    config_row(
        "a density twice",
        "studies.tiny.experiments.ssvi: density has 0.1 twice, which makes one run instead of two.",
        config("density: 0.1", "density: [0.1, 0.10]"),
    ),
    config_row(
        "a shared value twice",
        "studies.tiny.train: lr has 0.1 twice, which makes one run instead of two.",
        train("lr: [0.1, 0.1]"),
    ),
    config_row(
        "a parent twice in other words",
        "studies.tiny.experiments.vi: parent has 'dense' and 'dense,lr=0.01', which makes one run instead of two.",
        config("{method: vi, ", '{method: sbp, parent: [dense, "dense,lr=0.01"], '),
    ),
    config_row(
        "an option twice in a parent",
        "studies.tiny.experiments.vi: parent is 'dense,lr=0.1,lr=0.1', but has lr twice.",
        config("{method: vi, ", '{method: sbp, parent: "dense,lr=0.1,lr=0.1", '),
    ),
    config_row(
        "an experiment twice in a table",
        'studies.tiny.tables.summary: ["vi", "vi"] is not allowed: a non-empty list of experiments, each once',
        config("summary: [vi, ssvi]", "summary: [vi, vi]"),
    ),
    config_row(
        "an option that the method does not use",
        "studies.tiny.experiments.vi: density is 0.1, but method 'vi' does not use density (used by ...).",
        config("method: vi, ", "method: vi, density: 0.1, "),
    ),
    config_row(
        "an unknown experiment in a table",
        "studies.tiny.tables.summary: experiment 'v' is unknown, did you mean 'vi'? Choose from ssvi, vi.",
        config("summary: [vi, ssvi]", "summary: [v]"),
    ),
    config_row(
        "a truth for a number",
        "evaluation.samples: true is not allowed: a whole number >= 1 and <= 1000000",
        config("samples: 2", "samples: true"),
    ),
    config_row(
        "5.0 for 5",
        "evaluation.bins: 5.0 is not allowed: a whole number >= 1 and <= 1000000",
        config("bins: 15", "bins: 5.0"),
    ),
    config_row(
        "a command for a name",
        "studies: 'a; rm -rf b' is no name: letters, digits, '_' and '-', a letter first.",
        config("  tiny:\n", "  a; rm -rf b: {like: tiny}\n  tiny:\n"),
    ),
    config_row(
        "a command for an experiment",
        "studies.tiny.experiments: '$(reboot)' is no name: letters, digits, '_' and '-', a letter first.",
        config("      vi:", "      $(reboot):"),
    ),
    config_row(
        "a name that goes on in the next line",
        "studies.tiny.tables: 'summary\\n' is no name: letters, digits, '_' and '-', a letter first.",
        config("summary:", '"summary\\n":'),
    ),
    config_row(
        "a command for the results",
        f'results: "results; rm -rf b" is not allowed: {NO_FOLDER}',
        config("results: results", "results: results; rm -rf b"),
    ),
    Bad(
        "a file for the reports",
        "ssvi report",
        "run/spec.json/tiny/so_far: Not a directory",
        write("config.yaml", config("reports: reports", "reports: run/spec.json")),
    ),
]
