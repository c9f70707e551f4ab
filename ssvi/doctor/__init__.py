"""`ssvi doctor`: before hours are spent, what of this machine would make results wrong, lost or slow.

`registry.py` lists the checks, `base.py` says what one is told and finds, `running.py` plays them in processes that may
hang or crash (`worker.py`), `shown.py` says what was found. The others hold the checks by subject; of them `passes.py`,
`precision.py`, `agreement.py` and `outcome.py` are also what a trial on a GPU checks (`benchmarks/gpu`).
"""
