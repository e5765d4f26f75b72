"""What encrypted members may be opened with."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Passwords:
    """Passwords in the order in which they are tried. No repr shows them."""

    values: tuple[str, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.values)
