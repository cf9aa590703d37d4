"""Videos that are built into the page."""

from dataclasses import dataclass
from pathlib import Path

from mmn_plugin.datasets.shapes import SceneRenderer, SceneSampler
from mmn_plugin.datasets.shapes.video_writer import write_video

# Scenes far beyond the number of any corpus, so that no training has seen them.
FIRST_SCENE = 10_000_000


@dataclass(frozen=True)
class ExampleVideo:
    """A scene of Shapes with its sentences.

    Attributes:
        name (str): What the visitor chooses by.
        path (Path): The file.
        truth (dict): Sentence -> true moment (start, end).
    """

    name: str
    path: Path
    truth: dict

    @classmethod
    def render(cls, folder: Path, count: int = 3) -> list['ExampleVideo']:
        """Render some, each in a fraction of a second.

        Args:
            folder (Path): Where to; made if need be.
            count (int): How many. Defaults to 3.
        """
        folder.mkdir(parents=True, exist_ok=True)
        examples = []
        for number in range(1, count + 1):
            scene = SceneSampler(seed=0).sample(
                FIRST_SCENE + number, f'shapes_example_{number}', training=False
            )
            path = folder / f'{scene.video_id}.mp4'
            write_video(path, SceneRenderer(96).render(scene), scene.fps)
            annotation = scene.annotation()
            moments = zip(annotation['sentences'], annotation['timestamps'], strict=True)
            examples.append(cls(f'Shapes {number}', path, {s: tuple(m) for s, m in moments}))
        return examples
