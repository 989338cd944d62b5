"""The router of a configuration: what its keys say, else what the family's code does, else an assumption and a note."""

from typing import Literal

from moesim.model.config_facts import Facts
from moesim.model.model_families import Family, Score
from moesim.model.model_spec import PublishedRouter

# noaux_tc is DeepSeek's name for a sigmoid with a selection bias (dots.llm1 has it under scoring_func).
_SCORES: dict[str, Score] = {
    "softmax": "softmax", "sigmoid": "sigmoid", "sqrtsoftplus": "sqrtsoftplus", "noaux_tc": "sigmoid",
}  # fmt: skip


def published_router(facts: Facts, family: Family | None) -> PublishedRouter:
    """Read the router.

    Raises:
        InputError: a score that is not known, more experts per token than there are, groups that hold too few.
    """
    top_k = facts.size("top_k")
    choices = facts.size("n_experts") + (facts.maybe("zero_experts") or 0)
    if top_k > choices:
        raise facts.error(facts.find("top_k")[0] or "top_k", f"is {top_k} of {choices} experts")
    method = facts.word("method")
    score = _score(facts, family, method)
    bias = _bias(facts, family, method, score)
    n_groups, top_groups = _groups(facts, method, choices, top_k)
    normalize = facts.flag("normalize")
    if normalize is None:
        normalize = True if family is None else family.router.normalize
        if family is None:
            facts.notes.append("norm_topk_prob is not in the file: gates taken as normalised over the selected experts")
    kind: Literal["v1", "v2", "v3"] = "v3" if bias else "v2" if n_groups > 1 else "v1"
    group_score: Literal["top2", "max"] = "top2" if kind == "v3" else "max"
    scale = facts.factor("scale")
    return PublishedRouter(kind, top_k, score, normalize, scale, n_groups, top_groups, group_score)


def _score(facts: Facts, family: Family | None, method: str | None) -> Score:
    key, _ = facts.find("score")
    word = facts.word("score")
    if word is not None:
        if word not in _SCORES:
            raise facts.error(key, f"must be softmax or sigmoid (or sqrtsoftplus), got {word!r:.60}")
        return _SCORES[word]
    sigmoid, softmax = facts.flag("sigmoid"), facts.flag("softmax")
    if sigmoid is not None or softmax is not None:
        return "sigmoid" if sigmoid or softmax is False else "softmax"
    if family is not None and (method != "noaux_tc" or family.router.score != "softmax"):
        return family.router.score
    if method == "noaux_tc":
        return "sigmoid"
    facts.notes.append("scoring_func is not in the file: affinities taken as a softmax of the logits")
    return "softmax"


def _bias(facts: Facts, family: Family | None, method: str | None, score: str) -> bool:
    stated = facts.flag("bias")
    if stated is not None:
        return stated
    if method is not None:
        return method == "noaux_tc"
    if family is not None:
        known = family.router
        return known.bias if known.score == score else score != "softmax"
    if score != "softmax":
        facts.notes.append(f"whether the {score} router selects with a bias is not in the file: taken as with one")
    return score != "softmax"


def _groups(facts: Facts, method: str | None, choices: int, top_k: int) -> tuple[int, int]:
    """Groups of experts and how many of them a token may reach; 1 and 1 where nothing limits it."""
    n_groups, top_groups = facts.maybe("n_groups") or 1, facts.maybe("top_groups")
    if method == "greedy" or facts.flag("grouped") is False or n_groups == 1:
        return 1, 1
    key = facts.find("n_groups")[0] or facts.find("n_experts")[0]
    if top_groups is None:
        facts.notes.append(f"{key} is {n_groups} but no key says how many groups a token may reach: taken as no limit")
        return 1, 1
    if n_groups > choices or top_groups > n_groups:
        raise facts.error(key, f"is {n_groups} with {top_groups} groups per token and {choices} experts")
    if choices % n_groups:
        raise facts.error(key, f"is {n_groups}, which does not divide {choices} experts", "groups are of equal size")
    if choices // n_groups * top_groups < top_k:
        raise facts.error(key, f"is {n_groups}: {top_groups} groups hold fewer than {top_k} of {choices} experts")
    return (1, 1) if top_groups == n_groups else (n_groups, top_groups)
