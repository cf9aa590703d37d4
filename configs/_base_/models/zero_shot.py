# Grounding without training: a tower's cosines. A config adds model.tower.
model = dict(
    type='ZeroShotGrounding',
    data_preprocessor=dict(type='GroundingDataPreprocessor'),
    grid=dict(num_clips=32, pooling_counts=[7, 4, 4]),
    # What surrounds a moment: 'neighborhood' (its length, on both sides) or the video's 'rest'
    neck=dict(type='TowerPool', surroundings='neighborhood'),
    head=dict(
        type='ZeroShotHead',
        # 'mean'; 'contrast': inside minus `weight` x around; 'rise': `rise` x rise at the start +
        # `steadiness` x least third + `mean` x mean
        score=dict(type='contrast', weight=0.5),
        # sigmoid(scale * (score + length_weight * log(length) - center)); scale='tower': its own
        scale=10.0,
        center=0.1,
        length_weight=0.0,  # choose it on validation: above 0 for longer moments
        nms_threshold=0.5,
        top_n=5,
    ),
)

# The share of unrelated sentences that must do worse in the video than one that is present.
presence = dict(threshold=0.95, tail=0.0)
