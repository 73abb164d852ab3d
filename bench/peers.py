"""graft and its peers, side by side: the same model, adapter, tokens and hyperparameters, one after the other in rounds.

    python bench/peers.py              installs the peers, measures, and writes README.md, results.json and losses.svg
    python bench/peers.py --quick      the demo's model and few steps; prints the table and writes nothing

This file needs nothing but Python and Go. The peers run in stack.py, in virtual environments of their own.
"""

import argparse
import ctypes.util
import datetime
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import report
import seeded

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PACKAGES = {"torch": ["torch", "transformers", "peft"], "mlx": ["mlx-lm", "mlx[cpu]"]}
IMPORTS = {"torch": "torch, transformers, peft", "mlx": "mlx.core, mlx_lm"}
STACKS = {"graft": None, "eager": "torch", "compile": "torch", "mlx": "mlx"}  # and what each needs installed
JOB = {"batch": 4, "length": 256, "masked": 192, "rank": 16, "alpha": 32, "lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8,
       "weight_decay": 0.0, "clip": 1.0}
WARMUP = 2  # steps that are not counted


class Unavailable(Exception):
    """Why a stack cannot be measured here."""


def main():
    o = options()
    with tempfile.TemporaryDirectory(prefix="graft-peers-") as work:
        results = measure(o, Path(work))
    print(report.table(results))
    if not o.quick:
        report.write(results, HERE)


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=Path, help="folder in Hugging Face layout; default: a random SmolLM2-135M")
    p.add_argument("--steps", type=int, default=8)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--cases", default=",".join(report.TITLES), help="some of %(default)s: the loss on all tokens; on completions, a quarter of "
                   "them; on all, with the random model's weights stored as bfloat16, as SmolLM2's are")
    p.add_argument("--stacks", default=",".join(STACKS), help="some of %(default)s")
    p.add_argument("--python", help="a Python with torch, transformers and peft, instead of installing them")
    p.add_argument("--mlx-python", help="a Python with mlx and mlx-lm, instead of installing them")
    p.add_argument("--venv", type=Path, default=HERE / ".venv", help="where the peers are installed; default: bench/.venv")
    p.add_argument("--blas", default=ctypes.util.find_library("openblas"),
                   help="library that is preloaded for mlx, whose wheel for Linux has the slow reference BLAS; default: OpenBLAS where found")
    p.add_argument("--avx2", action="store_true", help="none uses AVX-512, as on a processor that has none")
    p.add_argument("--timeout", type=float, default=900, help="seconds after which a run is ended; the steps done count if they suffice")
    p.add_argument("--quick", action="store_true", help="443K weights, 4 steps, 1 round")
    o = p.parse_args()
    for name, known in ("stacks", STACKS), ("cases", report.TITLES):
        chosen = getattr(o, name).split(",")
        if unknown := set(chosen) - set(known):
            p.error(f"--{name}: {', '.join(sorted(unknown))}: there are {', '.join(known)}")
        setattr(o, name, chosen)
    if o.quick:
        o.steps, o.rounds = 4, 1
    if o.steps <= WARMUP or o.rounds < 1:
        p.error(f"at least {WARMUP + 1} steps and 1 round are needed")
    if o.model or o.quick:
        o.cases = [c for c in o.cases if c != "bfloat16"]
    if not o.cases:
        p.error("--cases bfloat16 is for the random SmolLM2-135M")
    return o


def measure(o, work):
    """Returns everything that is written to results.json."""
    if not shutil.which("go"):
        sys.exit("there is no Go here, and graft, its demo's tokenizer and text are made with it")
    here = machine()  # before this script makes work for it
    if o.avx2:
        here["isa"] = [f for f in here["isa"] if not f.startswith(("avx512", "amx"))]
    why_not, pythons = {}, {}
    for stack in o.stacks:
        try:
            check(stack, o, pythons)
        except Unavailable as e:
            why_not[stack] = str(e)
    if not pythons:
        sys.exit(f"no peer can be run here: {why_not}")
    job = prepare(o, work, next(iter(pythons.values())))
    results = {"date": datetime.date.today().isoformat(), "machine": here, "graft": graft_version(), "warmup": WARMUP,
               "rounds": o.rounds, "model": describe(job), "job": {k: job[k] for k in [*JOB, "steps", "threads"]}, "cases": {}}
    for case in o.cases:
        job |= {"mask": case == "masked", "model": job["models"][case]}
        found = {stack: {"error": why_not[stack]} if stack in why_not else {"rounds": []} for stack in o.stacks}
        for n in range(o.rounds):
            for stack in [s for s in o.stacks if "error" not in found[s]]:
                try:
                    found[stack]["rounds"].append(run(stack, job, pythons, o, work / f"{case}-{n}-{stack}"))
                except Unavailable as e:
                    found[stack] = {"error": str(e)}
        results["cases"][case] = found
    report.compare(results)
    return results


# What there is to measure with.


def check(stack, o, pythons):
    """Raises Unavailable if the stack cannot be had here; notes the Python that runs it."""
    kind = STACKS[stack]
    if not kind:
        return
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if stack == "compile" and not shutil.which(compiler.split()[0]):
        raise Unavailable(f"no C++ compiler ({compiler})")
    if kind not in pythons:
        python = (o.mlx_python if kind == "mlx" else o.python) or install(PACKAGES[kind], o.venv / kind)
        succeed("does not import", python, "-c", f"import {IMPORTS[kind]}")
        pythons[kind] = python


def install(packages, venv):
    """Makes a virtual environment with the current releases, or takes the one made earlier; returns its Python."""
    python = venv / "bin/python"
    done = venv / "installed"
    if not done.exists():
        say(f"installing {', '.join(packages)}")
        succeed("no virtual environment", sys.executable, "-m", "venv", "--clear", venv)
        succeed("not installed", python, "-m", "pip", "install", "-q", *packages)
        done.touch()
    return str(python)


def succeed(failure, *command):
    """Runs a command; if it fails, its last words are why a stack is unavailable."""
    try:
        p = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    except OSError as e:
        raise Unavailable(f"{failure}: {e.strerror}") from None
    if p.returncode:
        raise Unavailable(f"{failure}: {last_line(p.stderr) or f'exit status {p.returncode}'}")


def prepare(o, work, python):
    """Builds graft and writes model, adapter and data; returns the job that all stacks are given."""
    job = JOB | {"steps": o.steps, "threads": threads(), "isa": "avx2" if o.avx2 else "", "graft": str(work / "train"), "data": str(work / "train.jsonl")}
    demo = work / "demo"
    for command in ["build", "-o", job["graft"], "./cmd/train"], ["run", "./cmd/demo", "-out", demo]:
        subprocess.run(["go", *command], cwd=ROOT, env=os.environ | {"CGO_ENABLED": "0"}, check=True)
    model = o.model or demo
    if not o.model and not o.quick:
        model = work / "model"
        seeded.smollm2_135m(model, tokenizer=demo)
    models = dict.fromkeys(o.cases, str(model.resolve()))
    if "bfloat16" in models:
        models["bfloat16"] = str(work / "bfloat16")
        seeded.smollm2_135m(work / "bfloat16", tokenizer=demo, dtype="bfloat16")
    seeded.adapter(work / "adapter", model, job["rank"], job["alpha"])
    job |= {"model": str(model.resolve()), "models": models, "adapter": str(work / "adapter"), "texts": str(demo / "train.jsonl"),
            "examples": o.steps * job["batch"]}
    (work / "data.json").write_text(json.dumps(job))
    subprocess.run([python, HERE / "stack.py", "data", work / "data.json"], check=True)
    return job


def threads():
    """All cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


# One run.


def run(stack, job, pythons, o, folder):
    """Trains once; returns losses, seconds and peak memory, all but graft's losses seen from outside the process."""
    say(folder.name)
    folder.mkdir()
    job = job | {"out": str(folder / "run")}
    if stack == "graft":
        (folder / "job.yaml").write_text(json.dumps(graft_config(job)))  # JSON is YAML
        command = [job["graft"], "-config", folder / "job.yaml"]
    else:
        Path(job["out"]).mkdir()
        (folder / "job.json").write_text(json.dumps(job))
        command = [pythons[STACKS[stack]], HERE / "stack.py", stack, folder / "job.json"]
    env = environment(job, folder)
    if stack == "mlx" and o.blas and sys.platform == "linux":
        env["LD_PRELOAD"] = o.blas
    found = watch(command, env, folder / "stderr", o.timeout)
    if stack == "graft":
        with open(folder / "run" / "metrics.jsonl") as f:
            steps = [json.loads(line) for line, _ in zip(f, found["losses"])]
        found["losses"] = [s["loss"] for s in steps]  # with all their digits
        if steps[-1]["mfu"]:
            found["tokens_per_s_at_peak"] = steps[-1]["tokens_per_s"] / steps[-1]["mfu"]
    return found


def graft_config(job):
    return {
        "model": job["model"], "out": job["out"], "threads": job["threads"], "isa": job["isa"],
        "data": {"train": job["data"], "mask_prompt": job["mask"], "max_length": job["length"], "too_long": "truncate", "shuffle": False},
        "lora": {"adapter": job["adapter"]},
        "optimizer": {"lr": job["lr"], "betas": job["betas"], "eps": job["eps"], "weight_decay": job["weight_decay"],
                      "clip": job["clip"], "schedule": "constant"},
        "train": {"steps": job["steps"], "batch_size": job["batch"], "accumulate": 1, "save_every": 0, "report_every": 1},
    }


def environment(job, folder):
    """Threads and instructions for every library, and caches that start empty: torch's and MLX's of compiled code, graft's of the machine's peaks."""
    cache = folder / "cache"
    cache.mkdir()
    n = str(job["threads"])
    settings = dict.fromkeys(["GOMAXPROCS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"], n)
    if job["isa"]:
        settings |= {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "OPENBLAS_CORETYPE": "Haswell"}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("TRAIN_")}  # these would change graft's job
    return inherited | settings | {"TORCHINDUCTOR_CACHE_DIR": str(cache), "XDG_CACHE_HOME": str(cache), "TMPDIR": str(cache),
                                  "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


STEP = re.compile(r"step +\d+/.*  loss (\S+)")


def watch(command, env, errors, timeout):
    """Runs a stack and reads what it tells; the time of a line is the time at which it arrives here."""
    found = {"losses": [], "arrivals": [], "versions": {}}
    busy, began = busy_seconds(), time.perf_counter()
    with open(errors, "w") as stderr:
        p = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=stderr, env=env, text=True, start_new_session=True)
    late = threading.Timer(timeout, os.killpg, (p.pid, signal.SIGKILL))  # the compilers that it started, too
    late.start()
    try:
        for line in p.stdout:
            if m := STEP.match(line):
                found["arrivals"].append(time.perf_counter() - began)
                found["losses"].append(float(m[1]))
            elif line.startswith("versions "):
                found["versions"] = json.loads(line.removeprefix("versions "))
            elif line.startswith("backend "):
                found["versions"] = {"backend": " ".join(line.split()[1:])}
    except BaseException:  # such as Ctrl-C, which a session of its own does not see
        os.killpg(p.pid, signal.SIGKILL)
        raise
    finally:
        timed_out = late.finished.is_set()
        late.cancel()
    _, status, usage = os.wait4(p.pid, 0)
    found["seconds"] = time.perf_counter() - began
    p.returncode = os.waitstatus_to_exitcode(status)
    if p.returncode and not timed_out:
        raise Unavailable(last_line(errors.read_text()) or f"exit status {p.returncode}")
    if len(found["losses"]) <= WARMUP:
        raise Unavailable(f"{len(found['losses'])} steps in {found['seconds']:.0f} s")
    if busy is not None:
        found["others_cores"] = max(0, busy_seconds() - busy - usage.ru_utime - usage.ru_stime) / found["seconds"]
    found["peak_bytes"] = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return found


def busy_seconds():
    """Core seconds that this machine has worked or had taken away by its host, or None where the system does not tell."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, idle, wait, irq, softirq, steal = map(int, stat.read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


# What is told of the machine and the versions.


def machine():
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    field = dict(re.findall(r"^([^\t:]+)\s*: (.*)$", info, re.M))
    known = ["avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "asimd", "sve", "sve2", "i8mm", "bf16"]
    flags = field.get("flags", field.get("Features", "")).split()
    cpu = field.get("model name") or output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor()
    return {"cpu": cpu, "arch": platform.machine(), "cores": threads(), "isa": [f for f in known if f in flags],
            "system": platform.system(), "python": platform.python_version(),
            "load": [round(x, 2) for x in os.getloadavg()]}


def graft_version():
    changed = "+changes" if output("git", "status", "--porcelain", "--untracked-files=no") else ""
    return {"commit": output("git", "rev-parse", "--short", "HEAD") + changed, "go": output("go", "env", "GOVERSION")}


def describe(job):
    config = json.loads(Path(job["model"], "config.json").read_text())
    keep = ["model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size"]
    return {k: config.get(k) for k in keep} | {"weights": seeded.count(Path(job["model"]))}


def output(*command):
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def last_line(text):
    """The last line that says something, without the folders of this machine, and cut to a table's width."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"(/[^\s/:'\"]+)+/", "", lines[-1])[:200] if lines else ""


def say(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
