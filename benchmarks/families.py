"""What the families of networks cost: counts their parameters and MACs again (``--write`` stores them for `torchstone
models`), or times each on this machine beside ResNet-18 and writes a page (``--page families.html``)."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from conditions import conditions
from torchstone.core import files
from torchstone.models import families


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pattern", nargs="?", help="part of a name or family")
    parser.add_argument("--write", action="store_true", help="store the counts in models/families.json")
    parser.add_argument("--page", type=Path, default=Path("families.html"))
    parser.add_argument("--runtime", default="openvino")
    parser.add_argument("--precision", default="f32", choices=("f32", "bf16"))
    given = parser.parse_args()
    if given.write:
        members = [asdict(families.described(one, name)) for one in families.FAMILIES for name in one.members]
        files.write_json(families.TABLE, {"members": members})
        print(f"{len(members)} networks in {families.TABLE}")
        return
    from torchstone.evaluate.relative import Options
    from torchstone.stages.models import models

    print(conditions())
    options = Options(runtime=given.runtime, precision=given.precision)
    for row in models(given.pattern, measure=options, out=given.page):
        assert row.speed is not None
        print(f"{row.member.name:24} {row.speed.ms:9.2f} ms {row.speed.ratio:7.2f} × resnet18")
    print(f"page {given.page}")


if __name__ == "__main__":
    main()
