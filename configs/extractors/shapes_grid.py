# No weights: statistics of color, outline and motion in steps of 0.75 s, made for Shapes.
custom_imports = dict(imports=['mmn_plugin', 'mmn_plugin.shapes'], allow_failed_imports=False)
extractor = dict(type='GridFeatureExtractor', fps=8.0, stride=6)
