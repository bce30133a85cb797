"""What Flower's strategies make of three rounds of answers, for `test_aggregate.py`; writes `flower.json`.

Run by hand, in an environment of its own with flwr 1.42 and nothing else: it would hold the hub's web libraries back.
"""

import json
import os
from pathlib import Path

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedTrimmedAvg, Krum
from flwr.supercore.task_identity import TaskIdentity

TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1

rng = np.random.default_rng(7)
start = rng.normal(size=6).round(3)
changes = [rng.normal(size=(7, 6)).round(3) for _ in range(3)]
patients = [rng.integers(5, 60, 7) for _ in range(3)]
strategies = {
    "fedavg": FedAvg(),
    "fedadam": FedAdam(eta=0.1, beta_1=0.9, beta_2=0.99, tau=1e-3),
    "trimmed-mean": FedTrimmedAvg(beta=0.2),
    "krum": Krum(num_malicious_nodes=2),
}


def reply(weights: np.ndarray, count: int) -> Message:
    """A device's answer."""
    content = {"arrays": ArrayRecord({"w": Array(weights)}), "metrics": MetricRecord({"num-examples": int(count)})}
    return Message(RecordDict(content), reply_to=Message(RecordDict(), dst_node_id=1, message_type="train"))


out = {"start": start.tolist(), "changes": [c.tolist() for c in changes], "patients": [p.tolist() for p in patients]}
for name, strategy in strategies.items():
    weights, out[name] = start.copy(), []
    for number in range(3):
        if hasattr(strategy, "current_arrays"):
            strategy.current_arrays = {"w": weights}
        answers = [reply(weights + c, n) for c, n in zip(changes[number], patients[number], strict=True)]
        arrays, _ = strategy.aggregate_train(number + 1, answers)
        weights = arrays["w"].numpy()
        out[name].append(weights.round(6).tolist())
Path(__file__).with_name("flower.json").write_text(json.dumps(out) + "\n")
