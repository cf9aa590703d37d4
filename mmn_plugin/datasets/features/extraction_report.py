"""How the extraction of many videos ended."""

import json
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path

SHOWN = 5  # videos named for each kind of note


@dataclass
class ExtractionReport:
    """What has to be said at the end.

    Attributes:
        failures (dict[str, str]): Video id -> why it has no features.
        notes (dict[str, dict[str, str]]): Video id -> kind -> details, of videos that have features
            although something about them was unusual.
        others (dict[str, int]): Suffix -> number of files that are no videos, in the folders.
        remarks (list[str]): What else has to be said.
    """

    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, dict[str, str]] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The report as text: notes by kind with the first few videos, failures one by one."""
        lines = list(self.remarks)
        if self.others:
            kinds = ', '.join(
                f'{count} {suffix or "without suffix"}'
                for suffix, count in sorted(self.others.items())
            )
            lines.append(
                f'{sum(self.others.values())} files in the folders are no videos and were '
                f'passed over: {kinds}'
            )
        kinds = defaultdict(list)
        for video, notes in sorted(self.notes.items()):
            for kind, details in notes.items():
                kinds[kind].append(f'{video} ({details})')
        for kind, videos in sorted(kinds.items()):
            more = f', and {len(videos) - SHOWN} more' if len(videos) > SHOWN else ''
            lines.append(
                f'{kind}, dealt with, in {len(videos)} of the videos: '
                f'{", ".join(videos[:SHOWN])}{more}'
            )
        if self.failures:
            lines.append(f'{len(self.failures)} videos could not be read and are not in the file:')
            lines += [f'  {message}' for _, message in sorted(self.failures.items())]
        return lines

    def write(self, path: str | Path) -> None:
        """Write everything as JSON."""
        content = asdict(self)
        Path(path).write_text(json.dumps(content, indent=1, sort_keys=True) + '\n')
