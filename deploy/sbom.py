"""What is in an image, as a CycloneDX SBOM: every Debian and every Python package, with its version and, of Python
ones, the licence that they name.

    python deploy/sbom.py localhost/torchstone-serve serve.cdx.json

Read from the image's files, not from what was asked for when it was built; a Python that neither brought, as in
Docker's images of it, is the base's to tell. The same image gives the same file, which is checked against CycloneDX's
own schema before it is written.
"""

from __future__ import annotations

import argparse
import re
import uuid
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import bom, component
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation import make_schemabased_validator
from packageurl import PackageURL

from inside import Image, opened
from licences import LOOKED_UP

VERSION = SchemaVersion.V1_6
Bom: Any = bom.Bom  # their decorator hides from a checker what they take
Component: Any = component.Component
LONGEST_LICENCE = 80
"""Letters of a name; what is longer is the licence's text, in the field for its name."""


def python_component(package: metadata.Distribution) -> Any:
    name = re.sub(r"[-_.]+", "-", package.name).lower()
    about: Any = package.metadata
    said = about.get("License-Expression") or LOOKED_UP.get(name) or about.get("License") or ""
    if not said or len(said) > LONGEST_LICENCE or "\n" in said:
        classified = [one.rpartition(" :: ")[2] for one in about.get_all("Classifier") or () if "License ::" in one]
        said = classified[0] if classified else ""
    purl = PackageURL("pypi", None, name, package.version)
    return _component(name, package.version, purl, said, about.get("Summary"))


def debian_component(fields: dict[str, str]) -> Any:
    name, version = fields["Package"], fields["Version"]
    purl = PackageURL("deb", "debian", name, version, {"arch": fields["Architecture"]})
    return _component(name, version, purl, "", fields.get("Description"))


def _component(name: str, version: str, purl: PackageURL, licence: str, description: str | None) -> Any:
    return Component(
        name=name,
        version=version,
        purl=purl,
        bom_ref=str(purl),
        licenses=[LicenseFactory().make_from_string(licence)] if licence else (),
        description=description,
    )


def bill(image: Image) -> str:
    """The SBOM as JSON.

    Raises:
        SystemExit: it does not fit CycloneDX's schema.
    """
    version = image.labels.get("org.opencontainers.image.version")
    whole = Component(name=image.name, type=component.ComponentType.CONTAINER, version=version, bom_ref=image.id)
    parts = [debian_component(fields) for fields in image.debian_packages()]
    parts += [python_component(package) for package in image.python_packages()]
    content = Bom(components=parts, serial_number=uuid.uuid5(uuid.NAMESPACE_OID, image.id))
    content.metadata.component = whole
    content.metadata.timestamp = datetime.fromisoformat(re.sub(r"\.\d+Z$", "+00:00", image.created))
    content.register_dependency(whole, parts)
    text = make_outputter(content, OutputFormat.JSON, VERSION).output_as_string(indent=1)
    if wrong := make_schemabased_validator(OutputFormat.JSON, VERSION).validate_str(text):
        raise SystemExit(f"error: the SBOM of '{image.name}' does not fit the schema: {wrong}")
    return text + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", help="its name, as podman knows it")
    parser.add_argument("file", type=Path, help="where the SBOM is written")
    given = parser.parse_args()
    with opened(given.image) as image:
        given.file.write_text(bill(image), encoding="utf-8")


if __name__ == "__main__":
    main()
