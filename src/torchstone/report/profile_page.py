"""The page of a profile: one HTML file with the roofline, the tables and what to try next."""

from __future__ import annotations

from collections.abc import Sequence

from torchstone.core import machine
from torchstone.core.values import Finding
from torchstone.evaluate.profile import Profile
from torchstone.report.roofline import roofline
from torchstone.report.templates import environment

LAYERS = 40
"""Layers of which the page shows a row; the rest is counted."""


def render(profile: Profile, findings: Sequence[Finding]) -> str:
    """The whole HTML document."""
    return (
        environment()
        .get_template("profile.html.j2")
        .render(
            it=profile,
            findings=findings,
            layers=profile.layers[:LAYERS],
            more=profile.layers[LAYERS:],
            wide=roofline(profile),
            narrow=roofline(profile, narrow=True),
            cpu=machine.cpu_name(),
            versions=machine.versions(),
        )
    )
