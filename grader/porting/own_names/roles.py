"""What a name says: `trf_blocks.0.att.W_query.weight` is the weight of layer 0's query projection.

Names are read part by part, from outside in. A word that several programs use for different things, as `fc1` and
`c_proj`, is read by the place it stands in, or left open.
"""

import re
from dataclasses import dataclass

WEIGHTS = {"weight", "weights", "scale", "gain", "gamma", "g", "w", "kernel", "embedding", "embeddings", "table"}
BIASES = {"bias", "shift", "beta", "b", "offset"}
ATTENTION = re.compile(r"(^|_)(self_?)?(att|attn|attention|mha|gqa|sa|sdpa)(_?(block|layer|module|head|heads))?($|_)")
MLP = re.compile(r"(^|_)(mlp|ff|ffn|ffwd|feed_?forward|moe|experts?|swiglu|glu)(_?(block|layer|module|net))?($|_)")
NORM = re.compile(r"norm|(^|_)ln(_|\d|$)|(^|_)rms(_|\d|$)")
AROUND = re.compile(
    r"^(w|to|linear|lin|in)_(?=[a-z])|_(proj|projection|linear|lin|layer|weights?|kernel|matrix|fc|dense|heads?)$"
)
ROLES = {
    "q": "q query queries wq qw",
    "k": "k key keys wk kw",
    "v": "v value values wv vw val",
    "qkv": "qkv wqkv c_attn query_key_value kqv attn_qkv qkvs",
    "kv": "kv wkv key_value",
    "conv": "conv1d qkv_conv1d conv_qkv",
    "q_conv": "q_conv1d q_conv conv_q",
    "k_conv": "k_conv1d k_conv conv_k",
    "v_conv": "v_conv1d v_conv conv_v",
    "gate_up": "gate_up gate_and_up up_gate w13 gating_einsum fused_gate_up",
}
IN_ATTENTION = {"o": "o wo out output c c_proj proj dense projection attn_out o_w unify", "qkv": "in in_proj"}
IN_MLP = {
    "gate": "gate w1 gate_w wg",
    "up": "up w3 up_w wu v",
    "down": "down w2 down_w wd fc_out c c_proj proj dense_4h_to_h out output wo",
    "fc_in": "c_fc fc_in dense_h_to_4h",
}
ROUTERS = {"router", "gate", "gating", "wg", "router_gate", "w_gate", "gate_layer", "switch", "route"}
AT_THE_TOP = {
    "embed": "tok_emb wte embed_tokens tok_embeddings embedder token_embedding token_embedding_table word_embeddings"
    " embed_in embed emb embedding embeddings token_emb tok_embed token_embeddings tok_embedding input_embedding"
    " embed_token text_token_embedder",
    "positions": "wpe pos_emb pos_embed position_embedding position_embeddings position_embedding_table embed_positions"
    " pos_embedding positional_embedding pos_embeddings",
    "head": "lm_head out_head output head unembed unembedding embed_out output_head to_logits logits fc_out classifier"
    " final_linear out_proj output_layer lm_out",
}
WRAPPERS = {"pp_block", "module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}  # say nothing
READ_AS = {word: role for role, words in ROLES.items() for word in words.split()}
READ_IN_ATTENTION = {word: role for role, words in IN_ATTENTION.items() for word in words.split()}
READ_IN_MLP = {word: role for role, words in IN_MLP.items() for word in words.split()}
READ_AT_THE_TOP = {word: role for role, words in AT_THE_TOP.items() for word in words.split()}


@dataclass(frozen=True)
class Word:
    """What the path of a module says. layer: its number in the model's stack. inner: further numbers, of experts.

    place: attention, mlp or "". role: what it does there, or "" where the name leaves it open. last: the last part
    of the path that is no number, in lower case. at: where a norm stands, as far as its name says.
    """

    path: str
    layer: int | None
    inner: tuple[int, ...]
    place: str
    role: str
    last: str
    at: tuple[str, ...] = ()


def read(path: str, stack: str | None, experts: bool = False) -> Word:
    """Read a module's path. stack: the path of the list of layers, if there is one. experts: whether further numbers
    may be those of experts; else they belong to the name, as in `layers.2`.
    """
    within = stack is not None and path.startswith(f"{stack}.")
    parts = (path[len(stack) + 1 :] if within and stack is not None else path).lower().split(".")
    parts = [part for part in parts if part not in WRAPPERS] or parts
    layer = int(parts.pop(0)) if within and parts[0].isdigit() else None
    number = next((i for i, part in enumerate(parts) if part.isdigit()), None) if experts else None
    inner = () if number is None else (int(parts.pop(number)),)
    names = _with_numbers(parts) or [""]
    last, outer = names[-1], names[:-1]
    if NORM.search(last) or (outer and NORM.search(outer[-1])):
        return _norm(path, layer, inner, last if NORM.search(last) else outer[-1], outer)
    place = _place(outer)
    if layer is not None and not place and not inner:
        place, role = _in_the_block(last)
        if role:
            return Word(path, layer, inner, place, role, last)
    place = _place(outer)
    role = _role(last, place, layer, bool(inner)) or _role(core(last), place, layer, bool(inner))
    return Word(path, layer, inner, place, role, last)


def _in_the_block(last: str) -> tuple[str, str]:
    """Place and role of a matrix that a block holds itself, and whose name says both: `att_proj`, `ff_out`."""
    for place, pattern, first in (("attention", ATTENTION, "qkv"), ("mlp", MLP, "gate_up")):
        found = pattern.search(last)
        if found:
            rest = (last[: found.start()] + "_" + last[found.end() :]).strip("_")
            role = first if rest in ("proj", "in", "in_proj") else _role(rest, place, 0, False)
            return place, role
    return "", ""


def _with_numbers(parts: list[str]) -> list[str]:
    """Parts of a path, a number together with what stands before it."""
    names: list[str] = []
    for part in parts:
        if part.isdigit() and names:
            names[-1] += f".{part}"
        else:
            names.append(part)
    return names


def _place(outer: list[str]) -> str:
    for part in reversed(outer):
        if MLP.search(part):
            return "mlp"
        if ATTENTION.search(part):
            return "attention"
    return ""


def core(last: str) -> str:
    """A word without what says only that it is a projection, or a weight."""
    return AROUND.sub("", AROUND.sub("", last)) or last


def _role(word: str, place: str, layer: int | None, inner: bool) -> str:
    if layer is None and not inner:
        return READ_AT_THE_TOP.get(word, "")
    if place == "mlp":
        role = READ_IN_MLP.get(word, "")
        return READ_AS.get(word, "") if not role and word in ROLES["gate_up"].split() else role
    found = READ_AS.get(word, "")
    return found or (READ_IN_ATTENTION.get(word, "") if place == "attention" else "")


def _norm(path: str, layer: int | None, inner: tuple[int, ...], last: str, outer: list[str]) -> Word:
    words = set(re.split(r"[_\d]+", last))
    place = _place([part for part in outer if part != last])
    if layer is None:
        return Word(path, layer, inner, "", "final_norm", last)
    if words & {"q", "query"} and not words & {"a", "b", "lora"}:
        return Word(path, layer, inner, "attention", "q_norm", last)
    if words & {"k", "key"} and not words & {"a", "b", "lora"}:
        return Word(path, layer, inner, "attention", "k_norm", last)
    if place:
        return Word(path, layer, inner, place, "", last)
    return Word(path, layer, inner, "", "norm", last, _where(last, words))


def _where(last: str, words: set[str]) -> tuple[str, ...]:
    """Where a layer's norm may stand, most likely first."""
    of_mlp = bool(words & {"mlp", "ffn", "ff", "feedforward", "ffw", "moe"} or re.search(r"feed_?forward", last))
    of_attention = bool(words & {"att", "attn", "attention"})
    after = "post" in words or "after" in words
    if of_mlp:
        return ("after mlp",) if after else ("before mlp",)
    if of_attention:
        return ("after attention", "before mlp") if after else ("before attention", "after attention")
    return ("before attention",) if words & {"input", "pre", "in"} else ()
