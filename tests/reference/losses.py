"""The balance losses in plain Python, sum by sum, on a batch written out in full (no weights)."""

import math

from moesim.balance import loss_products
from tests.reference.routing import affinities


def mean_affinity(logits, score):
    """P_i; sigmoid scores are divided by their sum over the experts first."""
    rows = []
    for token in logits:
        s = affinities([float(x) for x in token], score)
        rows.append([value / sum(s) for value in s])
    return [sum(row[i] for row in rows) / len(rows) for i in range(len(rows[0]))]


def selections(expert_ids, n_experts):
    return [sum(int(i == e) for row in expert_ids for i in row) for e in range(n_experts)]


def expert_loss(logits, expert_ids, score, alpha, document=False):
    tokens, n_experts, top_k = len(logits), len(logits[0]), len(expert_ids[0])
    p = mean_affinity(logits, score)
    f = [c / (top_k * tokens) * (1 if document else n_experts) for c in selections(expert_ids, n_experts)]
    return alpha * sum(f[i] * p[i] for i in range(n_experts))


def device_loss(logits, expert_ids, score, device_of_expert, alpha):
    tokens, n_experts, top_k = len(logits), len(logits[0]), len(expert_ids[0])
    p = mean_affinity(logits, score)
    f = [c * n_experts / (top_k * tokens) for c in selections(expert_ids, n_experts)]
    total = 0.0
    for d in sorted(set(device_of_expert)):
        members = [e for e in range(n_experts) if device_of_expert[e] == d]
        total += sum(f[e] for e in members) / len(members) * sum(p[e] for e in members)
    return alpha * total


def communication_loss(logits, expert_ids, score, device_of_expert, reach, alpha, document=False):
    tokens = len(logits)
    p = mean_affinity(logits, score)
    devices = sorted(set(device_of_expert))
    total = 0.0
    for d in devices:
        sent = sum(1 for row in expert_ids if any(e >= 0 and device_of_expert[e] == d for e in row))
        f = sent / (reach * tokens) * (1 if document else len(devices))
        total += f * sum(p[e] for e in range(len(p)) if device_of_expert[e] == d)
    return alpha * total


def sequence_loss(logits, expert_ids, score, sequence_id, alpha):
    losses = []
    for sequence in sorted(set(sequence_id)):
        tokens = [t for t, s in enumerate(sequence_id) if s == sequence]
        losses.append(expert_loss([logits[t] for t in tokens], [expert_ids[t] for t in tokens], score, alpha))
    return sum(losses) / len(losses)


def z_loss(logits, alpha):
    return alpha * sum(math.log(sum(math.exp(x) for x in token)) ** 2 for token in logits) / len(logits)


def sequence_imbalance(expert_ids, sequence_id, n_experts):
    ratios = []
    for sequence in sorted(set(sequence_id)):
        rows = [row for row, s in zip(expert_ids, sequence_id, strict=True) if s == sequence]
        load = selections(rows, n_experts)
        ratios.append(max(load) / (sum(load) / n_experts) if sum(load) else 1.0)
    return ratios


def losses_of_sums(sums, spec, device_of_expert, factors):
    """The value of each loss by name: the product of what it is taken apart into."""
    products = loss_products(sums, spec, device_of_expert, factors)
    return {name: math.prod(product.values()) for name, product in products.items()}
