"""`treille strategies`, `treille drafters` and `treille processors`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from treille.errors import ParameterError
from treille.output import plain
from treille.strategy import StrategyInfo, registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from treille.drafters.base import DrafterInfo


def _table(*columns: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, row_styles=["", "dim"] if not sys.stdout.isatty() else None)
    for index, column in enumerate(columns):
        table.add_column(column, style="bold" if index == 0 else "", overflow="fold", no_wrap=index == 0)
    return table


def _show(table: Any) -> None:
    from rich.console import Console

    # Redirected output has no width of its own.
    Console(width=None if sys.stdout.isatty() else 140, highlight=False, markup=False).print(table)


def _signature(info: StrategyInfo | DrafterInfo) -> Iterator[str]:
    for name, parameter in info.parameters.items():
        default = parameter.default
        yield name if default is parameter.empty else f"{name}={getattr(default, '__name__', repr(default))}"


def strategies(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list.")] = False,
) -> None:
    """List the strategies: what they are, their parameters, paper, exactness and cost."""
    if as_json:
        rows = [
            {
                "name": info.name,
                "summary": info.summary,
                "parameters": list(_signature(info)),
                "paper": info.paper,
                "exactness": info.exactness,
                "cost": info.cost,
            }
            for info in registry
        ]
        print(json.dumps(rows, ensure_ascii=False))
        return
    table = _table("strategy", "parameters", "paper", "exactness", "cost")
    for info in registry:
        table.add_row(info.name, "\n".join(_signature(info)), info.paper, info.exactness, info.cost)
    _show(table)


def drafters(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list.")] = False,
) -> None:
    """List the drafters: what they are, their parameters, paper, exactness and cost."""
    from treille.drafters import registry as known

    rows = [
        {
            "name": info.name,
            "summary": info.summary,
            "parameters": list(_signature(info)),
            "paper": info.paper,
            "exactness": info.exactness,
            "cost": info.cost,
        }
        for info in sorted(known, key=lambda info: info.name)
    ]
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    table = _table("drafter", "parameters", "what it does", "paper", "cost")
    for row in rows:
        table.add_row(row["name"], "\n".join(row["parameters"]), row["summary"], row["paper"], row["cost"])
    _show(table)


def processors(
    preset: Annotated[str, typer.Option(help="transformers, vllm, sglang or llamacpp.")] = "transformers",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list.")] = False,
) -> None:
    """List the processors in the order in which a preset applies them, with their parameters."""
    from treille.sampling.parameters import PARAMETERS
    from treille.sampling.presets import PRESETS

    if preset not in PRESETS:
        raise ParameterError(f"--preset={preset}: there is no such preset; choose one of {', '.join(PRESETS)}")
    rows = []
    for place, processor in enumerate(PRESETS[preset].order, 1):
        covers = {"top_k", "top_p"} if processor == "top_k_top_p" else {processor}
        rows += [
            {
                "place": place,
                "processor": processor,
                "parameter": p.name,
                "type": p.type,
                "default": p.neutral,
                "allowed": p.allowed,
                "help": p.help,
                "added": processor in PRESETS[preset].lacks,
            }
            for p in PARAMETERS.values()
            if p.processor in covers
        ]
    if as_json:
        print(json.dumps(plain(rows), ensure_ascii=False))
        return
    table = _table("", "parameter", "type", "default", "allowed", "what it does")
    for row in rows:
        mark = "*" if row["added"] else ""
        names = [str(row[key]) for key in ("type", "default", "allowed", "help")]
        table.add_row(f"{row['place']}{mark}", str(row["parameter"]), *names)
    _show(table)
    print(f"In the order of {preset}, first applied first; * is not part of that engine itself.")
