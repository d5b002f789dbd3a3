"""Neuromodulated CAVIA: context meta-reinforcement learning by neuromodulation (arXiv 2111.00134)."""

import os

# Workers and the learner's threads each compute alone. These must be set before torch is imported; the worker
# processes inherit them.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
