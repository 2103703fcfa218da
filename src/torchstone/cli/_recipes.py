"""What is printed of recipes, and of the learning rate that fits one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torchstone.cli._answers import print_json, stdout

if TYPE_CHECKING:
    from torchstone.train.range_test import Curve


def rate(found: Curve, page: Path, json: bool) -> int:
    """The proposed learning rate and why; 3 where the curve does not say."""
    code = 0 if found.proposed is not None else 3
    if json:
        print_json({**found.model_dump(mode="json"), "page": str(page), "exit_code": code})
        return code
    out = stdout()
    tried = f"{len(found.rates)} steps at learning rates from {found.rates[0]:.1e} up to {found.rates[-1]:.1e}"
    broke = ", where the loss broke" if found.diverged else ""
    lines = [f"tried    {tried}{broke}", f"saw      {found.reason}"]
    if found.proposed is None:
        lines.append("proposed no learning rate: keep the recipe's")
    else:
        rate = f"{found.proposed:g}"
        lines += [f"proposed {rate}", f"next     the same command with --lr {rate}, and without --find-lr"]
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    out.print(f"page     {page}", highlight=False, soft_wrap=True)
    return code


def recipes(name: str | None, json: bool) -> int:
    """What there is, or one recipe as a TOML file, with the ranges of a search that a file declares."""
    from torchstone.search import space
    from torchstone.train import recipes as known

    if json:
        found = {one: space.of_recipe(one) for one in ([name] if name else known.NAMED)}
        rows = {one: recipe.model_dump(mode="json") for one, (recipe, _) in found.items()}
        declared = {one: {"search": space.rows(ranges)} for one, (_, ranges) in found.items() if ranges}
        print_json({one: row | declared.get(one, {}) for one, row in rows.items()})
        return 0
    out = stdout()
    if name:
        ranges = space.of_recipe(name)[1]
        text = known.described(name) + ("\n" + space.described(ranges) if ranges else "")
        out.print(text, end="", markup=False, highlight=False, soft_wrap=True)
        return 0
    for one in known.NAMED:
        out.print(f"{one:<10}{known.summary_of(one)}", markup=False, highlight=False, soft_wrap=True)
    return 0
