"""Natural gradients (IVON) in a training loop of one's own: a sparse posterior whose means and sigma are learned
together, beside one that SGD learns, on the digits of scikit-learn.

python examples/natural_gradient.py
"""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn.functional import cross_entropy, nll_loss

import ssvi

EPOCHS, BATCH, DENSITY, TEMPERATURE = 30, 64, 0.1, 0.03
images, labels = load_digits(return_X_y=True)
split = train_test_split(torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels), random_state=0)
train_x, test_x, train_y, test_y = split
n_train = len(train_x)
steps = EPOCHS * (n_train // BATCH)


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(64, 300), nn.BatchNorm1d(300), nn.ReLU(),
        nn.Linear(300, 300), nn.BatchNorm1d(300), nn.ReLU(),
        nn.Linear(300, 10),
    )  # fmt: skip
    # one weight sample a step costs what a plain network's step does
    return ssvi.sparsify(
        net, density=DENSITY, seed=0, sampling="weight", prior_sigma=0.3, mu_init_sd=0.1, sigma_init=0.03
    )


def fit(net: nn.Module, optimizers: list[torch.optim.Optimizer], kl_scale: float) -> None:
    """Train; `kl_scale` is the weight of a KL that no optimiser adds by itself."""
    subspace = ssvi.Subspace(net, optimizers, total_steps=steps, update_every=20)
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps) for optimizer in optimizers]
    source = torch.Generator().manual_seed(0)
    for _ in range(EPOCHS):
        for batch in torch.randperm(n_train, generator=source).split(BATCH)[: n_train // BATCH]:
            loss = cross_entropy(net(train_x[batch]), train_y[batch])
            if kl_scale:
                loss = loss + ssvi.kl(net) * kl_scale / n_train
            loss.backward()
            subspace.step()
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.zero_grad()
                schedule.step()


def report(name: str, net: nn.Module) -> None:
    net.eval()
    prediction = ssvi.predict(net, test_x, samples=20)
    accuracy = (prediction.probabilities.argmax(1) == test_y).double().mean()
    nll = nll_loss(prediction.probabilities.log(), test_y)
    share = prediction.mutual_information.mean() / prediction.entropy.mean()
    print(
        f"{name}: accuracy {100 * accuracy:.1f} %, NLL {nll:.3f}, {100 * share:.2f} % of the entropy is of the weights"
    )


net = network()
groups = ssvi.parameter_groups(net, weight_decay=5e-4)
fit(net, [torch.optim.SGD(groups, lr=0.1, momentum=0.9)], kl_scale=TEMPERATURE)
report("by SGD", net)

net = network()
others = torch.optim.SGD(ssvi.parameter_groups(net, weight_decay=5e-4, posterior=False), lr=0.1, momentum=0.9)
natural = ssvi.IVON(net, lr=0.2, n_train=n_train, total_steps=steps, temperature=TEMPERATURE, curvature_memory=1.0)
fit(net, [others, natural], kl_scale=0.0)
report("by the natural gradient", net)
