"""Bad input, over all commands: an exit code, and one line that names thing and remedy. Nothing else happens."""

import os
import shlex
from itertools import chain

import pytest
import torch
from studies import ddbench, records, small_run, stripes, write_arrays
from synthetic import ARCHITECTURES, set_record, student_record, study, write_store

from harness.store.store import Store

NEW = "--dataset arrays[path=toy.npz] -e plain[epochs=2] -a mlp[width=8] --store new"
RUN = f"run {NEW}"
EVAL = "eval res.pt -e plain[epochs=2] -a mlp[width=8] --store new"
ON_TOY = f"{EVAL} -d arrays[path=toy.npz,normalize=mnist]"
NO_NORMALISATION = "does not say how its images were normalised"

BAD = [
    # run: names and their options
    (RUN, 2, "no method was given", "--method dc"),
    (f"{RUN} -m dcm", 2, "there is no method 'dcm'", "'dc'"),
    (f"{RUN} -m dc[lr_image=1]", 2, "'lr_image'", "'lr_img'"),
    (f"{RUN} -m dc[lr_img=fast]", 2, "lr_img", "fast"),
    (f"{RUN} -m dc[lr_img=-1]", 2, "lr_img", "-1"),
    (f"{RUN} -m dc[lr_img=inf]", 2, "lr_img", "inf"),
    (f"{RUN} -m dc[lr_img=1", 2, "dc"),
    (f"{RUN} -m dc[lr_img=1,lr_img=2]", 2, "twice"),
    (f"{RUN} -m dc -p main-similr", 2, "'main-similar'"),
    (f"{RUN} -m dc -p single[main=convnt]", 2, "'convnt'", "'convnet'"),
    (f"{RUN} -m dc -p mix[of=convnet:0.5+mlp:-1]", 2, "mix", "-1"),
    (f"{RUN} -m dc -p adaptive[panel=mlp+nope]", 2, "the probes of adaptive[panel=mlp+nope]", "'nope'"),
    (f"{RUN} -m dc -p adaptive[panel=vit[patch=32]]", 2, "the probes of adaptive", "vit[patch=32] cannot use images"),
    (f"{RUN} -m dc -p adaptive[evaluator=plan]", 2, "the probes of adaptive", "'plan'", "'plain'"),
    (f"{RUN} -m dc -p adaptive[evaluator=kd]", 2, "the probes of adaptive", "choose another evaluator, such as plain"),
    (f"{RUN} -m dc -p adaptive[panel=mlp+mlp]", 2, "adaptive[panel=mlp+mlp]", "each once"),
    (f"{RUN} -m dc -p adaptive[others=mlpp]", 2, "pool adaptive[others=mlpp] of ddbench draws 'mlpp'", "'mlp'"),
    (f"{RUN} -m dc -p adaptive[others=convnet]", 2, "nothing beside the main architecture convnet", "the pool single"),
    (f"{RUN} -m dc -p pair[of=convnet]", 2, "pair[of=convnet]: should be at least 2 names, joined by +"),
    (f"{RUN} -m dc -e plan", 2, "'plain'"),
    (f"{RUN} -m dc -e kd[teacher=convnt]", 2, "'convnt'", "'convnet'"),
    (f"{RUN} -m dc -e kd[alpha=2]", 2, "alpha", "2"),
    (f"{RUN} -m dc -a vgg", 2, "vgg13"),
    (f"{RUN} -m dc -a convnet[depth=0]", 2, "depth"),
    (f"{RUN} -m dc --set dc.lr_image=1", 2, "lr_img"),
    # run: data
    ("run -m dc --store new -d cifar", 2, "'cifar10'"),
    ("run -m dc --store new -d arrays", 2, "arrays", "path"),
    ("run -m dc --store new -d arrays[path=nowhere.npz]", 2, "nowhere.npz", "does not exist"),
    ("run -m dc --store new -d arrays[path=notes.txt]", 2, "notes.txt"),
    ("run -m dc --store new -d folder[path=nowhere,size=16]", 2, "nowhere"),
    ("run -m dc --store new -d digits[normalize=mnits]", 2, "'mnits'", "'mnist'"),
    # run: numbers and words
    (f"{RUN} -m dc --ipc 13", 2, "ipc 13 is larger than a class", "12 training images", "--ipc"),
    (f"{RUN} -m dc --ipc 0", 2, "ipc is 0", "at least 1"),
    (f"{RUN} -m dc --ipc one", 2, "one", "whole numbers"),
    (f"{RUN} -m dc --iterations -1", 2, "iterations is -1"),
    (f"{RUN} -m dc --iterations 1.5", 2, "1.5"),
    (f"{RUN} -m dc --students 0", 2, "--students", "0"),
    (f"{RUN} -m dc --distillations 0", 2, "--distillations", "0"),
    (f"{RUN} -m dc --seed x", 2, "--seed", "'x'"),
    (f"{RUN} -m dc --score-on train", 2, "train", "validation"),
    (f"{RUN} -m dc --precision fp16", 2, "fp16", "bf16"),
    (f"{RUN} -m dc --precision tf32 --device cpu", 2, "tf32", "cpu", "use fp32"),
    (f"{RUN} -m dc --device cuda:99", 2, "cuda:99", "--device cpu"),
    (f"{RUN} -m dc --device gpu", 2, "gpu", "cpu"),
    (f"{RUN} -m dc --choose dc.lr_img", 2, "nothing sweeps it", "--choose main-similar.main"),
    ("run -m dc -p adaptive --store new -d arrays[path=sparse.npz]", 2, "the probes of adaptive", "pools that ask for"),
    (f"{RUN} -m dc --config none.toml", 2, "none.toml", "cannot be read"),
    (f"{RUN} -m dc --max-storage -1", 2, "--max-storage", "-1"),
    (f"{RUN} -m dc --student 3", 2, "--student", "--students"),
    (f"{RUN} -m dcm --dry-run --json", 2, "there is no method 'dcm'"),
    # run: the store
    (f"{RUN} -m dc --store notes.txt", 2, "notes.txt", "--store"),
    (f"{RUN} -m dc --store others", 2, "others is not empty and not a store", "--store"),
    (f"{RUN} -m dc --store newer", 2, "newer has schema 9", "use a newer one"),
    # eval
    ("eval", 2, "'FILE|hf:REPO'", "ddbench eval --help"),
    ("eval none.pt -d digits --store new", 2, "none.pt", "no such file"),
    (f"{EVAL} -d arrays[path=toy.npz]", 2, NO_NORMALISATION, "normalize=", "like="),
    (f"{EVAL} -d arrays[path=toy.npz,normalize=cifar10]", 2, "3 channels"),
    (f"{EVAL} -d arrays[path=toy.npz,normalize=mnits]", 2, "'mnist'"),
    (f"{EVAL} -d arrays[path=toy.npz,like=mnits]", 2, "'mnist'"),
    (f"{ON_TOY} --entry 3", 2, "res.pt has 3 sets", "--entry"),
    (f"{ON_TOY} --entry last", 2, "--entry", "last"),
    (f"{ON_TOY} -d digits", 2, "one --dataset"),
    (f"{ON_TOY} -a convnt", 2, "'convnet'"),
    (f"{ON_TOY} -e plain[epoch=2]", 2, "'epochs'"),
    (f"{ON_TOY} --students 0", 2, "--students"),
    (f"{ON_TOY} --choose kd.temperature", 2, "nothing sweeps it"),
    (f"{ON_TOY} --device cuda:9", 2, "cuda:9"),
    (f"{ON_TOY} --method dc", 2, "--method"),
    (f"{ON_TOY} --config none.toml", 2, "none.toml"),
    # convert
    ("convert res.pt", 2, "'OUT'"),
    ("convert res.pt out.safetensors", 2, NO_NORMALISATION, "--dataset"),
    ("convert none.pt out.safetensors", 2, "none.pt", "no such file"),
    ("convert res.pt out.xyz", 2, ".xyz", "--to"),
    ("convert res.pt out --to pt", 2, "there is no format 'pt'"),
    ("convert res.pt out --to mtt", 2, "'mtt' is only read"),
    ("convert res.pt out --from vicco", 2, "did you mean 'vico'"),
    ("convert res.pt out --from npz", 2, "cannot be read as plain arrays"),
    ("convert res.pt out --from safetensors", 2, "not a distilled set"),
    ("convert res.pt out --dataset digts", 2, "'digits'"),
    ("convert res.pt out --dataset digits[zca=[true,false]]", 2, "stands for 2 data sets"),
    ("convert res.pt out --entry 3 --dataset digits", 2, "--entry goes from 0 to 2"),
    ("convert res.pt out --step-size fast", 2, "--step-size", "fast"),
    ("convert res.pt out --store none", 2, "'res.pt' is not the beginning of a key"),
    ("convert res.pt notes.txt -d digits --to npz", 2, "notes.txt is there already", "--force"),
    ("convert res.pt others -d digits --force", 2, "others is a folder that ddbench did not write"),
    ("convert abcd out", 2, "ddbench-store does not exist", "--store"),
    ("convert {student} out --store store", 2, "a cell of kind student", "its set is {set}"),
    ("convert {set} out --store store --entry 0", 2, "leave out --entry"),
    ("convert {set} out --store store --from npz", 2, "leave out --from"),
    ("convert {set} out --store store --step-size 1", 2, "leave out --step-size"),
    ("convert {set} out --store store --dataset digits", 2, "leave out --dataset"),
    ("convert {set} no/such/folder/out.npz --store store", 2, "out.npz cannot be written: No such file or directory"),
    ("convert hf:jane/dm out", 2, "hf:jane/dm is on the hub", "give a file, or a key of a store"),
    # publish
    ("publish zzzz jane/dm", 2, "'zzzz': there is no such file", "the beginning of a key", "`ddbench results list`"),
    ("publish hf:jane/dm jane/dm", 2, "hf:jane/dm is on the hub", "give a file, or a key of a store"),
    ("publish {set} jane/dm --store store --license 'a\nb'", 2, "--license", "such as mit or cc-by-4.0"),
    ("publish {set} jane/dm --store store --license ''", 2, "--license", "such as mit or cc-by-4.0"),
    ("publish {set} jane --store store", 2, "'jane' is no repository", "OWNER/NAME"),
    # compare
    ("compare", 2, "ddbench-store holds no store", "ddbench run --store"),
    ("compare others", 2, "others is not empty and not a store"),
    ("compare empty", 2, "there are no scores on test: run `ddbench run` first"),
    ("compare poolless", 2, "--by pool: no score has a value"),
    ("compare --store scores", 2, "stores are arguments here: `ddbench compare [STORE]...`"),
    ("compare scores --by pol", 2, "--by pol: did you mean 'pool'?"),
    ("compare scores --baseline singel", 2, "--baseline singel: did you mean 'single' or 'main-model'?"),
    ("compare scores --by method", 2, "--by method --baseline NAME is required; the values are dc, dm"),
    ("compare scores --method dmx", 2, "--method dmx: no score has this value: did you mean 'dm'?"),
    ("compare scores --iterations 7", 2, "--iterations 7: no score has this value: there is 100, 1000"),
    ("compare scores --pool dm[", 2, "--pool dm[: no score has this value"),
    ("compare scores --score-on validation", 2, "there are no scores on validation: use --score-on test"),
    ("compare scores --level 95", 2, "--level 95 is not between 0 and 1"),
    ("compare scores --level nan", 2, "--level nan is not between 0 and 1"),
    ("compare scores --format html", 2, "--format", "markdown"),
    ("compare scores --baselin x", 2, "--baseline"),
    ("compare scores --output no/where.csv", 2, "no/where.csv cannot be written", "--output"),
    ("compare scores --output others", 2, "others"),
    # report
    ("report", 2, "ddbench-store holds no store"),
    ("report --store scores", 2, "stores are arguments here: `ddbench report [STORE]...`"),
    ("report --store=scores", 2, "stores are arguments here: `ddbench report [STORE]...`"),
    ("report empty --output -", 1, "no student has been scored yet"),
    ("report scores --report pge", 2, "there is no report 'pge': did you mean 'page'?"),
    ("report scores --report page[cell=3]", 2, "did you mean 'cells'"),
    ("report scores -r page -r robust-scores --output a", 2, "--output names one file"),
    ("report scores -r page -r page[cells=3]", 2, "two reports would be written to ddbench-page.html"),
    ("report scores --output no/such/folder/page.html", 2, "give another --output"),
    ("report scores --method dcx", 2, "--method dcx: no score has this value"),
    # results
    ("results lst", 2, "there is no command 'lst': did you mean 'list'"),
    ("results pack --store scores", 2, "the store is an argument here: `ddbench results pack STORE`"),
    ("results list", 2, "ddbench-store does not exist", "--store"),
    ("results verify --store others", 2, "others is not a store", "--store"),
    ("results clean --store newer", 2, "newer has schema 9", "use a newer one"),
    ("results show", 2, "'KEY'"),
    ("results show XYZ --store store", 2, "'XYZ' is not the beginning of a key", "ddbench results list"),
    ("results path ../../etc --store store", 2, "is not the beginning of a key", "ddbench results list"),
    ("results show {absent} --store store", 2, "begins with {absent}", "ddbench results list"),
    ("results discard {absent} --store store", 2, "begins with {absent}", "ddbench results list"),
    ("results discard", 2, "'KEY'"),
    ("results show {damaged} --store damaged", 2, "record.json cannot be read", "ddbench results discard {damaged}"),
    ("results list --statsu done --store store", 2, "--statsu", "--status"),
    # plugins
    ("plugins chek ddbench", 2, "'chek'"),
    ("plugins check hrness", 2, "there is no plugin 'hrness': did you mean 'harness'?"),
    ("plugins check ddbench", 2, "ddbench has several plugins: name harness or mpdd"),
    ("plugins check mpdd signle", 2, "'signle'", "'single'"),
    ("plugins new 1st", 2, "'1st' cannot name a plugin"),
    ("plugins new 'a b'", 2, "'a b' cannot name a plugin"),
    ("plugins new ../up", 2, "cannot name a plugin"),
    ("plugins new torch", 2, "'torch' would hide the module 'torch'", "choose another name"),
    ("plugins new class", 2, "would hide the module 'class'"),
    ("plugins new others", 2, "others is there already"),
    ("plugins new mine --kind poole", 2, "--kind", "pool"),
    # listings, prepare, doctor and the words before the verb
    ("methods dc", 2, "`ddbench methods show NAME` shows one"),
    ("datasets list", 2, "`ddbench datasets` lists all"),
    ("methods --jsn", 2, "--json"),
    ("methods show dcm", 2, "there is no method 'dcm'"),
    ("datasets show others", 2, "there is no dataset 'others'", "write folder[path=others]"),
    (f"{RUN} -m dm -p total-random=single --dry-run", 2, "label 'total-random' of single is the name of a component"),
    ("pools show", 2, "'NAME'"),
    ("evaluators show plain[epoch=2]", 2, "'epochs'"),
    ("architectures show vgg", 2, "vgg13"),
    ("datasets show cifar", 2, "'cifar10'"),
    ("reports show pge", 2, "'page'"),
    ("prepare", 2, "DATASET"),
    ("prepare cifar", 2, "'cifar10'"),
    ("prepare arrays[path=none.npz]", 2, "none.npz"),
    ("doctor --stroe x", 2, "--store"),
    ("doctor now", 2, "now"),
    ("executors show loacl", 2, "did you mean 'local'?"),
    ("executors local", 2, "`ddbench executors show NAME` shows one"),
    (f"{RUN} -m random --executor loacl", 2, "did you mean 'local'?"),
    (f"{RUN} -m random --executor local[slot=2]", 2, "did you mean 'slots'?"),
    (f"{RUN} -m random --executor local[slots=0]", 2, "greater than or equal to 1"),
    (f"{RUN} -m random --executor slurm[time=soon]", 2, "slurm[time=soon]", "should be"),
    (f"{RUN} -m random --executor inline --timeout 10", 2, "leave out --executor inline"),
    (f"{RUN} -m random --executor local --detach", 2, "local does not: use slurm"),
    (f"{RUN} -m random --timeout 0", 2, "timeout is 0"),
    (f"{RUN} -m random --timeout soon", 2, "--timeout", "'soon'"),
    (f"{RUN} -m random --checkpoint-every -1", 2, "--checkpoint-every"),
    ("status scores", 2, "scores is no argument of this command: write --store scores"),
    ("status others", 2, "Got unexpected extra argument (others)"),
    ("status --store others", 2, "others", "is not a store"),
    ("status --store empty --watch --json", 2, "leave out --json"),
    ("status --stroe empty", 2, "--store"),
    ("rnu", 2, "there is no command 'rnu': did you mean 'run'?"),
    ("--verbose run", 2, "--verbose", "--version"),
]


@pytest.fixture(scope="module")
def here(data, tmp_path_factory):
    """A folder with what the table names, and the keys that stand in it."""
    folder = tmp_path_factory.mktemp("here")
    write_arrays(folder / "toy.npz")
    images, labels = stripes(1, seed=5)
    images = torch.from_numpy(images)[:, None] / 255
    torch.save({"data": [[images * k, torch.from_numpy(labels)] for k in (1, 2, 3)]}, folder / "res.pt")
    single = stripes(1)
    write_arrays(folder / "sparse.npz", x_train=single[0], y_train=single[1])
    (folder / "notes.txt").write_text("not an image, a set or a store")
    (folder / "others").mkdir()
    (folder / "others" / "thesis.tex").write_text("x")
    (folder / "newer").mkdir()
    (folder / "newer" / "store.json").write_text('{"schema": 9}')
    many = study(methods=("dc", "dm"), pools=("single", "main-similar", "main-model"), iterations=(100, 1000),
                 architectures=ARCHITECTURES[:2])  # fmt: skip
    write_store(folder / "scores", many)
    Store(folder / "empty").open()
    of = set_record(method="random", pool=None)
    write_store(folder / "poolless", [of, student_record(of)])
    small_run(data, folder / "store", students=1)
    small_run(data, folder / "damaged", students=1)
    keys = {record["kind"]: record["key"] for record in records(folder / "store").values()}
    (Store(folder / "damaged").folder(keys["student"]) / "record.json").write_text("{")
    absent = next(f"{n:04x}" for n in range(99) if not any(key.startswith(f"{n:04x}") for key in keys.values()))
    cell_keys = {"set": keys["distilled"], "student": keys["student"], "damaged": keys["student"], "absent": absent}
    return folder, {name: key[:12] for name, key in cell_keys.items()}


def contents(folder):
    # os.walk takes a third of the time of Path.rglob, and the folder is looked through twice for each row of the table.
    paths = (os.path.join(parent, name) for parent, *names in os.walk(folder) for name in chain(*names))
    return {path: os.stat(path).st_mtime_ns for path in paths}


@pytest.mark.parametrize(("words", "code", "says"), [(words, code, says) for words, code, *says in BAD],
                         ids=[words.replace(NEW, "...") for words, *_ in BAD])  # fmt: skip
def test_bad_input_is_one_line_and_nothing_else(here, monkeypatch, words, code, says):
    folder, keys = here
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DDBENCH_DATA", str(folder / "data"))
    before = contents(folder)
    result = ddbench(*shlex.split(words.format(**keys)))
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("ddbench: error: ")
    for word in says:
        assert word.format(**keys) in line
    assert contents(folder) == before


def test_the_table_is_long_and_names_every_input_once():
    inputs = [words for words, *_ in BAD]
    assert len(set(inputs)) == len(inputs) >= 40
