"""What a checkpoint's weights do not show."""

from mmaction.registry import HOOKS
from mmengine.hooks import Hook

from ..bare_model import bare_model
from ..runner.checkpoint_content import require_checkpoint_content


@HOOKS.register_module()
class ArchitectureHook(Hook):
    """Store in every checkpoint which moments its model knows, and compare when one is loaded.

    The weights of two configs can have the same names and shapes (those of TACoS and Charades-STA
    do) although their moments differ; one tested under the other's config would give figures,
    and wrong ones.
    """

    KEY = 'architecture'
    LANGUAGE_MODEL = 'language_model'

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Put the model's ``architecture`` into the checkpoint's ``meta``.

        And the configuration of its language model, so that a checkpoint can be used where the
        folder or the hub that the language model came from is not.
        """
        model = bare_model(runner)
        checkpoint['meta'][self.KEY] = model.architecture
        language_model = getattr(getattr(model, 'text_encoder', None), 'language_model', None)
        if language_model is not None:
            checkpoint['meta'][self.LANGUAGE_MODEL] = language_model

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare; checkpoints without the entry (converted ones) pass.

        Raises:
            ValueError: If the checkpoint's model had other moments, or the file is no checkpoint.
        """
        require_checkpoint_content(checkpoint, getattr(runner, '_load_from', None))
        theirs = checkpoint.get('meta', {}).get(self.KEY)
        ours = bare_model(runner).architecture
        if theirs is None or theirs == ours:
            return
        differing = '; '.join(
            f'{key}: {theirs.get(key)}, here {value}'
            for key, value in ours.items()
            if theirs.get(key) != value
        )
        raise ValueError(
            f'the checkpoint belongs to another architecture than the config '
            f'({differing}). Use the config that it was trained with'
        )
