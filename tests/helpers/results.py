"""Finished runs as the harness writes them, with made-up answers."""

import json

import numpy as np


def write(root, method, budget="t192", executed=192.0, scores=(1.0, 0.0) * 20, **more):
    """A finished run as the harness writes it; ``more`` overrides fields of its record.

    ``changed`` is a function from a document's id to entries of its sample.
    """
    tokens, entry = None, None
    if budget.startswith("t"):
        tokens = int(budget[1:])
        entry = {"name": budget, "tokens": tokens, "floor": None}
    elif budget.startswith("s"):
        share = float(budget[1:]) / 100
        tokens, entry = 576 * share, {"name": budget, "share": share}
    config = {
        "experiment": "e", "seed": more.pop("seed", 0), "output_root": str(root),
        "model": {"name": "pocket"}, "method": {"name": method},
        "benchmark": {"name": "vqa", "limit": len(scores), "metric": "exact_match"},
        "budget": entry,
        **more.pop("config", {}),
    }  # fmt: skip
    key = more.pop("key", "k")
    folder = root / "e" / "pocket" / method / budget / f"vqa-{key}"
    folder.mkdir(parents=True)
    order = more.pop("order", range(len(scores)))
    changed = more.pop("changed", lambda doc: {})
    samples = [
        {
            "doc_id": doc, "task": "vqa", "type": ("count", "color")[doc % 2],
            "question": f"q{doc}", "answer": "a", "target": f"t{doc}",
            "scores": {"exact_match": scores[doc]},
            "vision_tokens": [576, *[int((4 * executed - 576) / 3)] * 3],
            "resident_tokens": [int(executed)] * 4, "seconds": 0.1 * (doc + 1), **changed(doc),
        }
        for doc in order
    ]  # fmt: skip
    record = {
        "schema": 1, "experiment": "e", "model": "pocket", "method": method, "budget": budget,
        "preset": f"method/{method}.yaml", "benchmark": "vqa", "metric": "exact_match", "key": key,
        "config": config, "n": len(samples), "limit": None, "metrics": {},
        "counts": {
            "nominal": tokens, "paper_average": executed - 9, "executed_average": executed,
            "resident": executed - 1,
        },
        "flops_ratio": executed / 576, "kv_bytes": executed * 10, "vanilla_kv_bytes": 5760.0,
        "fingerprint": "f1", "versions": {"torch": "2"}, "hardware": {"cpu": "x", "threads": 1},
        "seed": 0, "started": "a", "finished": "b", "seconds": 1.0, "floor": None, **more,
    }  # fmt: skip
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in samples))
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def floor(root, method, budget, value):
    nothing = {"counts": None, "flops_ratio": None, "hardware": None, "kv_bytes": None}
    folder = write(root, method, budget, scores=(), floor=value, **nothing)
    (folder / "samples.jsonl").unlink()


def draws(seed, n=40, p=0.7):
    return tuple(float(x) for x in np.random.default_rng(seed).random(n) < p)


def write_three(root):
    """Vanilla, random and MustDrop at one budget."""
    write(root, "vanilla", "none", 576.0, draws(0, p=0.9))
    write(root, "random", scores=draws(1))
    write(root, "mustdrop", executed=193.0, scores=draws(2))
    return root
