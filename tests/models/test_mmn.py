"""The whole model: predictions, errors, independence of a batch's composition."""

import copy

import pytest
import torch
from helpers.tiny_corpus import FEATURE_SIZE, NUM_SEGMENTS, VOCABULARY, tiny_model
from mmaction.registry import MODELS
from mmengine.config import Config
from mmengine.structures import InstanceData

from mmn_plugin.models.heads.base_head import own_video_products
from mmn_plugin.structures import GroundingDataSample, SentenceBatch


@pytest.fixture
def model():
    config = Config.fromfile('mmn_plugin::mmn_charades.py')
    config.merge_from_dict(dict(model=tiny_model('unused', dropout=0.0)))
    config.model.data_preprocessor.tokenizer.vocab = list(VOCABULARY)
    return MODELS.build(config.model)


def sample(video_id, sentences, duration=20.0):
    result = GroundingDataSample(
        metainfo=dict(
            video_id=video_id,
            duration=duration,
            sentences=sentences,
            sentence_index=list(range(len(sentences))),
        )
    )
    starts = torch.linspace(0.1, 0.9, len(sentences)) * duration / 2
    result.gt_instances = InstanceData(moments=torch.stack([starts, starts + duration / 4], 1))
    return result


def batch_of(model, samples):
    inputs = [
        torch.randn(
            NUM_SEGMENTS, FEATURE_SIZE, generator=torch.Generator().manual_seed(len(s.video_id))
        )
        for s in samples
    ]
    return model.data_preprocessor(dict(inputs=inputs, data_samples=copy.deepcopy(samples)))


SAMPLES = [
    sample('v', ['a person opens the door', 'then the box']),
    sample('vv', ['the red box'], duration=33.0),
]


def test_predictions_do_not_depend_on_the_other_videos_of_the_batch(model):
    model.eval()
    together = model(**batch_of(model, SAMPLES), mode='predict')
    for index, alone in enumerate(SAMPLES):
        single = model(**batch_of(model, [alone]), mode='predict')[0].pred_instances
        torch.testing.assert_close(together[index].pred_instances.scores, single.scores)
        assert torch.equal(together[index].pred_instances.moments, single.moments)


def test_predicted_moments_are_ranked_within_the_video_and_kept_apart_by_nms(model):
    model.eval()
    for result in model(**batch_of(model, SAMPLES), mode='predict'):
        moments, scores = result.pred_instances.moments, result.pred_instances.scores
        assert moments.shape == (len(result.sentences), 5, 2)
        present = ~scores.isnan()
        assert present[:, 0].all()
        assert (moments[present] >= 0).all()
        assert (moments[present] <= result.duration).all()
        for row in scores:
            kept = row[~row.isnan()]
            assert torch.equal(kept, kept.sort(descending=True).values)


def test_losses_are_weighted_and_scheduled(model):
    model.eval()  # BatchNorm on its buffers, so that both passes agree
    batch = batch_of(model, SAMPLES)
    full = model(**batch, mode='loss')
    model.head.contrastive_factor = 0.01
    late = model(**batch, mode='loss')
    assert late['loss_iou'] == full['loss_iou']
    for name in ('loss_vid', 'loss_sent'):
        assert late[name].item() == pytest.approx(0.01 * full[name].item())


def test_products_with_the_own_video_equal_a_loop_over_sentences():
    moments, sentences = torch.randn(3, 4, 8), torch.randn(6, 8)
    video = torch.tensor([0, 0, 0, 2, 2, 2])
    result = own_video_products(moments, sentences, [3, 0, 3])
    for s, v in enumerate(video):
        torch.testing.assert_close(result[s], moments[v] @ sentences[s])


def test_features_of_another_size_are_refused_by_the_name_of_the_video(model):
    with pytest.raises(ValueError, match=r'vv have size 5.*in_channels is 6'):
        model.encode_videos(torch.randn(1, NUM_SEGMENTS, 5), [SAMPLES[1]])


def test_videos_of_different_lengths_in_one_batch_are_refused_by_name(model):
    with pytest.raises(ValueError, match=r'vv: \(4, 6\)'):
        model.data_preprocessor(
            dict(inputs=[torch.zeros(5, 6), torch.zeros(4, 6)], data_samples=SAMPLES)
        )


def test_a_tokenizer_of_another_vocabulary_than_the_language_model_is_refused(model):
    ids = torch.tensor([[2, 31, 32]])
    with pytest.raises(ValueError, match='do not belong together'):
        model.text_encoder(SentenceBatch(ids, torch.ones_like(ids), torch.zeros(1)))


def test_a_text_encoder_needs_one_source_of_its_language_model():
    for settings in (dict(), dict(name_or_path='x', config=dict(model_type='bert'))):
        with pytest.raises(ValueError, match='exactly one'):
            MODELS.build(dict(type='SentenceEncoder', embed_channels=4, **settings))


def test_a_language_model_that_is_nowhere_to_be_had_is_named(tmp_path):
    with pytest.raises(OSError, match=r'text_encoder\.name_or_path=FOLDER'):
        MODELS.build(
            dict(type='SentenceEncoder', embed_channels=4, name_or_path=str(tmp_path / 'absent'))
        )


@pytest.mark.parametrize(
    'config',
    [
        dict(
            model_type='bert',
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            vocab_size=32,
        ),
        dict(
            model_type='roberta',
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            vocab_size=32,
        ),
        dict(model_type='distilbert', dim=16, n_layers=1, n_heads=2, hidden_dim=16, vocab_size=32),
    ],
)
def test_any_bert_like_model_serves_and_all_its_parameters_are_used(config):
    encoder = MODELS.build(dict(type='SentenceEncoder', embed_channels=4, config=config))
    ids = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])
    mask = (ids > 0).long()
    out = encoder(SentenceBatch(ids, mask, torch.tensor([0, 0])))
    assert out['iou'].shape == out['contrastive'].shape == (2, 4)
    (out['iou'].sum() + out['contrastive'].sum()).backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_a_pretrained_language_model_is_read_from_a_local_folder(tmp_path):
    made = MODELS.build(
        dict(
            type='SentenceEncoder',
            embed_channels=4,
            config=dict(
                model_type='distilbert', dim=16, n_layers=1, n_heads=2, hidden_dim=16, vocab_size=32
            ),
        )
    )
    made.bert.save_pretrained(tmp_path)
    read = MODELS.build(dict(type='SentenceEncoder', embed_channels=4, name_or_path=str(tmp_path)))
    for name, value in made.bert.state_dict().items():
        assert torch.equal(value, read.bert.state_dict()[name])


def test_a_sentence_of_the_most_tokens_fits_whatever_positions_begin_with():
    for kind, limit in (('roberta', 18), ('bert', 20)):
        encoder = MODELS.build(
            dict(
                type='SentenceEncoder',
                embed_channels=4,
                config=dict(
                    model_type=kind,
                    hidden_size=16,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                    intermediate_size=16,
                    vocab_size=32,
                    max_position_embeddings=20,
                    pad_token_id=1,
                ),
            )
        )
        assert encoder.max_tokens == limit
        ids = torch.full((1, limit), 5)
        encoder(SentenceBatch(ids, torch.ones_like(ids), torch.tensor([0])))
        with pytest.raises((IndexError, RuntimeError)):
            encoder(SentenceBatch(*[torch.full((1, limit + 1), 5)] * 2, torch.tensor([0])))


def test_padding_does_not_change_a_sentence(model):
    model.eval()
    ids = torch.tensor([[2, 5, 6, 3]])
    padded = torch.tensor([[2, 5, 6, 3, 0, 0]])
    video = torch.tensor([0])
    plain = model.text_encoder(SentenceBatch(ids, torch.ones_like(ids), video))
    wide = model.text_encoder(SentenceBatch(padded, (padded > 0).long(), video))
    torch.testing.assert_close(plain['iou'], wide['iou'])
