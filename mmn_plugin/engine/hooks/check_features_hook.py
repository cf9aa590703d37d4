"""Find features of the wrong size before a day is lost."""
from mmaction.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper


@HOOKS.register_module()
class CheckFeaturesHook(Hook):
    """Before training, load one video of each dataset and compare it with the model.

    A validation set with other features would otherwise end the run only after its first epoch.
    """

    def before_train(self, runner) -> None:
        """Check the training and the validation set.

        Raises:
            ValueError: If the features' size is not the backbone's.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self.check(runner.train_loop.dataloader, model)
        if runner.val_loop is not None:
            self.check(runner.val_loop.dataloader, model)

    def before_test(self, runner) -> None:
        """Check the test set.

        Raises:
            ValueError: If the features' size is not the backbone's.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self.check(runner.test_loop.dataloader, model)

    @staticmethod
    def check(dataloader, model) -> None:
        """Compare the first video of a loader with the model; tokenise its sentences as well."""
        dataset = dataloader.dataset
        sample = dataset[0]
        size = sample['inputs'].shape[-1]
        if size != model.backbone.in_channels:
            files = dataset.data_prefix.get('features')
            raise ValueError(
                f'features of video {sample["data_samples"].video_id} in {files} have size '
                f'{size}, but model.backbone.in_channels is {model.backbone.in_channels}: give '
                'the feature files this config was written for, or set '
                f'--cfg-options model.backbone.in_channels={size}')
        model.data_preprocessor.tokenizer.encode(sample['data_samples'].sentences)
