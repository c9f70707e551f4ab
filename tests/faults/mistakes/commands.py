"""Mistakes on the command line."""

from __future__ import annotations

from spoiling import record, write

from mistakes.kinds import (
    EVALUATE,
    IMAGE,
    LAYOUT,
    NO_NUMBER,
    NO_PATH,
    NOT_REPLACED,
    PETS,
    PREDICT,
    TRAIN,
    WHERE,
    Bad,
    instead,
)

COMMANDS = [
    Bad("no command", "ssvi", "ssvi: the following arguments are required: COMMAND", code=2),
    Bad(
        "an unknown command", "ssvi trian", "ssvi: argument COMMAND: invalid choice: 'trian' (choose from ...)", code=2
    ),
    Bad(
        "an unknown option",
        f"{TRAIN} --densty=0.1",
        "ssvi: unrecognized arguments: --densty=0.1, did you mean --density?",
        code=2,
    ),
    Bad("a word for a number", f"{TRAIN} --lr=fast", f"ssvi train: argument --lr: 'fast' {NO_NUMBER}", code=2),
    Bad(
        "a fraction for a whole number",
        f"{TRAIN} --delta-t=1.5",
        "ssvi train: argument --delta-t: '1.5' is no whole number, as in 12",
        code=2,
    ),
    Bad("nothing for a number", f"{TRAIN} --lr=", f"ssvi train: argument --lr: '' {NO_NUMBER}", code=2),
    Bad(
        "two lines for a number",
        f"{TRAIN} '--lr=1\n2'",
        f"ssvi train: argument --lr: '1\\n2' {NO_NUMBER}",
        code=2,
    ),
    *(
        Bad(
            f"{text!a} for a number",
            f"{TRAIN} '--seed={text}'",
            f"ssvi train: argument --seed: {text!r} is no whole number, as in 12",
            code=2,
        )
        for text in ("1_0", " 1", "010", "\u0661\u0662")
    ),
    Bad("nan by command", f"{TRAIN} --density=nan", f"ssvi train: argument --density: 'nan' {NO_NUMBER}", code=2),
    Bad("infinity by command", f"{TRAIN} --lr=inf", f"ssvi train: argument --lr: 'inf' {NO_NUMBER}", code=2),
    Bad("a number in parts", f"{TRAIN} --lr=1_0.5", f"ssvi train: argument --lr: '1_0.5' {NO_NUMBER}", code=2),
    *(
        Bad(f"twice {flag}", f"{command} {flag}={one} {again}", f"{said}: is given twice", code=2)
        for command, flag, one, again, said in (
            (TRAIN, "--lr", "0.1", "--lr 0.1", "ssvi train: argument --lr"),
            (TRAIN, "--dataset", "digits", "--dataset=digits", "ssvi train: argument --dataset"),
            (EVALUATE, "--samples", "2", "--samples=3", "ssvi evaluate: argument --samples"),
            ("ssvi samples run", "--bins", "2", "--bins=3", "ssvi samples: argument --bins"),
            ("ssvi data digits", "--root", "data", "--data-root=data", "ssvi data: argument --root/--data-root"),
            ("ssvi report", "--study", "tiny", "--study=tiny", "ssvi report: argument --study"),
            ("ssvi ui", "--port", "5000", "--port=5001", "ssvi ui: argument --port"),
            ("ssvi bench", "--repeats", "1", "--repeats=2", "ssvi bench: argument --repeats"),
        )
    ),
    Bad(
        "a licence elsewhere",
        f"{EVALUATE} --on=digits --licence=MIT",
        "--licence is 'MIT', but has no effect with --on.",
    ),
    Bad("a part of nothing", f"{EVALUATE} --part=test", "--part is test, but has no effect without --on."),
    Bad(
        "a part that there is not",
        f"{EVALUATE} --on=digits --part=val",
        "ssvi evaluate: argument --part: invalid choice: 'val' (choose from ...)",
        code=2,
    ),
    Bad(
        "another data set that there is not",
        f"{EVALUATE} --on=digit",
        "--on: dataset 'digit' is unknown, did you mean 'digits'? Choose from cifar10, cifar100, digits, "
        "fashion, folder:PATH, kmnist, mnist.",
    ),
    Bad(
        "another data set of no folder",
        f"{EVALUATE} --on=folder:pest",
        "pest: no such folder; a data set folder:PATH needs train/<class>/ and test/<class>/ with images in them, or "
        "<class>/ alone.",
    ),
    Bad(
        "another data set of other classes",
        f"{EVALUATE} --on=folder:pets",
        "--on folder:pets: has images of 'class0', 'class1', but the network knows none of these, only '0', '1', '2', "
        "'3', '4' and 5 more.",
    ),
    Bad(
        "another data set without images",
        f"{EVALUATE} --on=folder:nothing",
        "HERE/nothing: has no class folders with images; files that end in ... are read.",
        write("nothing/0/notes.txt", ""),
    ),
    Bad(
        "another data set of a damaged image",
        f"{EVALUATE} --on=folder:other",
        "--on folder:other: none of its 1 images can be read; the first: HERE/other/0/0.png: cannot be read as an "
        "image (...); replace or delete it.",
        write("other/0/0.png", "no image"),
    ),
    Bad(
        "a part of class folders",
        f"{EVALUATE} --on=folder:pets/test --part=test",
        "pets/test: has no train/ and test/, of which to take test/.",
    ),
    Bad(
        "images from outside without a suite",
        f"{EVALUATE} --outside=folder:pets",
        "--outside is folder:pets, but has no effect without --suite.",
    ),
    Bad(
        "a suite with weight samples of its own",
        f"{EVALUATE} --suite=uncertainty --samples=7",
        "--samples is 7, but has no effect with --suite, which takes that of the evaluation.",
    ),
    Bad(
        "a suite of a run that was not evaluated",
        f"{EVALUATE} --suite=uncertainty",
        "run: has no metrics.json yet; evaluate it first: ssvi evaluate run",
    ),
    Bad(
        "another data set for a run of a version that did not record what it takes",
        f"{EVALUATE} --on=digits",
        "run: was trained by a version that did not record its classes and normalisation; where its data set is at "
        "hand, `ssvi evaluate run` records them.",
        record("run/training.json", inputs=...),
    ),
    Bad(
        "a plugin by its file",
        f"{TRAIN} --plugins=./mine.py",
        "--plugins: plugin './mine.py' is no name of a module, as in my_module or my_package.plugin.",
    ),
    Bad(
        "a plugin that is none, by command",
        f"{TRAIN} --plugins=json",
        "--plugins: plugin 'json': ...json/__init__.py has no PLUGIN = ssvi.plugins.Plugin(...).",
    ),
    Bad("a switch twice", f"{TRAIN} --plain --plain", "ssvi train: argument --plain: is given twice", code=2),
    Bad(
        "a parent with an option twice",
        f"{TRAIN} --method=vd --parent=vi,epochs=12,epochs=13",
        "command line: parent is 'vi,epochs=12,epochs=13', but has epochs twice.",
    ),
    Bad(
        "a parent of two methods",
        f"{TRAIN} --method=vd --parent=vi,method=dense",
        "command line: parent is 'vi,method=dense', but has method twice.",
    ),
    Bad(
        "a parent with a number in parts",
        f"{TRAIN} --method=vd --parent=vi,epochs=1_0",
        "command line: parent: epochs is '1_0', but must be a whole number.",
    ),
    Bad(
        "a checkpoint never",
        f"{TRAIN} --checkpoint-seconds=1e999",
        "--checkpoint-seconds is inf, but must be >= 0 and finite.",
    ),
    Bad("yes for true", f"{TRAIN} --augment=yes", "ssvi train: argument --augment: 'yes' is not true or false", code=2),
    Bad("out of range", f"{TRAIN} --density=0", "command line: density is 0, but must be > 0 and <= 1."),
    Bad(
        "beyond all floats",
        f"{TRAIN} --sigma-lr=1e999",
        "command line: sigma_lr is inf, but must be >= 0 and <= 3.40282e+38.",
    ),
    Bad(
        "a seed beyond 64 bits",
        f"{TRAIN} --seed=1{'0' * 22}",
        "command line: seed is 1e+22, but must be >= 0 and <= 9.22337e+18.",
    ),
    Bad("no seed", f"{TRAIN} --seed=-1", "command line: seed is -1, but must be >= 0 and <= 9.22337e+18."),
    Bad(
        "a network for a giant", instead("--width=1e300"), "command line: width is 1e+300, but must be > 0 and <= 100."
    ),
    Bad(
        "an option of others",
        f"{TRAIN} --method=dense --density=0.5",
        "command line: density is 0.5, but method 'dense' does not use density (used by ...).",
    ),
    Bad(
        "an option without effect",
        f"{TRAIN} --exp-lambda=2",
        "command line: exp_lambda is 2.0, but has no effect unless criterion is e_exp or snr_exp.",
    ),
    Bad(
        "an unknown method",
        f"{TRAIN} --method=rigel",
        "command line: method 'rigel' is unknown, did you mean 'rigl'? Choose from ...",
    ),
    Bad(
        "an unknown preset",
        f"{TRAIN} --preset=oficial",
        "ssvi train: argument --preset: invalid choice: 'oficial' (choose from ...)",
        code=2,
    ),
    Bad(
        "no epochs",
        instead("--epochs=0"),
        "command line: epochs is 0, but must be >= 1; only method pruned goes without training.",
    ),
    Bad("no parent", f"{TRAIN} --method=pruned", "command line: method 'pruned' needs a parent, as in parent: vi."),
    Bad(
        "a parent of another kind",
        f"{TRAIN} --method=vd --parent=rigl",
        "command line: parent's method 'rigl' is unknown. Choose from dense, vi.",
    ),
    Bad(
        "a parent that is no text of one",
        f"{TRAIN} --method=vd --parent=vi,epochs",
        "command line: parent is 'vi,epochs', but must be a method and options, as in vi,epochs=12.",
    ),
    Bad(
        "a parent with a bad option",
        f"{TRAIN} --method=vd --parent=vi,lr=nan",
        "command line: parent: lr is 'nan', but must be a number.",
    ),
    Bad(
        "a parent that is not trained",
        f"{TRAIN} --method=vd --parent=vi",
        "results/runs/digits/mlp/vi/sigma_init=0.0006/width=0.1/seed=0: the parent of this run is not trained; "
        "train it first.",
    ),
    Bad(
        "a batch of more images than there are",
        instead("--batch-size=5000"),
        "digits: batch_size is 5000, but must be at most 1293, the number of training images after 144 were held out "
        "(validation 0.1).",
    ),
    Bad(
        "an unknown data set",
        f"{TRAIN} --dataset=cifr10",
        "command line: dataset 'cifr10' is unknown, did you mean 'cifar10'? Choose from cifar10, cifar100, digits, "
        "fashion, folder:PATH, kmnist, mnist.",
    ),
    Bad(
        "a data set without a path",
        f"{TRAIN} --dataset=folder:",
        "command line: dataset is 'folder:', but folder: needs a path, as in folder:images/pets.",
    ),
    Bad("a data set that is not there", f"{TRAIN} --dataset=folder:nowhere", f"nowhere: no such folder; {LAYOUT}"),
    Bad(
        "a command for a data set",
        f"{TRAIN} '--dataset=folder:a; rm -rf b'",
        f"command line: dataset is 'folder:a; rm -rf b', but a path must not contain ';', nor any other of {NO_PATH}",
    ),
    Bad(
        "a data set with a null byte",
        "ssvi data 'folder:a\0b'",
        f"command line: dataset is 'folder:a\\x00b', but a path must not contain '\\x00', nor any other of {NO_PATH}",
    ),
    Bad(
        "a sheet of another kind",
        "ssvi data digits --sheet=a.jpg",
        "--sheet is 'a.jpg', but its name must end in .png.",
    ),
    Bad(
        "a data set in two lines",
        "ssvi data 'folder:a\nb'",
        f"command line: dataset is 'folder:a\\nb', but a path must not contain '\\n', nor any other of {NO_PATH}",
    ),
    Bad(
        "a size out of range",
        instead("--image-size=999999", PETS),
        "command line: image_size is 999999, but must be >= 4 and <= 512.",
    ),
    Bad("an unknown device", instead("--device=tpu"), "--device 'tpu' is unknown; choose auto, cpu, cuda or cuda:N."),
    Bad(
        "a GPU that is not there",
        instead("--device=cuda:99"),
        "--device 'cuda:99' is not there: torch sees ... CUDA devices.",
    ),
    Bad("no thread", instead("--threads=0"), "--threads is 0, but must be >= 1 and <= 4096."),
    Bad(
        "a thousand million threads",
        instead("--threads=1000000000"),
        "--threads is 1000000000, but must be >= 1 and <= 4096.",
    ),
    Bad(
        "a checkpoint before the last",
        f"{TRAIN} --checkpoint-seconds=-1",
        "--checkpoint-seconds is -1, but must be >= 0 and finite.",
    ),
    Bad(
        "nothing for a folder",
        f"{TRAIN} --out=",
        "ssvi train: argument --out: '' is no path: it is empty or has control characters",
        code=2,
    ),
    Bad(
        "a null byte in a folder",
        "ssvi evaluate 'a\0b'",
        "ssvi evaluate: argument folder: 'a\\x00b' is no path: it is empty or has control characters",
        code=2,
    ),
    Bad(
        "a folder that is not text",
        "ssvi evaluate 'a\udcff'",
        "ssvi evaluate: argument folder: 'a\\udcff' is no path: it is empty or has control characters",
        code=2,
    ),
    Bad("a folder of 5000 letters", f"ssvi evaluate {'x' * 5000}", f"{'x' * 5000}/spec.json: File name too long"),
    Bad("a folder in a file", f"{TRAIN} --out=config.yaml/run", "config.yaml/run/live: Not a directory"),
    Bad(
        "a file for the data",
        f"{TRAIN} --data-root=config.yaml",
        "config.yaml/cache/digits-v3.safetensors: the prepared data set cannot be written there (...).",
    ),
    Bad("a run that is not there", "ssvi evaluate nowhere", "nowhere/spec.json: no such file."),
    Bad("no samples", f"{EVALUATE} --samples=0", "--samples is 0, but must be >= 1 and <= 1000000."),
    Bad(
        "more bins than numbers",
        f"ssvi samples run --bins=1{'0' * 20}",
        f"--bins is 1{'0' * 20}, but must be >= 1 and <= 1000000.",
    ),
    Bad("nothing to register", "ssvi register nowhere net", "nowhere/spec.json: no such file."),
    Bad(
        "a network without a name",
        "ssvi register run",
        "ssvi register: the following arguments are required: name",
        code=2,
    ),
    Bad("a port out of range", "ssvi ui --port=99999", "--port is 99999, but must be from 1 to 65535."),
    *(
        Bad(
            f"a host that is {host!r}",
            f"ssvi ui '--host={host}'",
            f"--host is {host!r}, but must be localhost or an address in full, as in 127.0.0.1 or ::1 (this machine "
            "alone), 0.0.0.0 or :: (all who reach it).",
        )
        for host in ("", "*", "0", "127.1", "0x7f000001", " 0.0.0.0", "[::]", "somewhere.example", "localhost:80")
    ),
    *(
        Bad(f"port {port}", f"ssvi ui --port={port}", f"--port is {int(port)}, but must be from 1 to 65535.")
        for port in ("0", "65536", "-1", f"1{'0' * 30}")
    ),
    *(
        Bad(
            f"port {port!r}",
            f"ssvi ui '--port={port}'",
            f"ssvi ui: argument --port: {port!r} is no whole number, as in 12",
            code=2,
        )
        for port in ("", "http", "5000.0", "5e3", "0x10", "１")
    ),
    Bad("an unknown suite", "ssvi bench nosuch", "command line: suite 'nosuch' is unknown. Choose from ..."),
    Bad("no images", "ssvi predict run", "ssvi predict: the following arguments are required: IMAGES", code=2),
    Bad(
        "nothing for an image",
        "ssvi predict run ''",
        "ssvi predict: argument IMAGES: '' is no path: it is empty",
        code=2,
    ),
    Bad("no network", f"ssvi predict nowhere pets {WHERE}", "nowhere: no such file or run folder."),
    Bad(
        "a network of a run without it",
        f"ssvi predict run/model.safetensors pets {WHERE}",
        "run/model.safetensors: is no network that `ssvi export` wrote; give the run folder, run.",
    ),
    Bad(
        "a folder without images",
        f"{PREDICT} data",
        "data: has no images; files that end in .apng, .bmp, ... are read.",
    ),
    *(
        Bad(f"predict with {name}", f"{PREDICT} pets {flags}", line)
        for name, flags, line in (
            ("no weight samples", "--samples=0", "--samples is 0, but must be >= 1 and <= 1000000."),
            ("no images at once", "--batch-size=0", "--batch-size is 0, but must be >= 1 and <= 1000000."),
            ("no seed", "--seed=-1", "command line: seed is -1, but must be >= 0 and <= 9.22337e+18."),
            ("more than all images", "--coverage=2", "coverage is 2.0, but must be a share above 0 to 1."),
            ("less than no risk", "--risk=-1", "risk is -1.0, but must be a share from 0 to 1."),
            (
                "two thresholds",
                "--coverage=0.5 --risk=0.1",
                "coverage and risk are both given, but one threshold follows from one of them.",
            ),
            (
                "a threshold of nothing",
                "--coverage=0.5",
                "coverage is 0.5, but nothing says at which confidence that is: the run held out no validation data "
                "(validation), or was not evaluated.",
            ),
            (
                "a temperature of nothing",
                "--calibrated",
                "calibrated probabilities were asked for, but no validation data chose a temperature.",
            ),
            (
                "two formats",
                "--format=csv --out=rows.jsonl",
                "--format is csv, but --out is 'rows.jsonl', which would be jsonl.",
            ),
            (
                "a file of no format",
                "--out=rows.txt",
                "--out is 'rows.txt', whose suffix is none of .csv, .jsonl, .parquet; name one of these, or say by "
                "--format what it is to hold.",
            ),
            (
                "a file of the run",
                "--out=run/history.csv",
                "--out is 'run/history.csv', which is part of the run; name another place.",
            ),
            (
                "one of the images",
                f"--sheet={IMAGE}",
                f"--sheet is '{IMAGE}', which is one of the images; name another file.",
            ),
            (
                "one file for two",
                "--format=csv --out=a.png --sheet=./a.png",
                "--out and --sheet are both 'a.png'.",
            ),
            ("a picture of another kind", "--sheet=a.jpg", "--sheet is 'a.jpg', but its name must end in .png."),
            ("a folder for a file", "--format=csv --out=pets", f"pets: {NOT_REPLACED}"),
            ("a folder in a file", "--out=config.yaml/rows.csv", "config.yaml/rows.csv: Not a directory"),
            (
                "a plugin by its file",
                "--plugins=./mine.py",
                "--plugins: plugin './mine.py' is no name of a module, as in my_module or my_package.plugin.",
            ),
        )
    ),
    *(
        Bad(f"export {name}", f"ssvi export {words}", line)
        for name, words, line in (
            ("nowhere", "run --to=a.txt", "--to is 'a.txt', but must end in .safetensors, .onnx or .pt2."),
            ("of nothing", "nowhere --to=a.safetensors", "nowhere: no such run folder."),
            ("of a file", "config.yaml --to=a.safetensors", "config.yaml: is no run folder."),
            (
                "over the run's own",
                "run --to=run/model.safetensors",
                "--to is 'run/model.safetensors', which is part of the run; name another place.",
            ),
            ("into a file", "run --to=config.yaml/a.safetensors", "config.yaml/a.safetensors: Not a directory"),
            (
                "a sparse file of samples",
                "run --to=a.safetensors --samples=3",
                "--samples is of graphs (.onnx, .pt2); a.safetensors would be a sparse file, which has it all.",
            ),
            (
                "a compressed sparse file",
                "run --to=a.safetensors --compress",
                "--compress is of graphs (.onnx, .pt2); a.safetensors would be a sparse file, which has it all.",
            ),
            (
                "deviations of a graph",
                "run --to=a.pt2 --sigma=bfloat16",
                "--sigma is 'bfloat16', but only a sparse file (.safetensors) has standard deviations.",
            ),
            ("no samples", "run --to=a.pt2 --samples=0", "--samples is 0, but must be >= 1 and <= 1000000."),
            (
                "without a licence",
                "run --to=a.safetensors --licence=",
                "licence is '', but must be a word of at most 1000 characters.",
            ),
        )
    ),
    Bad("information on nothing", "ssvi info nowhere", "nowhere: no such file or run folder."),
    Bad("information on a picture", f"ssvi info {IMAGE}", f"{IMAGE}: truncated, damaged, or no file of tensors (...)."),
    Bad("information on a folder", "ssvi info pets", "pets/spec.json: no such file."),
    Bad(
        "an unknown format",
        f"{PREDICT} pets --format=xml",
        "ssvi predict: argument --format: invalid choice: 'xml' (choose from ...)",
        code=2,
    ),
]
