"""All metrics: training, evaluation, the promotion gate and reports measure with these functions.

Targets are 1 (present), 0 (absent) or NaN (not known), and images without a known target are left out. A metric that
the data cannot define, such as an AUROC without positives, is NaN. No module here imports a network.
"""
