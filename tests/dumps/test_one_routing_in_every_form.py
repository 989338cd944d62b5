import forms
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.dumps import read_routing, write_routing


@pytest.mark.parametrize("form", forms.ALL, ids=lambda form: form.__name__)
@pytest.mark.parametrize("seed", range(3))
def test_every_form_gives_the_same_counts_of_logical_experts(tmp_path, form, seed):
    rng = np.random.default_rng(seed)
    top_k = int(rng.integers(2, 5))
    shape = {
        "layers": int(rng.integers(1, 5)),
        "tokens": int(rng.integers(24, 60)),
        "n_experts": int(rng.integers(8, 17)),
    }
    routing = forms.routing(seed, top_k=top_k, dense=seed, masked=form not in forms.NO_MASK, **shape)
    told = {"top_k": top_k} if form is forms.sglang_response else {}
    trace = read_routing(form(tmp_path, routing), n_experts=routing.n_experts, **told)
    assert np.array_equal(trace.expert_counts(), routing.counts)
    assert trace.expert_counts().dtype == np.int64
    assert trace.n_experts == routing.n_experts
    wanted = tuple(range(len(routing.ids))) if form in forms.UNNUMBERED else routing.numbers
    assert trace.layers == wanted
    assert len(trace.source.sha256) == 64


@pytest.mark.parametrize("form", forms.ALL, ids=lambda form: form.__name__)
def test_a_trace_of_our_own_reads_back_as_it_was_and_has_the_same_bytes(tmp_path, form):
    (tmp_path / "in").mkdir()
    routing = forms.routing(masked=form not in forms.NO_MASK)
    trace = read_routing(form(tmp_path / "in", routing), n_experts=8, top_k=2)
    for name in ("a.npz", "b.npz"):
        write_routing(tmp_path / name, trace)
    again = read_routing(tmp_path / "a.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    for name, value in vars(trace).items():
        assert (
            np.array_equal(getattr(again, name), value)
            if isinstance(value, np.ndarray)
            else getattr(again, name) == value
        )


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6), layers=st.integers(1, 4), tokens=st.integers(8, 40), top_k=st.integers(2, 8),
    dense=st.integers(0, 3), form=st.sampled_from(forms.ALL),
)  # fmt: skip
def test_any_routing_survives_any_form(tmp_path_factory, seed, layers, tokens, top_k, dense, form):
    if form is forms.vllm_all_layers and tokens < layers + dense:
        return
    routing = forms.routing(seed, layers, tokens, 12, top_k, dense, masked=form not in forms.NO_MASK)
    path = form(tmp_path_factory.mktemp("dump"), routing)
    trace = read_routing(path, n_experts=12, top_k=top_k if form is forms.sglang_response else None)
    assert np.array_equal(trace.expert_counts(), routing.counts)
