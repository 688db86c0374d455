"""The settings of a topic: their defaults, their bounds, and how a change is merged.

One table says everything about a setting, so that the text of an error, the check and the default
cannot drift apart. `TopicConfig` is what a user set, `EffectiveConfig` what holds, with every
default filled in; only the first is stored, so that a better default reaches old topics.

Rules:

- -1 means "no limit" and is allowed where the table says so.
- `batch_decompressed_bytes_max` is never below `batch_bytes_max`: left at its default it grows with
  it, set lower it is a contradiction and refused.
- Errors name the setting, the value, the bounds and what to do (INVALID_CONFIG).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Final

from rakit.api.v1 import error_pb2, topic_service_pb2
from rakit.node.errors import RakitError

UNLIMITED: Final = -1
_INT_MAX: Final = (1 << 53) - 1
_KIB: Final = 1 << 10
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one setting may be."""

    default: int
    minimum: int
    maximum: int
    unit: str
    #: Whether -1 is allowed and means "no limit".
    unlimited: bool = False

    def describe(self) -> str:
        """The allowed values, for a person."""
        upper = f" to {self.maximum:,}" if self.maximum < _INT_MAX else " or more"
        return f"{self.minimum:,}{upper} {self.unit}" + (", or -1 for no limit" * self.unlimited)

    def allows(self, value: int) -> bool:
        """Whether the value is within the bounds."""
        return self.minimum <= value <= self.maximum or (self.unlimited and value == UNLIMITED)


BOUNDS: Final[Mapping[str, Bounds]] = {
    "retention_bytes": Bounds(UNLIMITED, 1, _INT_MAX, "bytes", unlimited=True),
    "retention_ms": Bounds(UNLIMITED, 1, _INT_MAX, "ms", unlimited=True),
    "batch_bytes_max": Bounds(2 * _MIB, 1, 16 * _MIB, "bytes"),
    # A reader that knows no codec gets a batch decompressed, in one message: it has to fit into
    # what clients take of one (20 MiB), and with room to spare into what the listeners send.
    "batch_decompressed_bytes_max": Bounds(8 * _MIB, 1, 16 * _MIB, "bytes"),
    "segment_bytes": Bounds(64 * _MIB, 64 * _KIB, _INT_MAX, "bytes"),
    "segment_ms": Bounds(10 * 60 * 1000, 1000, _INT_MAX, "ms"),
}


@dataclass(frozen=True, slots=True)
class EffectiveConfig:
    """What holds for a topic. -1 means no limit."""

    retention_bytes: int
    retention_ms: int
    batch_bytes_max: int
    batch_decompressed_bytes_max: int
    segment_bytes: int
    segment_ms: int


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """What a user set. None stands for the default."""

    retention_bytes: int | None = None
    retention_ms: int | None = None
    batch_bytes_max: int | None = None
    batch_decompressed_bytes_max: int | None = None
    segment_bytes: int | None = None
    segment_ms: int | None = None

    @staticmethod
    def from_proto(message: topic_service_pb2.TopicConfig) -> TopicConfig:
        """Reads what is present in the message; checks nothing."""
        present = {name.name: int(value) for name, value in message.ListFields()}
        return TopicConfig(**{name: value for name, value in present.items() if name in BOUNDS})

    def to_proto(self) -> topic_service_pb2.TopicConfig:
        """The message with the settings that are set."""
        return topic_service_pb2.TopicConfig(**self._present())

    def _present(self) -> dict[str, int]:
        pairs = [(each.name, getattr(self, each.name)) for each in fields(self)]
        return {name: int(value) for name, value in pairs if value is not None}

    @property
    def effective(self) -> EffectiveConfig:
        """These settings with every default filled in."""
        values = {name: bounds.default for name, bounds in BOUNDS.items()} | self._present()
        if self.batch_decompressed_bytes_max is None:
            values["batch_decompressed_bytes_max"] = max(
                values["batch_decompressed_bytes_max"], values["batch_bytes_max"]
            )
        return EffectiveConfig(**values)

    def updated(self, names: Iterable[str], values: TopicConfig) -> TopicConfig:
        """A copy with the named settings taken from `values`, where an absent one is a reset."""
        return replace(self, **{name: getattr(values, name) for name in names})

    def check(self) -> None:
        """Raises `RakitError` INVALID_CONFIG when a setting is out of bounds or contradictory."""
        for name, value in self._present().items():
            if not BOUNDS[name].allows(value):
                raise _invalid(
                    f"{name} = {value:,} is out of bounds; set it to {BOUNDS[name].describe()}"
                )
        effective = self.effective
        if effective.batch_decompressed_bytes_max < effective.batch_bytes_max:
            raise _invalid(
                f"batch_decompressed_bytes_max = {effective.batch_decompressed_bytes_max:,} is"
                f" below batch_bytes_max = {effective.batch_bytes_max:,}; raise the first or lower"
                " the second"
            )


def check_names(names: Iterable[str]) -> None:
    """Raises `RakitError` INVALID_CONFIG when one of these is not the name of a setting."""
    for name in names:
        if name not in BOUNDS:
            known = ", ".join(sorted(BOUNDS))
            raise _invalid(f"there is no setting {name!r}; the settings are {known}")


def _invalid(message: str) -> RakitError:
    return RakitError(error_pb2.ERROR_REASON_INVALID_CONFIG, message)
