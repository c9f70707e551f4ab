"""The options of a run together: what is given, over a preset, with nothing that its method does not use or that has
no effect, and a parent in its one canonical form.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from ssvi.errors import UserError, unknown
from ssvi.registry import INHERITED, KINDS, using
from ssvi.runs.options import (
    DEFAULTS,
    FIELDS,
    NEEDS,
    NEEDS_PARENT,
    PRESETS,
    SIDES,
    Need,
    non_defaults,
    options_of,
)
from ssvi.runs.values import SMALLEST, flag_text, parse, plain, validate


def complete(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Plain options with their preset in its place, checked one by one and together.

    Raises:
        UserError: for a bad name, type or value, or an option that has no effect on this run.
    """
    check_preset(options.get("preset"), where)
    validate({k: v for k, v in options.items() if k != "preset"}, where)
    method = options.get("method", DEFAULTS["method"])
    used = options_of(method)
    for name, value in options.items():
        if name != "preset" and name not in used:
            users = ", ".join(using(name))
            raise UserError(
                f"{where}: {name} is {value!r}, but method {method!r} does not use {name} (used by {users})."
            )
    full = {k: plain(v, DEFAULTS[k]) for k, v in expand(options).items()}
    if KINDS[method].parents:
        full["parent"] = parent_text(full, where)
    _check_effects(_whole(full), options, where)
    return full


def _whole(options: Mapping[str, Any]) -> Any:
    """What a spec of these options would hold."""
    return SimpleNamespace(**DEFAULTS | options)


def _check_effects(spec: Any, given: Mapping[str, Any], where: str) -> None:
    """Options that only work together with another: setting them alone would silently do nothing."""
    for name, value in given.items():
        if name in NEEDS and value != DEFAULTS[name] and (need := unmet(name, vars(spec))):
            raise UserError(f"{where}: {name} is {value!r}, but has no effect unless {need.option} is {needed(need)}.")
    if spec.addition_average == "signed" and spec.addition_samples > spec.delta_t:
        raise UserError(
            f"{where}: addition_samples is {spec.addition_samples}, but consecutive gradients "
            f"(addition_average: signed) must fit between two updates: at most delta_t = {spec.delta_t}."
        )
    if (side := SIDES.get(spec.dataset)) and side % spec.shrink:
        raise UserError(
            f"{where}: shrink is {spec.shrink}, but must divide {side}, the side of the images of {spec.dataset}."
        )
    _check_start(spec, where)
    if spec.posterior_optimizer == "ivon":
        _check_ivon(spec, where)
    kind = KINDS[spec.method]
    if spec.epochs == 0 and not kind.untrained:
        untrained = " or ".join(name for name in KINDS if KINDS[name].untrained)
        raise UserError(f"{where}: epochs is 0, but must be >= 1; only method {untrained} goes without training.")
    for name, (value, why) in NEEDS_PARENT.items():
        if getattr(spec, name) == value and not spec.parent:
            example = f"as in parent: {kind.parents[0]}" if kind.parents else f"which method {spec.method!r} never has"
            raise UserError(f"{where}: {name} is {value!r}, {why}: it needs a parent, {example}.")


def _check_start(spec: Any, where: str) -> None:
    """A start that is the same as another one has one name."""
    used = options_of(spec.method)
    same = {"fan_in": "mu_init_sd" not in used, "active_fan_in": "density" not in used}
    if same.get(spec.mean_init, False) and "mean_init" in used:
        other = "published" if spec.mean_init == "fan_in" else "fan_in"
        raise UserError(
            f"{where}: mean_init is {spec.mean_init!r}, which for method {spec.method!r} is the same as {other!r}; "
            "say that."
        )


def _check_ivon(spec: Any, where: str) -> None:
    """What IVON's equations cannot do without."""
    if not spec.kl_scale:
        raise UserError(f"{where}: kl_scale is 0, but must be > 0 with posterior_optimizer ivon: sigma would be 0.")
    starts = "sigma_init" in options_of(spec.method) and not unmet("sigma_init", vars(spec))
    if starts and spec.sigma_init > spec.prior_sigma:
        raise UserError(
            f"{where}: sigma_init is {spec.sigma_init:g}, but must be <= prior_sigma, {spec.prior_sigma:g}, with "
            "posterior_optimizer ivon: curvature would be below 0."
        )
    grows = "grow_sigma" in options_of(spec.method) and spec.grow_sigma == "constant"
    if grows and spec.grow_sigma_value > spec.prior_sigma:
        raise UserError(
            f"{where}: grow_sigma_value is {spec.grow_sigma_value:g}, but must be <= prior_sigma, "
            f"{spec.prior_sigma:g}, with posterior_optimizer ivon: curvature would be below 0."
        )


def check_preset(name: Any, where: str) -> None:
    """Refuse what is neither None nor the name of a preset."""
    if name is not None and (not isinstance(name, str) or name not in PRESETS):
        raise unknown("preset", name, PRESETS, where)


def expand(options: Mapping[str, Any]) -> dict[str, Any]:
    """Replace `preset: NAME` by those of its options that matter here; what is given beside it wins."""
    options = dict(options)
    preset = options.pop("preset", None)
    if preset is None:
        return options
    used = options_of(options.get("method", DEFAULTS["method"]))
    merged = {k: v for k, v in PRESETS[preset].items() if k in used} | options
    return {k: v for k, v in merged.items() if k in options or k not in idle(merged)}


def idle(options: Mapping[str, Any]) -> set[str]:
    """Options that have no effect because of the value, or the default, of another one (`NEEDS`)."""
    return {name for name in NEEDS if unmet(name, options)}


def unmet(name: str, options: Mapping[str, Any]) -> Need | None:
    """What an option needs to have an effect and does not find among these options and the defaults; else None."""
    return next((need for need in NEEDS.get(name, ()) if not need.met(_effective(need.option, options))), None)


def _effective(name: str, options: Mapping[str, Any]) -> Any:
    """What an option comes to: where it has no effect itself, that is its default."""
    return DEFAULTS[name] if unmet(name, options) else options.get(name, DEFAULTS[name])


def needed(need: Need) -> str:
    """The values with which another option gives one an effect, in words."""
    return " or ".join(map(flag_text, need.values))


def parse_parent(text: str, where: str) -> dict[str, Any]:
    """The options named in a parent's text, `method,option=value,...`.

    Raises:
        UserError: for text of another form, and for unknown or ill-typed options.
    """
    method, *words = text.split(",")
    options: dict[str, Any] = {"method": method}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{where}: parent is {text!r}, but must be a method and options, as in vi,epochs=12.")
        if name not in FIELDS:
            raise unknown("option", name, FIELDS, f"{where}: parent")
        if name in options:
            raise UserError(f"{where}: parent is {text!r}, but has {name} twice.")
        options[name] = parse(value, DEFAULTS[name])
    return options


def parent_text(child: Mapping[str, Any], where: str) -> str:
    """The canonical text of the parent in a child's options: its method and what differs from the defaults.

    Raises:
        UserError: if the child's method takes no such parent, needs one and has none, or the parent is no run.
    """
    method, text = child.get("method", DEFAULTS["method"]), child.get("parent", "")
    kind = KINDS[method]
    if not text:
        if kind.needs_parent:
            raise UserError(f"{where}: method {method!r} needs a parent, as in parent: {kind.parents[0]}.")
        return ""
    options = parse_parent(text, where)
    if options["method"] not in kind.parents:
        raise unknown("parent's method", options["method"], kind.parents, where)
    for name in options:
        if name in kind.hands_down:
            raise UserError(f"{where}: parent has {name}, but takes it from the run itself; leave it out.")
    if kind.of_members:
        _check_shares(child, where)
    # what only some data sets use was checked with the child
    inherited = {n: child[n] for n in INHERITED if n in child and n not in ("image_size", "shrink", "normalisation")}
    parent = _whole(complete(inherited | options, f"{where}: parent"))
    words = [f"{k}={flag_text(v)}" for k, v in non_defaults(parent).items() if k not in (*kind.hands_down, "method")]
    return ",".join([parent.method, *words])


def _check_shares(child: Mapping[str, Any], where: str) -> None:
    """Refuse members that could have no seeds, or no density."""
    members, density = child.get("members", DEFAULTS["members"]), child.get("density", DEFAULTS["density"])
    if (child.get("seed", 0) + 1) * members >= 2**63:
        raise UserError(f"{where}: seed is {child['seed']}, too large for the seeds of an ensemble's members.")
    if density < SMALLEST * members:
        raise UserError(f"{where}: density is {density!r}, too small for the shares of an ensemble's members.")
