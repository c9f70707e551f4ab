"""The library: layers, posterior, subspace, prediction. PyTorch alone: no run spec, no file, no clock."""
