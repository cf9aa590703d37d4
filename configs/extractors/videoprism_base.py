# VideoPrism LvT base (768 numbers): windows of 16 frames of 288 x 288, which tell entering from
# leaving; 64 tokens of text. 248 million weights (994 MB), Apache 2.0.
# In 2026 the hub had them in transformers' format only in an open pull request, of which this is a
# commit; where the main branch has them: --cfg-options extractor.revision=main
extractor = dict(
    type='DualTower',
    model='google/videoprism-lvt-base-f16r288',
    revision='fb6de9f0eb7bc285be86bdca1cf7daa3e3ef51ff',
    fps=4.0,  # a window of 4 s, and a row for each second
    stride=4,
    clip_len=16,
    batch_size=4,
)
