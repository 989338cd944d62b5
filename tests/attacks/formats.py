"""Every kind of file that moesim reads: small whole samples, and the command that reads one.

``FILE`` in a command is the mutated file, ``HERE`` its folder, in which ``beside`` puts what the command needs too.
"""

import functools
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_TESTS = Path(__file__).resolve().parents[1]
_SMALL = ("-o", "workload.tokens_per_rank=4", "--no-report", "--out", "HERE/out")
_FIRST = """\
cluster: {topology: hgx-h800}
model: {n_experts: 8, hidden: 128, expert_hidden: 128, n_shared: 0}
routing: {kind: v1, top_k: 2}
"""
SCENARIO = """\
name: small
seed: 3
cluster:
  topology: hgx-h800
  nic_bandwidth: 400Gb/s
  overrides: [{where: n0.gpu1.nic, bandwidth: 200Gb/s}]
model: {n_experts: 8, hidden: 128, expert_hidden: 128, n_shared: 1}
routing: {kind: v3, top_k: 2, groups: 4, top_groups: 2, bias: zero}
workload:
  synthetic: {kind: skew, max_violation: 3.0}
  tokens_per_rank: 4
placement: {policy: contiguous, redundant_experts: 0}
alltoall: {algorithm: deepep-normal, dispatch_dtype: fp8}
schedule: {phase: prefill, start_offset: {distribution: lognormal, sigma: 0.1, scale: 5us}, other_time: 1us}
losses: {form: paper, expert: 0.003, sequence: 1.0e-4}
thresholds: ["layer_time_s < 2s"]
"""
TOPOLOGY = """\
kind: rail
gpu: h100
nodes: 2
gpus_per_node: 2
nvlink: {bandwidth: 450GB/s, latency: 0us}
nic: {bandwidth: 400Gb/s, latency: 2us}
leaf_spine: {spines: 1, latency: 0us}
"""
CALIBRATION = """\
algorithm: deepep-normal
gpu: h800
source: ours
ports: {nvlink: 200GB/s, nic: 50GB/s, sms: 132}
row_spread: 0.03
error: {dispatch: 0.1}
dispatch: {nvlink_rate: 100GB/s, nic_rate: 25GB/s}
combine: {nvlink_rate: 100GB/s, nic_rate: 25GB/s}
"""
ROWS = """\
op,ranks,nodes,tokens,time_us
alltoall,8,1,1048576,55
alltoall,16,2,8388608,300
"""
MORE_ROWS = """\
id,cluster,library,gpu,nic_GBps_per_gpu,nodes,ranks,tokens,hidden,top_k,experts,top_nodes,dtype,sms,op,quantity,value
a,mine,deepep-v1,H100,50,2,16,4096,7168,8,256,2,fp8,24,dispatch,rdma_GBps,43
b,mine,deepep-ll,H100,50,1,8,128,7168,8,288,,fp8,,dispatch,time_us,90
"""
STEPS = """\
id,kind,source,date,model,gpu,nodes,gpus,phase,dp,tp,pp,ep,per_gpu,context,dtype,overlap,routing,redundant,library,metric,value,unit,confidence,draft_tokens,acceptance
s1,decode,a source,2025-03,DeepSeek-V2-Lite,H800,1,8,decode,8,1,1,8,4 requests,128,bf16,none,balanced by construction,0,theirs,throughput,2324.75,tok/s/GPU,S1,1,0.6
"""  # noqa: E501
KERNELS = """\
kernel,gpu,dtype,experts,tokens_per_expert,hidden,inter,time_us
grouped_gemm,h800,bf16,8,64,7168,2048,600
grouped_gemm,h800,bf16,8,256,7168,2048,900
"""
FOREIGN = """\
framework,version,device,op_name,kernel_source,moe_dtype,num_tokens,hidden_size,inter_size,topk,num_experts,moe_tp_size,moe_ep_size,distribution,latency
SGLang,0.5.10,NVIDIA H100 80GB HBM3,moe_generation,deepepmoe,fp8_block,4096,7168,2048,8,256,1,16,uniform,0.35
"""
CONFIG = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48,
    "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8,
    "moe_intermediate_size": 768, "intermediate_size": 6144, "vocab_size": 151936, "norm_topk_prob": True,
    "decoder_sparse_step": 1, "mlp_only_layers": [], "tie_word_embeddings": False,
}  # fmt: skip
DEEPSEEK = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_size": 7168,
    "num_hidden_layers": 61, "first_k_dense_replace": 3, "moe_layer_freq": 1, "num_attention_heads": 128,
    "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4,
    "moe_intermediate_size": 2048, "intermediate_size": 18432, "vocab_size": 129280, "scoring_func": "sigmoid",
    "topk_method": "noaux_tc", "routed_scaling_factor": 2.5, "norm_topk_prob": True, "num_nextn_predict_layers": 1,
}  # fmt: skip
PLACED = {"slot_expert": [[0, 1, 2, 3, 4, 5, 6, 7]], "n_ranks": 8}
TOPO_M = """\
\tGPU0\tGPU1\tGPU2\tNIC0\tNIC1\tNIC2\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID
GPU0\t X \tNV18\tNV18\tPIX\tSYS\tSYS\t0-55\t0\t\tN/A
GPU1\tNV18\t X \tNV18\tSYS\tPIX\tSYS\t0-55\t0\t\tN/A
GPU2\tNV18\tNV18\t X \tSYS\tSYS\tPIX\t0-55\t0\t\tN/A
NIC0\tPIX\tSYS\tSYS\t X \tSYS\tSYS
NIC1\tSYS\tPIX\tSYS\tSYS\t X \tSYS
NIC2\tSYS\tSYS\tPIX\tSYS\tSYS\t X

NIC Legend:
  NIC0: mlx5_0
  NIC1: mlx5_1
  NIC2: mlx5_2
"""
NCCL_XML = """\
<system version="1">
  <cpu numaid="0" host_hash="0x1" arch="x86_64" vendor="GenuineIntel" familyid="6" modelid="143">
    <pci busid="0000:00:00.0" class="0x060400" link_speed="32.0 GT/s PCIe" link_width="16">
      <pci busid="0000:01:00.0" class="0x030200" link_speed="32.0 GT/s PCIe" link_width="16">
        <gpu dev="0" sm="90" rank="0"><nvlink target="0000:05:00.0" count="18" tclass="0x068000"/></gpu></pci>
      <pci busid="0000:02:00.0" class="0x020700" link_speed="32.0 GT/s PCIe" link_width="16">
        <nic><net name="mlx5_0" dev="0" speed="400000" port="1" guid="0x1"/></nic></pci></pci>
    <pci busid="0000:10:00.0" class="0x060400" link_speed="32.0 GT/s PCIe" link_width="16">
      <pci busid="0000:11:00.0" class="0x030200" link_speed="32.0 GT/s PCIe" link_width="16">
        <gpu dev="1" sm="90" rank="1"><nvlink target="0000:05:00.0" count="18" tclass="0x068000"/></gpu></pci>
      <pci busid="0000:12:00.0" class="0x020700" link_speed="32.0 GT/s PCIe" link_width="16">
        <nic><net name="mlx5_1" dev="1" speed="400000" port="1" guid="0x2"/></nic></pci></pci>
  </cpu>
</system>
"""
ASTRA = "topology: [ Switch, Switch ]\nnpus_count: [ 8, 4 ]\nbandwidth: [ 400.0, 50.0 ]\nlatency: [ 936.25, 2000.0 ]\n"
SIMAI = """\
8 2 2 2 8 H100
4 5 6 7
0 4 2880Gbps 0.000025ms 0
1 4 2880Gbps 0.000025ms 0
2 5 2880Gbps 0.000025ms 0
3 5 2880Gbps 0.000025ms 0
0 6 400Gbps 0.0005ms 0
1 7 400Gbps 0.0005ms 0
2 6 400Gbps 0.0005ms 0
3 7 400Gbps 0.0005ms 0
"""
IBNETDISCOVER = """\
Switch\t65 "S-b83fd20300aa0010"\t\t# "MF0;leafA:MQM9700/U1" enhanced port 0 lid 11 lmc 0
[1]\t"H-0c42a10300000100"[1](c42a10300000100) \t\t# "node01 mlx5_0" lid 100 4xNDR
[3]\t"H-0c42a10300000200"[1](c42a10300000200) \t\t# "node02 mlx5_0" lid 110 4xNDR

Ca\t1 "H-0c42a10300000100"\t\t# "node01 mlx5_0"
[1](c42a10300000100) \t"S-b83fd20300aa0010"[1]\t\t# lid 100 lmc 0 "MF0;leafA:MQM9700/U1" lid 11 4xNDR

Ca\t1 "H-0c42a10300000200"\t\t# "node02 mlx5_0"
[1](c42a10300000200) \t"S-b83fd20300aa0010"[3]\t\t# lid 110 lmc 0 "MF0;leafA:MQM9700/U1" lid 11 4xNDR
"""


@dataclass(frozen=True)
class Format:
    """A kind of file: its name and ending, whole samples of it, and the command that reads one."""

    name: str
    file: str
    samples: Callable[[], list[bytes]]
    command: tuple[str, ...]
    beside: Callable[[Path], object] = lambda folder: None


def _texts(*texts):
    return lambda: [text.encode() if isinstance(text, str) else json.dumps(text, indent=1).encode() for text in texts]


def _saved(save, *arrays):
    def samples():
        made = []
        for array in arrays:
            stream = io.BytesIO()
            save(stream, **array) if isinstance(array, dict) else save(stream, array)
            made.append(stream.getvalue())
        return made

    return samples


def _dumps(*names):
    """Samples of recorders' dumps that are one file, as the tests of the readers write them."""

    def samples():
        sys.path.insert(0, str(_TESTS / "dumps"))
        try:
            import forms
        finally:
            sys.path.pop(0)
        made = []
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                getattr(forms, name)(Path(folder), forms.routing())
                made += [path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()][:1]
        return made

    return samples


def _parquet():
    import pyarrow as pa
    import pyarrow.parquet as pq

    made = []
    for table in (
        {"layer": [0, 0, 1, 1], "expert": [0, 1, 0, 1], "count": [3, 4, 5, 6]},
        {"layer": [0, 0], "topk_ids": [[1, 2], [3, 4]]},
    ):
        stream = io.BytesIO()
        pq.write_table(pa.table(table), stream)
        made.append(stream.getvalue())
    return made


def _logs():
    # pplx-kernels' is read, and then not simulated.
    return [path.read_bytes() for path in sorted((_TESTS / "logs" / "samples").iterdir()) if path.name != "pplx.tsv"]


def _with_scenario(text):
    return lambda folder: (folder / "s.yaml").write_text(_FIRST + text)


def _with_run(folder):
    from moesim import load_scenario, simulate

    (folder / "first.yaml").write_text(
        _FIRST + "workload: {synthetic: {kind: skew, max_violation: 3.0}, tokens_per_rank: 4}\n"
    )
    simulate(load_scenario(folder / "first.yaml")).save(folder / "run")


_COUNTS = {f"{layer}": np.arange(1, 9) for layer in range(2)}
_IDS = np.stack([np.arange(40) % 8, (np.arange(40) + 1) % 8], axis=1).astype(np.int32)
_IMPORT = ("topo", "import", "FILE", "--gpu", "h100", "--nic", "400Gb/s", "--nvlink", "450GB/s")
_REPLAY = {"version": 1, "results": [{"size": 896, "out_of_place": {"time": 12.5, "alg_bw": 0.33792, "bus_bw": 0.3}}]}
_VERDICT = ("place", "HERE/s.yaml", "-q", "--json")

FORMATS = (
    Format("scenario", "s.yaml", _texts(SCENARIO), ("run", "FILE", *_SMALL)),
    Format(
        "topology",
        "t.yaml",
        _texts(TOPOLOGY, (_TESTS.parent / "topologies" / "two-nodes-explicit.yaml").read_text()),
        ("topo", "show", "FILE"),
    ),
    Format(
        "counts csv",
        "c.csv",
        _texts("layer,expert,count\n" + "".join(f"1,{e},{e + 1}\n" for e in range(8))),
        ("run", "HERE/s.yaml", *_SMALL),
        _with_scenario("workload: {counts: c.csv, tokens_per_rank: 4}\n"),
    ),
    Format(
        "counts npz",
        "c.npz",
        _saved(np.savez, {"counts": np.ones((2, 8), np.int64)}),
        ("run", "HERE/s.yaml", *_SMALL),
        _with_scenario("workload: {counts: c.npz, tokens_per_rank: 4}\n"),
    ),
    Format(
        "expert ids",
        "i.npy",
        _saved(np.save, _IDS),
        ("run", "HERE/s.yaml", *_SMALL),
        _with_scenario("workload: {expert_ids: i.npy, tokens_per_rank: 4}\n"),
    ),
    Format(
        "bias",
        "b.npy",
        _saved(np.save, np.linspace(-1, 1, 8).astype(np.float32)),
        ("run", "HERE/s.yaml", *_SMALL),
        lambda folder: (folder / "s.yaml").write_text(SCENARIO.replace("bias: zero", "bias: b.npy")),
    ),
    Format(
        "recording",
        "r.npz",
        lambda: [(_TESTS / "data" / "tiny-v3-seed1.npz").read_bytes()],
        ("routing", "show", "FILE", "--json"),
    ),
    Format(
        "dumps zip",
        "d.npz",
        _dumps("counts_npz", "ids_npz", "layers_npz"),
        ("routing", "show", "FILE", "--json", "--top-k", "2"),
    ),
    Format(
        "dumps torch",
        "d.pt",
        _dumps("sglang_stat", "sglang_per_pass"),
        ("routing", "show", "FILE", "--json", "--top-k", "2"),
    ),
    Format(
        "dumps safetensors",
        "d.safetensors",
        _dumps("long_safetensors"),
        ("routing", "show", "FILE", "--json", "--top-k", "2"),
    ),
    Format("dumps gguf", "d.gguf", _dumps("imatrix"), ("routing", "show", "FILE", "--json", "--top-k", "2")),
    Format(
        "dumps json",
        "d.json",
        _dumps("sglang_response", "vllm_all_layers"),
        ("routing", "show", "FILE", "--json", "--experts", "8", "--top-k", "2", "--layers", "0..4"),
    ),
    Format(
        "dumps csv",
        "d.csv",
        _dumps("counts_csv", "moe_trace_csv", "selections_csv", "wide_csv"),
        ("routing", "show", "FILE", "--json", "--top-k", "2"),
    ),
    Format(
        "dumps parquet", "d.parquet", _parquet, ("routing", "show", "FILE", "--json", "--top-k", "2", "--experts", "8")
    ),
    Format(
        "snapshots",
        "d.csv",
        _texts(
            "step,layer,expert,count\n" + "".join(f"{s},1,{e},{e + s + 1}\n" for s in (0, 50, 100) for e in range(8))
        ),
        (
            "balance",
            "quickstart",
            "-o",
            "model.n_experts=8",
            "-o",
            "routing.groups=1",
            "-o",
            "routing.top_groups=1",
            "-o",
            "routing.top_k=2",
            "--steps",
            "20",
            "--sequences",
            "1",
            "--length",
            "8",
            "--fit",
            "FILE",
            "--json",
        ),
    ),
    Format("kernel table", "k.csv", _texts(KERNELS), ("kernels", "show", "FILE", "--json")),
    Format(
        "kernels import",
        "k.csv",
        _texts(FOREIGN),
        ("kernels", "import", "FILE", "--gpu", "h100", "--out", "HERE/o.csv"),
    ),
    Format("config.json", "config.json", _texts(CONFIG, DEEPSEEK), ("model", "FILE", "--json")),
    Format(
        "calibration",
        "own.yaml",
        _texts(CALIBRATION),
        ("run", "HERE/s.yaml", *_SMALL),
        _with_scenario(
            "workload: {synthetic: {kind: skew, max_violation: 3.0}, tokens_per_rank: 4}\n"
            "alltoall: {algorithm: deepep-normal, calibration: own.yaml}\n"
        ),
    ),
    Format("calibrate rows", "m.csv", _texts(ROWS), ("calibrate", "FILE", "-a", "nccl-direct", "-g", "h100")),
    Format("validate rows", "m.csv", _texts(MORE_ROWS), ("validate", "--rows", "FILE", "--json")),
    Format(
        "logs",
        "m.log",
        _logs,
        (
            "validate",
            "--rows",
            "FILE",
            "--json",
            "--given",
            "gpu=h100",
            "--given",
            "ranks=16",
            "--given",
            "tokens=128",
            "--given",
            "hidden=7168",
            "--given",
            "top_k=8",
        ),
    ),
    Format("validate steps", "steps.csv", _texts(STEPS), ("validate", "--steps", "FILE", "--json", "-j", "1")),
    Format("replay json", "m.json", _texts(_REPLAY), ("replay", "import", "FILE", "HERE/run"), _with_run),
    Format(
        "replay matrix",
        "m.txt",
        _texts("".join("528 " * 8 + "\n" for _ in range(8))),
        ("replay", "import", "HERE/m.json", "HERE/run", "--matrix", "FILE"),
        lambda folder: (_with_run(folder), (folder / "m.json").write_text(json.dumps(_REPLAY))),
    ),
    Format(
        "placement map",
        "map.json",
        _texts({"physical_to_logical_map": [[0, 1, 2, 3, 4, 5, 6, 7]]}),
        ("run", "HERE/s.yaml", *_SMALL),
        _with_scenario(
            "workload: {synthetic: {kind: skew, max_violation: 3.0}, tokens_per_rank: 4}\nplacement: {file: map.json}\n"
        ),
    ),
    Format("nvidia-smi topo", "t.txt", _texts(TOPO_M), _IMPORT),
    Format("nccl xml", "t.xml", _texts(NCCL_XML), _IMPORT),
    Format("astra-sim", "t.yml", _texts(ASTRA), _IMPORT),
    Format("simai", "t.txt", _texts(SIMAI), _IMPORT),
    Format("ibnetdiscover", "t.txt", _texts(IBNETDISCOVER), (*_IMPORT, "--gpus-per-node", "1")),
)

_GOLDEN = _TESTS / "results/golden/run-schema-2"
# The verbs that read a result folder, and the ends of the names of what they read of it.
_READERS = {
    ("report", "HERE/run", "--out", "HERE/page.html"): ("",),
    ("explain", "HERE/run"): (".json",),
    ("compare", "HERE/run", "HERE/whole"): (".json", "links.parquet", "transfers.parquet", ".yaml"),
    ("trace", "HERE/run", "--out", "HERE/trace.json"): ("trace.json.gz",),
    ("replay", "export", "HERE/run", "--out", "HERE/m.txt"): ("traffic.npz", "summary.json", "provenance.json"),
}


def _result_folders(folder):
    for name in ("run", "whole"):
        shutil.copytree(_GOLDEN, folder / name, dirs_exist_ok=True)


@functools.cache
def _swept():
    """The folder of a small sweep that has ended, and its scenario beside it."""
    folder = Path(tempfile.mkdtemp(prefix="moesim-swept-"))
    (folder / "s.yaml").write_text(SCENARIO)
    environment = os.environ | {"PYTHONPATH": str(_TESTS.parent)}
    command = [word.replace("HERE", str(folder)) for word in _SWEEP]
    subprocess.run([sys.executable, "-m", "moesim", *command], check=True, env=environment, capture_output=True)
    return folder


def _swept_here(folder):
    shutil.rmtree(folder / "swept", ignore_errors=True)
    shutil.copytree(_swept(), folder, dirs_exist_ok=True)


_SWEEP = ("sweep", "HERE/s.yaml", "-q", "--jobs", "1", "-p", "seed=0..2", "--out", "HERE/swept")
FOLDERS = tuple(
    Format(
        f"{command[0]} {path.name}", f"run/{path.name}", lambda path=path: [path.read_bytes()], command, _result_folders
    )
    for command, ends in _READERS.items()
    for path in sorted(_GOLDEN.iterdir())
    if path.name.endswith(ends)
)
JOURNALS = (
    Format(
        "journal",
        "swept/journal.sqlite",
        lambda: [(_swept() / "swept/journal.sqlite").read_bytes()],
        _SWEEP,
        _swept_here,
    ),
)
