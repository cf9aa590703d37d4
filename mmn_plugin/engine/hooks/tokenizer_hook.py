"""The tokenizer travels with the checkpoint."""

from mmaction.registry import HOOKS, TOKENIZER
from mmengine.hooks import Hook

from ..bare_model import bare_model
from ..runner.checkpoint_content import require_checkpoint_content


@HOOKS.register_module()
class TokenizerHook(Hook):
    """Store the tokenizer in every checkpoint and compare it when one is loaded.

    The vocabulary decides which embedding a word gets, so a checkpoint used with another one
    gives wrong answers without any error; here that is an error. The same tokenizer may be written
    down in several ways (`SentenceTokenizer.differences`). A checkpoint's own tokenizer serves
    where the configured one cannot be built (its file is elsewhere).
    """

    KEY = 'tokenizer'

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Put the tokenizer's state into the checkpoint's ``meta``."""
        checkpoint['meta'][self.KEY] = self._preprocessor(runner).tokenizer.state()

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare with, or take over, the tokenizer of a checkpoint.

        Raises:
            ValueError: If the tokenizers of model and checkpoint give different ids (the message
                says by what), or the file is no checkpoint.
        """
        require_checkpoint_content(checkpoint, getattr(runner, '_load_from', None))
        state = checkpoint.get('meta', {}).get(self.KEY)
        if state is None:
            return
        preprocessor = self._preprocessor(runner)
        try:
            tokenizer = preprocessor.tokenizer
        except OSError:
            preprocessor.tokenizer = TOKENIZER.get('SentenceTokenizer').from_state(state)
            return
        differences = tokenizer.differences(state)
        if differences:
            raise ValueError(
                'the checkpoint was trained with another vocabulary or tokenizer setting than '
                'model.data_preprocessor.tokenizer of this config, and words would get the '
                f'embeddings of others. {"; ".join(differences)}. Give the vocabulary and the '
                'settings it was trained with'
            )

    @staticmethod
    def _preprocessor(runner):
        return bare_model(runner).data_preprocessor
