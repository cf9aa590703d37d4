# How tools/data/train_shapes_towers.py trains.
training = dict(
    steps=3000,
    videos=12,
    lr=1e-3,
    warmup=150,
    weight_decay=0.05,
    temperature=0.05,
    shift=2,
    seed=0,
)
