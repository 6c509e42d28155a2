"""Compares what this project's defaults learn with what a plain net learns in PyTorch, with batch norm, with that and Muon, and
without norm, on the same pictures, in equal epochs, and prints a table of seeds with mean and spread.

usage: compare.py [--seeds 3] [--epochs 12] [--cache FOLDER] [--fashion FOLDER]
                  [--python FILE] [--program FILE] [KEY=VALUE ...]

It makes a Python environment in the cache once (about 5 GB on Linux, from PyPI), the pictures of pictures.py, and builds the
example `learning`. Fashion-MNIST is left out without --fashion. A KEY=VALUE changes a setting of this project's runs.
"""
import argparse, hashlib, json, pathlib, statistics, subprocess, sys, venv

here = pathlib.Path(__file__).resolve().parent
root = here.parents[3]
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--seeds", type=int, default=3)
parser.add_argument("--epochs", type=int, default=12)
parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path.home()/".cache/stream-grad/learning")
parser.add_argument("--fashion", type=pathlib.Path)
parser.add_argument("--python", help="a Python that has the packages already")
parser.add_argument("--program", type=pathlib.Path, help="the example `learning`, built already")
parser.add_argument("--profile", default="release", help="cargo's profile")
parser.add_argument("settings", nargs="*")
arguments = parser.parse_args()
arguments.cache.mkdir(parents=True, exist_ok=True)

def environment():
    files = [here.parent/"requirements.txt", here/"requirements.txt"]
    folder = arguments.cache/("python-" + hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16])
    program = folder/("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not (folder/"complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        for file in files:
            subprocess.run([program, "-m", "pip", "install", "--no-deps", "--requirement", file], check=True, stdout=sys.stderr)
        (folder/"complete").touch()
    return program

def json_line(command):
    output = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, cwd=root).stdout
    return json.loads(output.splitlines()[-1])

python = arguments.python or environment()
def built():
    build = ["cargo", "build", "--profile", arguments.profile, "-p", "stream-grad-train", "--example", "learning", "--message-format=json", "--locked"]
    messages = subprocess.run(build, check=True, stdout=subprocess.PIPE, cwd=root).stdout.splitlines()
    return next(m["executable"] for m in map(json.loads, messages) if m.get("target", {}).get("name") == "learning" and m.get("executable"))

program = arguments.program.resolve() if arguments.program else built()

print(f"{arguments.epochs} epochs; metric on test pictures: Spearman's correlation of counts, else area under the curve")
print(f"{'pictures':9} {'net':26} {'mean':>6} {'spread':>7}  seeds")
for pictures in ["counts", "rings", "climate"] + (["fashion"] if arguments.fashion else []):
    file = arguments.cache/f"{pictures}.safetensors"
    more = ["--data", arguments.fashion] if pictures == "fashion" else []
    subprocess.run([str(part) for part in [python, here/"pictures.py", pictures, file, *more]], check=True)
    regression = pictures in ("counts", "rings")
    def plain(*options):
        command = [python, here/"plain.py", file, "--epochs", arguments.epochs, *options] + ["--regression"]*regression
        return lambda seed: command + ["--seed", seed]
    for name, command in {
        "PyTorch, batch norm": plain(),
        "PyTorch, batch norm, Muon": plain("--optimizer", "muon"),
        "PyTorch, no norm": plain("--norm", "none"),
        "defaults of stream-grad": lambda seed: [program, file, seed, arguments.epochs] + ["regression"]*regression + arguments.settings,
    }.items():
        found = [json_line(command(seed)) for seed in range(arguments.seeds)]
        metrics = [one["metric"] for one in found]
        spread = f"{statistics.stdev(metrics):7.3f}" if len(metrics) > 1 else f"{'-':>7}"
        seconds = sum(one["seconds"] for one in found)/len(found)
        print(f"{pictures:9} {name:26} {statistics.mean(metrics):6.3f} {spread}  {' '.join(f'{m:.3f}' for m in metrics)}  ({seconds:.0f} s each)", flush=True)
