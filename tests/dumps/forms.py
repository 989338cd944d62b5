"""One routing, written in the form of every recorder."""

import base64
import json
import struct
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch_writer


@dataclass(frozen=True)
class Routing:
    """Selections [layers, tokens, k] of the model layers ``numbers``; ``dense`` layers come before them."""

    ids: np.ndarray
    n_experts: int
    dense: int
    logits: np.ndarray

    @property
    def top_k(self):
        return self.ids.shape[2]

    @property
    def numbers(self):
        return tuple(range(self.dense, self.dense + len(self.ids)))

    @property
    def counts(self):
        return np.stack([np.bincount(rows[rows >= 0], minlength=self.n_experts) for rows in self.ids])

    def with_dense(self, rows, fill=0):
        return np.concatenate([np.full((self.dense, *rows.shape[1:]), fill, rows.dtype), rows])

    def parts(self, n):
        return np.array_split(np.arange(self.ids.shape[1]), n)


def routing(seed=0, layers=3, tokens=40, n_experts=8, top_k=2, dense=2, masked=True):
    """A random routing: logits of one decimal in bfloat16, the top-k of each, a token masked."""
    rng = np.random.default_rng(seed)
    logits = rng.permuted(np.tile(np.arange(n_experts, dtype=np.float32), (layers, tokens, 1)), axis=2)
    ids = np.argsort(-logits, axis=2)[:, :, :top_k].astype(np.int32)
    if masked:
        ids[0, 1, 1:] = -1
    return Routing(ids, n_experts, dense, logits)


def count(rows, n):
    return np.stack([np.bincount(layer[layer >= 0], minlength=n) for layer in rows])


def sglang_stat(folder, r, approx=False):
    steps = [count(r.ids[:, part], r.n_experts) for part in r.parts(3)]
    ring = np.stack([r.with_dense(step) for step in steps] + [r.with_dense(0 * steps[0])] * 2).astype(np.int32)
    data = {"rank": 0, "logical_count": ring, "average_utilization_rate_over_window": None}
    return torch_writer.save(folder / "expert_distribution_recorder_1761.25.pt", data, device="cuda:0")


def slots(r, redundant=4, seed=1):
    """Expert of each slot [all layers, slots]; every expert at least once."""
    rng = np.random.default_rng(seed)
    maps = [rng.permutation(np.append(np.arange(r.n_experts), rng.integers(0, r.n_experts, redundant)))
            for _ in range(r.dense + len(r.ids))]  # fmt: skip
    return np.stack(maps).astype(np.int32)


def in_slots(r, slot_expert):
    """The ids as slots: one of each expert's, whichever comes first or last."""
    out = np.full_like(r.ids, -1)
    for layer in range(len(r.ids)):
        row = slot_expert[r.dense + layer]
        for expert in range(r.n_experts):
            found = np.flatnonzero(row == expert)
            at = r.ids[layer] == expert
            out[layer][at] = np.resize(found, at.sum())
    return out


def sglang_records(folder, r, per_token, ranks=2, passes=3):
    slot_expert = slots(r)
    physical = in_slots(r, slot_expert)
    dumps = []
    for rank, tokens in enumerate(r.parts(ranks)):
        records = []
        for number, part in enumerate(np.array_split(tokens, passes)):
            wide = np.full((len(r.ids), len(part), 8), -1, np.int32)
            wide[:, :, : r.top_k] = physical[:, part]
            counts = count(physical[:, part], slot_expert.shape[1])
            record = {
                "forward_pass_id": number, "rank": rank, "gatherer_key": "primary",
                "global_physical_count": r.with_dense(counts).astype(np.int32),
            }  # fmt: skip
            if per_token:
                record |= {
                    "input_ids": list(range(len(part))), "positions": list(range(len(part))), "extend_seq_lens": None,
                    "forward_mode": 1, "topk_ids_of_layer": r.with_dense(wide, -1),
                    "misc_objects": [{"layer_id": 3, "num_tokens_per_rank": [1] * ranks}],
                }  # fmt: skip
            records.append(record)
        data = {"records": records, "last_physical_to_logical_map": slot_expert}
        dumps.append(torch_writer.save(folder / f"expert_distribution_recorder_1761.2{rank}_{rank}.pt", data))
    return folder


def sglang_per_pass(folder, r):
    return sglang_records(folder, r, per_token=False)


def sglang_per_token(folder, r):
    return sglang_records(folder, r, per_token=True)


def sglang_response(folder, r):
    responses = []
    for part in r.parts(2):
        plain = np.ascontiguousarray(r.with_dense(r.ids[:, part]).transpose(1, 0, 2))
        meta = {"prompt_tokens": len(part) - 1, "completion_tokens": 2,
                "routed_experts": base64.b64encode(plain.astype(np.int32).tobytes()).decode()}  # fmt: skip
        responses.append({"text": "...", "meta_info": meta})
    (folder / "responses.json").write_text(json.dumps(responses))
    return folder / "responses.json"


def vllm_all_layers(folder, r):
    np.savez(folder / "r.npz", routed_experts=r.with_dense(r.ids).transpose(1, 0, 2))
    return folder / "r.npz"


def vllm_moe_layers(folder, r):
    cut = r.ids.shape[1] // 2
    turned = r.ids.transpose(1, 0, 2).astype(np.int16)
    np.savez(folder / "r.npz", prompt_routed_experts=turned[:cut], routed_experts=turned[cut:])
    return folder / "r.npz"


def safetensors(path, arrays, names=None):
    kinds = {"int64": "I64", "int32": "I32", "float32": "F32", "int16": "I16", "float16": "F16", "uint16": "BF16"}
    header, blobs, at = {}, [], 0
    for name, array in arrays.items():
        raw = np.ascontiguousarray(array).tobytes()
        header[name] = {
            "dtype": kinds[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [at, at + len(raw)],
        }
        blobs.append(raw)
        at += len(raw)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))
    return path


def tensorrt_llm(folder, r, ranks=2, iterations=3):
    meta = {"num_experts": r.n_experts, "num_experts_per_token": r.top_k}
    (folder / "meta_info.json").write_text(json.dumps(meta))
    for rank, tokens in enumerate(r.parts(ranks)):
        arrays = {
            f"{100 + number}_{layer}": np.bincount(rows[rows >= 0], minlength=r.n_experts)
            for number, part in enumerate(np.array_split(tokens, iterations))
            for layer, rows in zip(r.numbers, r.ids[:, part], strict=True)
        }
        safetensors(folder / f"rank{rank}.safetensors", arrays)
        raw = {name: np.zeros((1, 2), np.int32) for name in arrays}
        safetensors(folder / f"rank{rank}_raw.safetensors", raw)
    return folder


def bfloat16(values):
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def megatron(folder, r, ranks=2, steps=2, with_logits=False):
    for rank, tokens in enumerate(r.parts(ranks)):
        lines, blob = [], b""
        for step, part in enumerate(np.array_split(tokens, steps)):
            for layer, rows, logits in zip(r.numbers, r.ids[:, part], r.logits[:, part], strict=True):
                line = {
                    "step": step, "stage": "pre_dispatch", "block": "decoder", "layer": layer, "rank": rank,
                    "num_tokens": len(part), "topk": r.top_k, "top_indices": np.sort(rows, axis=1).tolist(),
                }  # fmt: skip
                if with_logits:
                    raw = bfloat16(logits).tobytes()
                    line |= {"logit_offset": len(blob), "logit_bytes": len(raw), "logit_shape": list(logits.shape)}
                    blob += raw
                lines.append(json.dumps(line))
            lines.append(json.dumps({"step": step, "block": "mtp", "mtp_idx": 0, "layer": 99, "top_indices": [[0, 1]]}))
        (folder / f"router_trace_rank{rank}.jsonl").write_text("\n".join(lines) + "\n")
        if with_logits:
            (folder / f"logits_rank{rank}.bin").write_bytes(blob)
    return folder


def megatron_logits(folder, r):
    return megatron(folder, r, with_logits=True)


def gguf(path, tensors, kind="imatrix"):
    def text(value):
        return struct.pack("<Q", len(value.encode())) + value.encode()

    values = text("general.type") + struct.pack("<I", 8) + text(kind)
    values += text("imatrix.datasets") + struct.pack("<IIQ", 9, 8, 1) + text("wiki.txt")
    values += text("imatrix.chunk_count") + struct.pack("<II", 4, 7)
    infos, data = b"", b""
    for name, array in tensors.items():
        infos += text(name) + struct.pack("<I", array.ndim) + struct.pack(f"<{array.ndim}Q", *array.shape[::-1])
        infos += struct.pack("<IQ", 0, len(data))
        data += array.astype("<f4").tobytes()
        data += bytes(-len(data) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 3) + values + infos
    path.write_bytes(head + bytes(-len(head) % 32) + data)
    return path


def imatrix(folder, r):
    tensors = {}
    for layer, row in zip(r.numbers, r.counts, strict=True):
        for part in ("gate", "up", "down"):
            name = f"blk.{layer}.ffn_{part}_exps.weight"
            tensors[f"{name}.in_sum2"] = np.ones((r.n_experts, 4))
            tensors[f"{name}.counts"] = row[:, None]
        tensors[f"blk.{layer}.attn_q.weight.counts"] = np.ones((1, 1))
    return gguf(folder / "imatrix.gguf", tensors)


def flame_parquet(folder, r):
    for layer, rows in zip(r.numbers, r.ids, strict=True):
        table = {
            "indices": pa.array(rows.astype(np.int16).tolist(), pa.list_(pa.int16())),
            "scores": pa.array(np.full(rows.shape, 0.5, np.float16).tolist(), pa.list_(pa.float16())),
        }
        pq.write_table(pa.table(table), folder / f"layer_{layer:02}.parquet")
    return folder


def long_parquet(folder, r):
    layers, tokens = np.meshgrid(r.numbers, np.arange(r.ids.shape[1]), indexing="ij")
    table = {"tok": tokens.ravel(), "layer": layers.ravel(), "top_indices": list(r.ids.reshape(-1, r.top_k).tolist())}
    pq.write_table(
        pa.table(table).take(pa.array(np.random.default_rng(0).permutation(layers.size))), folder / "t.parquet"
    )
    return folder / "t.parquet"


def long_safetensors(folder, r):
    layers, tokens = np.meshgrid(r.numbers, np.arange(r.ids.shape[1]), indexing="ij")
    arrays = {"top_indices": r.ids.reshape(-1, r.top_k), "tok": tokens.ravel(), "layer": layers.ravel()}
    return safetensors(folder / "t.safetensors", arrays)


def counts_csv(folder, r):
    rows = r.with_dense(r.counts)
    lines = [f"{layer},{expert},{n}" for layer, row in enumerate(rows) for expert, n in enumerate(row)]
    (folder / "c.csv").write_text("layer_id,expert_id,count\n" + "\n".join(lines) + "\n")
    return folder / "c.csv"


def moe_trace_csv(folder, r):
    lines = [f"{layer},{expert}" for layer, rows in zip(r.numbers, r.ids, strict=True)
             for expert in rows.ravel() if expert >= 0]  # fmt: skip
    (folder / "c.csv").write_text("layer,expert\n" + "\n".join(lines) + "\n")
    return folder / "c.csv"


def selections_csv(folder, r):
    lines = [f"{token},{layer},{expert}" for layer, rows in zip(r.numbers, r.ids, strict=True)
             for token, row in enumerate(rows) for expert in row if expert >= 0]  # fmt: skip
    (folder / "c.csv").write_text("token,layer,expert\n" + "\n".join(lines) + "\n")
    return folder / "c.csv"


def wide_csv(folder, r):
    names = ",".join(f"expert_{i}" for i in range(r.top_k))
    lines = [",".join(map(str, (layer, token, *row))) for layer, rows in zip(r.numbers, r.ids, strict=True)
             for token, row in enumerate(rows)]  # fmt: skip
    (folder / "c.csv").write_text(f"layer,token,{names}\n" + "\n".join(lines) + "\n")
    return folder / "c.csv"


def counts_npz(folder, r):
    steps = np.stack([r.with_dense(count(r.ids[:, part], r.n_experts)) for part in r.parts(3)])
    np.savez(folder / "c.npz", logical_count=steps)
    return folder / "c.npz"


def ids_npz(folder, r):
    np.savez(folder / "i.npz", topk_ids=r.ids, layer_ids=np.array(r.numbers))
    return folder / "i.npz"


def layers_npz(folder, r):
    np.savez(folder / "i.npz", **{f"topk_ids_{layer}": rows for layer, rows in zip(r.numbers, r.ids, strict=True)})
    return folder / "i.npz"


ALL = (
    sglang_stat, sglang_per_pass, sglang_per_token, sglang_response, vllm_all_layers, vllm_moe_layers, tensorrt_llm,
    megatron, megatron_logits, imatrix, flame_parquet, long_parquet, long_safetensors, counts_csv, moe_trace_csv,
    selections_csv, wide_csv, counts_npz, ids_npz, layers_npz,
)  # fmt: skip
# Forms whose file does not number the model's layers, as all of vLLM's newer ones.
UNNUMBERED = (vllm_moe_layers,)
# Forms that have no way to say that a token has no expert.
NO_MASK = (sglang_response, vllm_all_layers, megatron, megatron_logits)
