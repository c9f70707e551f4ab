"""`sparsify` on every family of networks in torchvision: each trains, moves its subspace, and predicts."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

import ssvi
from ssvi.core.layers import masked_layers
from ssvi.data.sources import import_torchvision

torchvision = import_torchvision()
models = torchvision.models
OTHERS = "other families of torchvision"


def named(name: str, **options):
    return lambda: models.get_model(name, num_classes=4, **options)


def narrow_vit() -> nn.Module:
    return models.VisionTransformer(16, 8, 2, 4, 32, 64, num_classes=4)


def narrow_swin(version: int):
    blocks = models.swin_transformer
    block, merging = {
        1: (blocks.SwinTransformerBlock, blocks.PatchMerging),
        2: (blocks.SwinTransformerBlockV2, blocks.PatchMergingV2),
    }[version]
    return lambda: models.SwinTransformer(
        [4, 4], 32, [1, 2], [2, 4], [2, 2], num_classes=4, block=block, downsample_layer=merging
    )


def narrow_maxvit() -> nn.Module:
    return models.MaxVit((64, 64), 16, 2, [16, 32], [1, 1], 16, 0.1, num_classes=4)


def whole_maxvit() -> nn.Module:
    # the smallest one but for its windows, which would need large images
    return models.MaxVit((64, 64), 64, 2, [64, 128, 256, 512], [2, 2, 5, 2], 32, 0.2, num_classes=4)


def narrow_densenet() -> nn.Module:
    return models.DenseNet(8, (2, 2), 16, num_classes=4)


def others(name: str, image: int, share: float, **options):
    return pytest.param(named(name, **options), image, share, id=name, marks=pytest.mark.fault(OTHERS, quick=0))


# How a network is made, the side of its images, and the least share of its parameters that is in the subspace: of the
# smallest member of a family, or of a narrow one. At the end of a deep network BatchNorm needs more than one place of
# two images: in plain networks, too, gradients are above 1e9 otherwise.
NETWORKS = [
    pytest.param(narrow_vit, 16, 0.6, id="narrow vit"),
    pytest.param(narrow_swin(1), 32, 0.6, id="narrow swin"),
    pytest.param(narrow_swin(2), 32, 0.6, id="narrow swin v2"),
    pytest.param(narrow_maxvit, 64, 0.6, id="narrow maxvit"),
    pytest.param(narrow_densenet, 32, 0.6, id="narrow densenet"),
    pytest.param(named("squeezenet1_1"), 32, 0.9, id="squeezenet1_1"),
    others("shufflenet_v2_x0_5", 32, 0.9),
    pytest.param(named("mobilenet_v3_small", width_mult=0.5), 32, 0.9, id="narrow mobilenet_v3"),
    pytest.param(whole_maxvit, 64, 0.9, id="maxvit", marks=pytest.mark.fault(OTHERS, quick=0)),
    others("alexnet", 64, 0.9),
    others("convnext_tiny", 32, 0.9),
    others("densenet121", 64, 0.9),
    others("efficientnet_b0", 64, 0.9),
    others("efficientnet_v2_s", 64, 0.9),
    others("googlenet", 64, 0.9, init_weights=False),
    others("inception_v3", 299, 0.9, init_weights=False),
    others("mnasnet0_5", 64, 0.9),
    others("mobilenet_v2", 64, 0.9, width_mult=0.25),
    others("mobilenet_v3_small", 64, 0.9),
    others("regnet_y_400mf", 64, 0.9),
    others("resnet18", 64, 0.9),
    others("resnext50_32x4d", 64, 0.9),
    others("swin_t", 32, 0.6),
    others("swin_v2_t", 32, 0.6),
    others("vgg11", 32, 0.9),
    others("vit_b_16", 32, 0.6, image_size=32),
    others("wide_resnet50_2", 64, 0.9),
]
FAMILIES = {
    *("alexnet", "convnext", "densenet", "efficientnet", "googlenet", "inception", "maxvit", "mnasnet", "mobilenetv2"),
    *("mobilenetv3", "regnet", "resnet", "shufflenetv2", "squeezenet", "swin_transformer", "vgg", "vision_transformer"),
}


def test_no_family_is_forgotten() -> None:
    builders = [models.get_model_builder(name) for name in models.list_models(module=models)]
    assert {builder.__module__.rsplit(".", 1)[1] for builder in builders} == FAMILIES


def loss_of(outputs, targets: torch.Tensor) -> torch.Tensor:
    """Some networks give, in training, what their auxiliary classifiers say as well."""
    every = outputs if isinstance(outputs, tuple) else (outputs,)
    return sum(functional.cross_entropy(one, targets) for one in every)


@pytest.mark.parametrize(("make", "image", "share"), NETWORKS)
def test_a_network_of_torchvision_trains_and_predicts(make, image, share) -> None:
    torch.manual_seed(0)
    net, x, targets = make(), torch.randn(2, 3, image, image), torch.tensor([1, 3])
    total = sum(p.numel() for p in net.parameters())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ssvi.sparsify(net, 0.3, start="keep", seed=0)
    inside = sum(layer.size for layer in masked_layers(net).values()) / total
    print(f"{inside:.1%} of {total:,} parameters are in the subspace", *(str(one.message) for one in told))
    assert inside >= share
    left = {name for name, p in net.named_parameters() if p.dim() > 1}
    assert bool(left) == any("stay dense" in str(one.message) for one in told)
    optimizer = torch.optim.SGD(ssvi.parameter_groups(net), lr=1e-3, momentum=0.9)
    subspace = ssvi.Subspace(net, optimizer, total_steps=10, update_every=2)
    first, counts = net.subspace_index.clone(), subspace.n_active
    for _ in range(4):
        optimizer.zero_grad()
        (loss_of(net(x), targets) + ssvi.kl(net) / 1e6).backward()
        subspace.step()
    assert subspace.updates == 2
    assert subspace.n_active == counts
    assert not torch.equal(net.subspace_index, first)
    assert all(p.isfinite().all() for p in net.parameters())
    prediction = ssvi.predict(net, x, samples=2)
    assert torch.allclose(prediction.probabilities.sum(1), torch.ones(2, dtype=torch.float64))
