"""What the measurements of peers.py say: a table, a drawing of the losses, and the JSON of both."""

import json
from statistics import median

NAMES = {"graft": "graft", "eager": "PyTorch + PEFT", "compile": "PyTorch + PEFT, torch.compile", "mlx": "mlx-lm, CPU"}
TITLES = {"all": "Loss on all tokens", "masked": "Loss on completions, a quarter of the tokens",
          "bfloat16": "Loss on all tokens, weights stored as bfloat16"}
AGREE = 1e-4  # relative difference of losses
QUIET = 0.2  # cores that others may use before speeds are doubted
MARKS = "<!-- results -->", "<!-- /results -->"


def compare(results):
    """Adds to the rounds of each stack what they come to."""
    tokens, warmup = results["job"]["batch"] * results["job"]["length"], results["warmup"]
    cases = [{stack: f for stack, f in found.items() if "rounds" in f} for found in results["cases"].values()]
    for ran in cases:
        summarize(ran, tokens, warmup)
    # The highest rate that graft found possible in any run: a busy machine can only make it too low.
    limit = max((r.get("tokens_per_s_at_peak", 0) for ran in cases for f in ran.values() for r in f["rounds"]), default=0)
    for f in (f for ran in cases for f in ran.values() if limit):
        f["share_of_peak"] = f["tokens_per_s"] / limit


def summarize(ran, tokens, warmup):
    """Adds a stack's medians and how it compares with PyTorch + PEFT, or the first stack there is."""
    for f in ran.values():
        for r in f["rounds"]:
            r["step_s"] = [b - a for a, b in zip(r["arrivals"], r["arrivals"][1:])]
            r["tokens_per_s"] = tokens / median(r["step_s"][warmup - 1 :])
        f["tokens_per_s"] = tokens / median(s for r in f["rounds"] for s in r["step_s"][warmup - 1 :])
        f["first_step_s"] = median(r["arrivals"][0] for r in f["rounds"])
        f["peak_bytes"] = max(r["peak_bytes"] for r in f["rounds"])
    reference = "eager" if "eager" in ran else next(iter(ran), None)
    for f in ran.values():
        ratios = [r["tokens_per_s"] / e["tokens_per_s"] for r, e in zip(f["rounds"], ran[reference]["rounds"])]
        f["speed"] = {"of": reference, "ratio": median(ratios), "by_round": ratios}
        f["loss"] = difference(f["rounds"], ran[reference]["rounds"][0]["losses"])


def difference(rounds, reference):
    """The largest relative difference of a loss in any round, and its step."""
    worst, step = max((abs(loss - want) / abs(want), i) for r in rounds for i, (loss, want) in enumerate(zip(r["losses"], reference), 1))
    return {"worst": worst, "step": step, "agrees": worst <= AGREE}


def table(results):
    """Returns the tables as Markdown."""
    m, g, job, model = results["machine"], results["graft"], results["job"], results["model"]
    versions = sorted({f"{k} {v}" for found in results["cases"].values() for f in found.values() if "rounds" in f
                       for r in f["rounds"] for k, v in r["versions"].items()})
    lines = [
        f"{results['date']}; {m['cpu']}, {m['arch']}, {m['cores']} cores, {' '.join(m['isa'])}; {m['system']}; "
        f"load before: {m['load'][0]}.",
        f"graft {g['commit']}, {g['go'].replace('go', 'Go ')}; Python {m['python']}, {', '.join(versions)}.",
        f"{model['model_type']}, {model['num_hidden_layers']} layers, hidden {model['hidden_size']}, vocabulary {model['vocab_size']}, "
        f"{model['weights'] / 1e6:.1f}M weights; LoRA rank {job['rank']} on all linear layers; "
        f"batch {job['batch']} × {job['length']} tokens, float32, {job['threads']} threads, {job['steps']} steps, {results['rounds']} rounds.",
    ]
    for case, found in results["cases"].items():
        lines += ["", f"**{TITLES[case]}**", "", *rows(found, job["steps"])]
    if any(r.get("others_cores", 0) > QUIET for found in results["cases"].values() for f in found.values() for r in f.get("rounds", [])):
        lines += ["", "**Others kept this machine busy in some of these runs: their speeds, first steps and ratios say nothing.**"]
    return "\n".join(lines) + "\n"


def rows(found, steps):
    reference = next((f["speed"]["of"] for f in found.values() if "speed" in f), "eager")
    yield f"| | tokens/s | × {NAMES[reference]} | by round | of peak | peak memory, MiB | first step after, s | losses agree within | others' load, cores |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    for stack, f in found.items():
        if "error" in f:
            yield f"| {NAMES[stack]} | not measured: {f['error'].replace('|', '/')} | | | | | | | |"
            continue
        share = f"{100 * f['share_of_peak']:.0f} %" if "share_of_peak" in f else ""
        done = min(len(r["losses"]) for r in f["rounds"])
        name = NAMES[stack] + (f", stopped after {done} steps" if done < steps else "")
        by_round = ", ".join(f"{x:.2f}" for x in f["speed"]["by_round"])
        loss = f["loss"]
        agree = f"{loss['worst']:.1e}" + ("" if loss["agrees"] else f": NO, step {loss['step']}")
        others = [r["others_cores"] for r in f["rounds"] if "others_cores" in r]
        load = f"{max(others):.1f}" if others else ""
        yield (f"| {name} | {f['tokens_per_s']:.0f} | {f['speed']['ratio']:.2f} | {by_round} | {share} | "
               f"{f['peak_bytes'] / 2**20:.0f} | {f['first_step_s']:.1f} | {agree} | {load} |")


def write(results, folder):
    """Writes results.json and losses.svg, and the table between the marks in README.md."""
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "losses.svg").write_text(drawing(results["cases"]))
    readme = folder / "README.md"
    before, rest = readme.read_text().split(MARKS[0])
    _, after = rest.split(MARKS[1])
    readme.write_text(f"{before}{MARKS[0]}\n{table(results)}{MARKS[1]}{after}")


# The drawing: a panel for each case. Curves that agree lie on each other, so the first is the widest.

WIDTH, HEIGHT, LEFT, TOP = 420, 260, 64, 40
CURVES = {"eager": ("#e8a33d", 9), "compile": ("#c0504d", 6), "mlx": ("#4a90d9", 3.5), "graft": ("#2e9e5b", 1.5)}
STYLE = """<style>
text { font: 12px sans-serif; fill: #333 } .axis { stroke: #8888; fill: none } .curve { fill: none; stroke-linejoin: round }
@media (prefers-color-scheme: dark) { text { fill: #ddd } }
</style>"""


def drawing(cases):
    """Returns an SVG of the first round's losses."""
    panels = [panel(TITLES[case], {s: found[s]["rounds"][0]["losses"] for s in CURVES if "rounds" in found.get(s, {})}, i * (WIDTH + LEFT))
              for i, (case, found) in enumerate(cases.items())]
    width, height = len(panels) * (WIDTH + LEFT) + 20, HEIGHT + TOP + 100
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">\n{STYLE}\n' + "\n".join(panels) + "\n</svg>\n"


def panel(title, curves, left):
    values = [v for losses in curves.values() for v in losses]
    if not values:
        return f'<text x="{left + LEFT}" y="20">{title}: nothing measured</text>'
    low, high, steps = min(values), max(values), max(map(len, curves.values()))
    x = lambda step: left + LEFT + (step - 1) / max(steps - 1, 1) * (WIDTH - 20)
    y = lambda loss: TOP + (high - loss) / (high - low or 1) * HEIGHT
    out = [f'<text x="{left + LEFT}" y="20" font-weight="bold">{title}</text>',
           f'<path class="axis" d="M{x(1)} {TOP - 8}V{TOP + HEIGHT + 8}H{x(steps)}"/>']
    for i in range(5):
        loss = low + (high - low) * i / 4
        out.append(f'<text x="{x(1) - 6}" y="{y(loss) + 4:.1f}" text-anchor="end">{loss:.4g}</text>')
    for step in range(1, steps + 1, max(1, steps // 8)):
        out.append(f'<text x="{x(step):.1f}" y="{TOP + HEIGHT + 24}" text-anchor="middle">{step}</text>')
    for i, (stack, losses) in enumerate(curves.items()):
        color, wide = CURVES[stack]
        points = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in enumerate(losses, 1))
        at, below = left + LEFT + i % 2 * 130, TOP + HEIGHT + 50 + i // 2 * 20
        out += [f'<polyline class="curve" stroke="{color}" stroke-width="{wide}" points="{points}"/>',
                f'<path stroke="{color}" stroke-width="{wide}" d="M{at} {below - 4}h24"/>',
                f'<text x="{at + 30}" y="{below}">{NAMES[stack]}</text>']
    return "\n".join(out)
