"""Regression in a training loop of one's own: a sparse network that says how sure it is, on scikit-learn's diabetes.

python examples/regression.py
"""

import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.distributions import Normal
from torch.utils.data import DataLoader, TensorDataset

import ssvi

EPOCHS, LEVEL = 120, 0.9

torch.manual_seed(0)
x, y = (torch.tensor(part, dtype=torch.float32) for part in load_diabetes(return_X_y=True))
order = torch.randperm(len(x))
train, test = order[:342], order[342:]
x = (x - x[train].mean(0)) / x[train].std(0)
y = (y - y[train].mean()) / y[train].std()

# At this density a hidden unit sees about 10 active inputs, so weights of 1/sqrt(10) = 0.3 keep the size of what
# passes: that is the prior's sd. Sigma starts at a tenth of it and grows where the data do not ask for less; the KL's
# scale is 1, Bayes' rule.
net = nn.Sequential(nn.Linear(10, 50), nn.Tanh(), nn.Linear(50, 50), nn.Tanh(), nn.Linear(50, 1), nn.Flatten(0))
net = ssvi.sparsify(net, density=0.2, prior_sigma=0.3, mu_init_sd=0.3, sigma_init=0.03, sigma_init_sd=0.0, seed=0)
log_noise = nn.Parameter(torch.zeros(()))  # of the likelihood N(net(x), noise^2)

loader = DataLoader(TensorDataset(x[train], y[train]), batch_size=64, shuffle=True)
optimizer = torch.optim.Adam([*ssvi.parameter_groups(net), {"params": [log_noise]}], lr=5e-3)
subspace = ssvi.Subspace(net, optimizer, total_steps=EPOCHS * len(loader), update_every=25)
for _ in range(EPOCHS):
    for inputs, targets in loader:
        likelihood = Normal(net(inputs), log_noise.exp())
        loss = -likelihood.log_prob(targets).mean() + ssvi.kl(net) / len(train)
        loss.backward()
        subspace.step()
        optimizer.zero_grad()

# What is predicted is a mixture of as many normal distributions as there are weight samples.
samples = ssvi.sample(net, x[test], samples=200)
noise = log_noise.exp().item()
drawn = samples + noise * torch.randn(samples.shape)
low, high = drawn.quantile(torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2]), dim=0)
coverage = ((low <= y[test]) & (y[test] <= high)).float().mean()
print(f"active weights: {sum(subspace.n_active.values())} of {10 * 50 + 50 * 50 + 50}")
print(f"updates of the subspace: {subspace.updates}")
print(f"R2 on test data: {1 - (samples.mean(0) - y[test]).square().mean() / y[test].var(correction=0):.3f}")
print(f"{LEVEL:.0%} intervals cover: {coverage:.3f}")
print(f"sd of the noise: {noise:.3f}, of the network's own uncertainty: {samples.std(0).mean():.3f}")
