"""Classification of digits in Lightning, which takes the optimiser's steps: python examples/images_lightning.py"""

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

import ssvi


class Digits(lightning.LightningModule):
    def __init__(self, n_train: int) -> None:
        super().__init__()
        net = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(128, 10)),
        )
        # At this density a unit sees 9 to 29 active inputs, so weights of about 1/sqrt(9) = 0.3 keep the size of what
        # passes: the prior's sd. Sigma starts at a tenth and grows where the data allow it; the KL is whole (scale 1).
        self.net = ssvi.sparsify(net, density=0.2, prior_sigma=0.3, mu_init_sd=0.3, sigma_init=0.03, seed=0)
        self.n_train, self.restored = n_train, {}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = torch.optim.Adam(ssvi.parameter_groups(self.net), lr=0.01)
        steps = int(self.trainer.estimated_stepping_batches)
        self.subspace = ssvi.Subspace(self.net, optimizer, total_steps=steps, update_every=20)
        return optimizer

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1]) + ssvi.kl(self.net) / self.n_train

    def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
        prediction = ssvi.predict(self.net, batch[0], samples=10)
        self.log("accuracy", (prediction.probabilities.argmax(1) == batch[1]).float().mean())
        self.log("mutual_information", prediction.mutual_information.mean())

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["subspace"] = self.subspace.state_dict()

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.restored = checkpoint["subspace"]  # for a training that goes on; its optimiser is made later

    def on_train_start(self) -> None:
        if self.restored:
            self.subspace.load_state_dict(self.restored)


if __name__ == "__main__":
    lightning.seed_everything(0)
    digits = load_digits()
    every = TensorDataset(torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target))
    train, test = random_split(every, [1437, 360])
    module, trainer = Digits(len(train)), lightning.Trainer(max_epochs=12, logger=False, enable_checkpointing=False)
    trainer.fit(module, DataLoader(train, 64, shuffle=True), DataLoader(test, len(test)))
    print(f"updates of the subspace: {module.subspace.updates}")
    print(*(f"{name}: {value:.4f}" for name, value in trainer.callback_metrics.items()), sep="\n")
