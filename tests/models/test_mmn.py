"""The whole model: predictions, losses, errors, and its language model."""

import pytest
import torch
from helpers.tiny_corpus import FEATURE_SIZE, NUM_SEGMENTS
from helpers.tiny_models import SAMPLES, assert_batch_plays_no_role, batch_of, build_tiny
from mmaction.registry import MODELS

from mmn_plugin.models.heads.base_head import own_video_products
from mmn_plugin.structures import SentenceBatch


@pytest.fixture
def model():
    return build_tiny()


def test_predictions_are_ranked_within_the_video_whatever_else_is_in_the_batch(model):
    assert_batch_plays_no_role(model)
    for result in model(**batch_of(model), mode='predict'):
        moments, scores = result.pred_instances.moments, result.pred_instances.scores
        assert moments.shape == (len(result.sentences), 5, 2)
        present = ~scores.isnan()
        assert present[:, 0].all()
        assert ((moments[present] >= 0) & (moments[present] <= result.duration)).all()
        for row in scores:
            kept = row[~row.isnan()]
            assert torch.equal(kept, kept.sort(descending=True).values)


@pytest.mark.parametrize(('name', 'clips'), [('mmn_charades.py', 8), ('mscl_charades.py', 16)])
def test_curves_are_predicted_where_the_head_is_asked_for_them(name, clips):
    asked, plain = (build_tiny(name, head=head).eval() for head in (dict(curves=True), {}))
    with torch.no_grad():
        found, without = (one(**batch_of(one), mode='predict') for one in (asked, plain))
    inputs = batch_of(plain)['inputs']
    for sample, other, features in zip(found, without, inputs, strict=True):
        curves = sample.pred_instances.pop('curves')
        assert curves.shape == (len(sample.sentences), clips)
        torch.testing.assert_close(curves, plain.head.curve(*plain.score_sample(features, other)))
        assert {*sample.pred_instances.keys()} == {*other.pred_instances.keys()}


def test_losses_are_weighted_and_scheduled(model):
    model.eval()  # BatchNorm on its buffers, so that both passes agree
    full = model(**batch_of(model), mode='loss')
    model.head.contrastive_factor = 0.01
    late = model(**batch_of(model), mode='loss')
    assert late['loss_iou'] == full['loss_iou']
    for name in ('loss_vid', 'loss_sent'):
        assert late[name].item() == pytest.approx(0.01 * full[name].item())


def test_products_with_the_own_video_equal_a_loop_over_sentences():
    moments, sentences = torch.randn(3, 4, 8), torch.randn(6, 8)
    result = own_video_products(moments, sentences, [3, 0, 3])
    for s, v in enumerate([0, 0, 0, 2, 2, 2]):
        torch.testing.assert_close(result[s], moments[v] @ sentences[s])


@pytest.mark.parametrize(('name', 'clips'), [('mmn_charades.py', 8), ('mscl_charades.py', 16)])
def test_features_that_do_not_fit_are_named(name, clips):
    model = build_tiny(name)
    with pytest.raises(ValueError, match=r'vv have size 5.*in_channels is 6'):
        model.encode_videos(torch.randn(1, NUM_SEGMENTS, 5), [SAMPLES[1]])
    with pytest.raises(ValueError, match=rf'rows of video vv give . clips.*num_clips is {clips}'):
        model.encode_videos(torch.randn(1, 4, FEATURE_SIZE), [SAMPLES[1]])
    inputs = [torch.zeros(5, 6), torch.zeros(4, 6)]
    with pytest.raises(ValueError, match=r'vv: \(4, 6\)'):
        model.data_preprocessor(dict(inputs=inputs, data_samples=SAMPLES))


@pytest.mark.parametrize(
    ('backbone', 'neck'),
    [(dict(keep_features=True), {}), ({}, dict(features=8)), ({}, dict(features=-1))],
)
def test_a_neck_that_does_not_take_the_features_that_come_is_refused(backbone, neck):
    for config in ('mmn_charades.py', 'mscl_charades.py'):
        with pytest.raises(ValueError, match=r'model\.neck\.features=-?\d, but .* appends \d'):
            build_tiny(config, backbone=backbone, neck=neck)


def test_a_grid_of_another_type_than_declared_is_named():
    with pytest.raises(ValueError, match=r'model\.grid\.num_clips=8\.5: it must be a whole number'):
        build_tiny(grid=dict(num_clips=8.5))


def test_features_of_another_size_than_the_joint_spaces_are_refused_with_what_to_set():
    with pytest.raises(ValueError, match=r'neck\.features=6: .* set embed_channels of .* to 6, or'):
        build_tiny(backbone=dict(keep_features=True), neck=dict(features=FEATURE_SIZE))


def test_a_model_that_keeps_features_learns_in_16_bits_and_grounds():
    sizes = dict(embed_channels=FEATURE_SIZE)
    model = build_tiny(
        backbone=dict(keep_features=True),
        neck=dict(sizes, features=FEATURE_SIZE),
        text_encoder=dict(sizes, identity=False),
    )
    before = model.neck.fc_features.weight.detach().clone()
    assert torch.equal(before, torch.eye(FEATURE_SIZE))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    with torch.autocast('cpu', torch.bfloat16):
        losses = model(**batch_of(model), mode='loss')
    sum(losses.values()).backward()
    optimizer.step()
    assert (model.neck.fc_features.weight != before).any()
    assert_batch_plays_no_role(model)


def encoder_of(**settings):
    return MODELS.build(dict(type='SentenceEncoder', embed_channels=4, **settings))


def language_model(kind, **settings):
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    if kind == 'distilbert':
        sizes = dict(dim=16, n_layers=1, n_heads=2, hidden_dim=16)
    return dict(model_type=kind, vocab_size=32, **sizes, **settings)


def test_a_language_model_that_is_not_given_once_or_does_not_fit_is_refused(model, tmp_path):
    for settings in (dict(), dict(name_or_path='x', config=dict(model_type='bert'))):
        with pytest.raises(ValueError, match='exactly one'):
            encoder_of(**settings)
    with pytest.raises(OSError, match=r'text_encoder\.name_or_path=FOLDER'):
        encoder_of(name_or_path=str(tmp_path / 'absent'))
    ids = torch.tensor([[2, 31, 32]])
    with pytest.raises(ValueError, match='do not belong together'):
        model.text_encoder(SentenceBatch(ids, torch.ones_like(ids), torch.zeros(1)))


@pytest.mark.parametrize('kind', ['bert', 'roberta', 'distilbert'])
def test_any_bert_like_model_serves_all_its_parameters_are_used_and_it_is_read_back(kind, tmp_path):
    encoder = encoder_of(config=language_model(kind))
    ids = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])
    out = encoder(SentenceBatch(ids, (ids > 0).long(), torch.tensor([0, 0])))
    assert out['iou'].shape == out['contrastive'].shape == (2, 4)
    (out['iou'].sum() + out['contrastive'].sum()).backward()
    assert all(p.grad is not None for p in encoder.parameters())
    encoder.bert.save_pretrained(tmp_path)
    read = encoder_of(name_or_path=str(tmp_path)).bert.state_dict()
    assert all(torch.equal(value, read[name]) for name, value in encoder.bert.state_dict().items())


def test_a_sentence_of_the_most_tokens_fits_whatever_positions_begin_with():
    for kind, limit in (('roberta', 18), ('bert', 20)):
        settings = dict(max_position_embeddings=20, pad_token_id=1)
        encoder = encoder_of(config=language_model(kind, **settings))
        assert encoder.max_tokens == limit
        ids = torch.full((1, limit), 5)
        encoder(SentenceBatch(ids, torch.ones_like(ids), torch.tensor([0])))
        with pytest.raises((IndexError, RuntimeError)):
            encoder(SentenceBatch(*[torch.full((1, limit + 1), 5)] * 2, torch.tensor([0])))


def test_padding_does_not_change_a_sentence(model):
    model.eval()
    embedded = []
    for ids in (torch.tensor([[2, 5, 6, 3]]), torch.tensor([[2, 5, 6, 3, 0, 0]])):
        embedded.append(model.text_encoder(SentenceBatch(ids, (ids > 0).long(), torch.tensor([0]))))
    torch.testing.assert_close(embedded[0]['iou'], embedded[1]['iou'])
