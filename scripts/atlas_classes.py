"""Write grader/atlas/classes.json: what transformers' classes take where a config.json leaves a field out.

Of every model_type that grader/atlas/families.toml names: the class's own defaults, as they stand in its source (null
where the class works the value out from other fields), the RoPE parameters that it falls back to, and its other names
for a field. Needs transformers; tests/atlas/test_atlas_facts.py compares the file with the installed one.
"""

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

ATLAS = Path(__file__).parent.parent / "grader" / "atlas"
WORTHLESS = ("dropout", "pdrop", "token_id", "initializer_range", "summary_", "use_cache", "output_", "pretraining_tp")
BASE = ("architectures", "chunk_size_feed_forward", "dtype", "id2label", "label2id", "problem_type", "return_dict")


def defaults(kind: str) -> dict[str, Any]:
    """The entry of one model_type: class, fields, names."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    made_by = CONFIG_MAPPING[kind]
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(made_by):
        if any(word in field.name for word in WORTHLESS) or field.name in (*BASE, "transformers_version"):
            continue
        value = field.default
        if field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        if value is dataclasses.MISSING or (isinstance(value, (list, tuple, dict)) and len(value) > 9):
            continue
        if not isinstance(value, (str, int, float, bool, list, tuple, dict, type(None))):
            continue
        fields[field.name] = value
    whole = made_by()
    if fields.get("rope_parameters") is None and getattr(whole, "rope_parameters", None):
        fields["rope_parameters"] = whole.rope_parameters
    return {"class": made_by.__name__, "fields": fields, "names": dict(made_by.attribute_map)}


def written() -> str:
    """The file's content."""
    families = tomllib.loads((ATLAS / "families.toml").read_text(encoding="utf-8"))
    kinds = sorted(name for name, traits in families.items() if not traits.get("hub_only"))
    lines = [f"{json.dumps(kind)}: {json.dumps(defaults(kind), default=str)}" for kind in kinds]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    (ATLAS / "classes.json").write_text(written(), encoding="utf-8")
