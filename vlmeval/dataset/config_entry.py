"""From an entry of a config's "data" to a benchmark that was found, with everything checked that needs no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmeval.dataset.base import checked_rule
from vlmeval.dataset.data_root import default_data_root
from vlmeval.dataset.known import DatasetSpec, supported_datasets
from vlmeval.dataset.registry import TRAITS, DatasetPlan, Said, class_named, declared_traits, resolve_dataset
from vlmeval.dataset.video import VideoSettings
from vlmeval.errors import ConfigError, UnknownNameError, UsageError
from vlmeval.scoring.rules import find_rule

CONFIG_KEYS = (
    "class",
    "dataset",
    "path",
    "url",
    "md5",
    "scoring",
    "traits",
    "answer_column",
    "prompt_suffix",
    "mirror",
    "nframe",
    "fps",
    "use_subtitle",
)


def resolve_config(name: str, settings: Mapping[str, object], *, data_root: str | Path | None = None) -> DatasetPlan:
    """The benchmark that an entry of a config's "data" asks for; `{}` is the registered one of that name.

    The entry's name is what results are called; what is opened is the TSV at `path`, the one fetched from `url` (kept
    as `{name}.tsv` in the data root, checked by `md5` if that is given), or the benchmark called `dataset`, else
    `name`.
    """
    where = f"data {name!r}"
    for key in settings:
        if key not in CONFIG_KEYS:
            raise UnknownNameError(f"key in {where}", str(key), CONFIG_KEYS, f"keys: {', '.join(CONFIG_KEYS)}")
    sources = [key for key in ("dataset", "path", "url") if settings.get(key) is not None]
    if len(sources) > 1:
        raise ConfigError(f"{where}: {' and '.join(sources)} name its file more than once; give one of them")
    traits = settings.get("traits")
    if traits is not None and not isinstance(traits, (list, tuple)):
        raise ConfigError(f"{where}: traits is {traits!r}; give a list of {', '.join(TRAITS)}")
    root = Path(data_root).expanduser() if data_root is not None else default_data_root()
    given: dict[str, Any] = {
        "class_name": _text(where, settings, "class"),
        "traits": traits,
        "scoring": _text(where, settings, "scoring"),
        "answer_column": _text(where, settings, "answer_column"),
        "prompt_suffix": _text(where, settings, "prompt_suffix"),
    }
    video = _video(where, settings)
    url, path = _text(where, settings, "url"), _text(where, settings, "path")
    md5 = _text(where, settings, "md5") or ""
    if md5 and url is None:
        raise ConfigError(f"{where}: md5 is only checked where a url is given")
    if url is not None:
        return _from_url(name, url, md5, root, given)
    found = Path(path) if path is not None else _text(where, settings, "dataset") or name
    mirror = _text(where, settings, "mirror")
    return resolve_dataset(found, data_root=root, name=name, mirror=mirror, video=video, **given)


def resolve_among(
    names: Sequence[str], entries: Mapping[str, Mapping[str, object]], *, data_root: str | Path | None = None
) -> list[DatasetPlan]:
    """The benchmarks called `names`: those of a config's "data" by their entries, the others as registered."""
    return [
        resolve_config(name, entries[name], data_root=data_root)
        if name in entries
        else resolve_dataset(name, data_root=data_root)
        for name in names
    ]


def _from_url(name: str, url: str, md5: str, root: Path, given: Mapping[str, Any]) -> DatasetPlan:
    """A benchmark in no table whose file is fetched."""
    if not url.startswith(("https://", "http://")):
        raise ConfigError(f"data {name!r}: url is {url!r}; give one that begins with https://")
    if "/" in name or name in supported_datasets:
        why = "is a benchmark of this kit" if name in supported_datasets else "has a / in it"
        raise ConfigError(f"data {name!r}: the file from {url} would be kept under that name, which {why}; rename it")
    kind = class_named(given["class_name"] or "")
    if given["scoring"] and kind is not None:
        checked_rule(given["scoring"], kind.type, name)
    elif given["scoring"]:
        find_rule(given["scoring"])
    own = DatasetSpec(name=name, class_name=kind.__name__ if kind else "", type="VQA", url_path=url, md5=md5)
    return DatasetPlan(
        name=name,
        path=root / f"{name}.tsv",
        data_root=root,
        dataset_class=kind,
        traits=declared_traits(given["traits"], None, kind, name),
        scoring=given["scoring"] or "",
        answer_column=given["answer_column"] or "answer",
        prompt_suffix=given["prompt_suffix"] or "",
        spec=own,
        fetch=True,
        said=Said(**given),
    )


def _text(where: str, settings: Mapping[str, object], key: str) -> str | None:
    value = settings.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigError(f"{where}: {key} is {value!r}; give a text")
    return value


def _video(where: str, settings: Mapping[str, object]) -> VideoSettings | None:
    """Upstream's keys for videos; None where there are none. Raises ConfigError."""
    given = {key: settings[key] for key in ("nframe", "fps", "use_subtitle") if settings.get(key) is not None}
    if not given:
        return None
    kinds = {"nframe": int, "fps": (int, float), "use_subtitle": bool}
    for key, value in given.items():
        if not isinstance(value, kinds[key]) or (key != "use_subtitle" and isinstance(value, bool)):  # type: ignore[arg-type]
            raise ConfigError(
                f"{where}: {key} is {value!r}; give nframe a whole number, fps a number, use_subtitle a bool"
            )
    try:
        return VideoSettings(**given)  # type: ignore[arg-type]
    except UsageError as error:
        raise ConfigError(f"{where}: {error}") from error
