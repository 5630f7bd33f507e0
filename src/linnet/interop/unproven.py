"""What is raised where a proof fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from linnet.errors import UserError

if TYPE_CHECKING:
    from linnet.interop.parity import ParityReport


class Unproven(UserError):  # noqa: N818 - it says what is the matter
    """Two models that should be the same are not proven to be; `report` holds all that was found."""

    def __init__(self, report: ParityReport) -> None:
        super().__init__(report.refusal())
        self.report = report
