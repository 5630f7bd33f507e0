"""The base of every settings class: frozen, unknown keys refused, one description per field."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator


class Settings(BaseModel):
    """Validated settings that never change after they are built."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and annotation in (int, float, int | None, float | None):
            raise ValueError(f"should be a number, not {value}")
        return value

    def replace(self, **changes: Any) -> Self:
        """A copy with `changes`, validated anew; fields left at their defaults stay marked as defaults."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return self.model_validate({**given, **changes})

    def _settle(self, **derived: Any) -> None:
        """Set fields that follow from others; they stay marked as not given. Only for an object being built."""
        self.__dict__.update(derived)


def free(default: Any, description: str, **constraints: Any) -> Any:
    """A field that may differ when a run is resumed: it changes how long or how watched the run is, not its weights."""
    return Field(default, description=description, json_schema_extra={"resume": "free"}, **constraints)


def may_change_on_resume(settings: type[Settings], field: str) -> bool:
    """Whether `field` was declared with `free`."""
    extra = settings.model_fields[field].json_schema_extra
    return isinstance(extra, dict) and extra.get("resume") == "free"
