"""A bill of materials, judged by the schema that CycloneDX publishes."""

from __future__ import annotations

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

__all__ = ["faults_of"]


def faults_of(bill: str) -> list[str]:
    """What is wrong with it; a word that the schema does not know is, too."""
    faults = JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill, all_errors=True)
    return [fault.data.message for fault in faults or ()]
