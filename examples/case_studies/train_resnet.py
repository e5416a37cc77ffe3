"""ResNet-20 on some classes of CIFAR-10, by SGD with momentum, from a random start or from a trained body.

Source: He, Zhang, Ren & Sun, "Deep Residual Learning for Image Recognition" (arXiv 1512.03385), section 4.2.
"""

import argparse
from pathlib import Path

import torch
from images import load_classes
from torch import Tensor, nn
from torch.nn import functional as F

BLOCKS = 3  # of a stage


class Block(nn.Module):
    """Two convolutions, and a shortcut without parameters: it skips pixels and adds channels of zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.more = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.more:
            x = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(x, (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
        return F.relu(out + x)


class ResNet(nn.Module):
    """Three stages of three blocks, with `width`, twice and four times as many channels."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.stage1 = nn.Sequential(*(Block(width, width, 1) for _ in range(BLOCKS)))
        self.stage2 = self.stage(width)
        self.stage3 = self.stage(2 * width)
        self.fc = nn.Linear(4 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def stage(channels: int) -> nn.Sequential:
        rest = (Block(2 * channels, 2 * channels, 1) for _ in range(BLOCKS - 1))
        return nn.Sequential(Block(channels, 2 * channels, 2), *rest)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def load_body(model: ResNet, path: Path) -> None:
    """Take all parameters and statistics but the last layer's from a file that --save wrote."""
    state = torch.load(path, weights_only=True)
    body = {name: value for name, value in state.items() if not name.startswith("fc.")}
    own = {name: value for name, value in model.state_dict().items() if name.startswith("fc.")}
    model.load_state_dict({**body, **own})


def augment(x: Tensor) -> Tensor:
    """Flip half of the pictures, and shift each by up to two pixels, with zeros at the border."""
    count, _, height, width = x.shape
    flipped = torch.rand(count) < 0.5
    x = torch.where(flipped[:, None, None, None], x.flip(3), x)
    padded = F.pad(x, (2, 2, 2, 2))
    down, right = torch.randint(0, 5, (2, count)).tolist()
    shifted = [
        padded[k, :, i : i + height, j : j + width] for k, (i, j) in enumerate(zip(down, right, strict=True))
    ]
    return torch.stack(shifted)


def accuracy(model: ResNet, x: Tensor, y: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        right = torch.cat([model(part).argmax(1) for part in x.split(100)]) == y
    return float(right.float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[0, 2, 4, 6, 8])
    parser.add_argument("--pool", type=int, default=2, help="average squares of so many pixels")
    parser.add_argument("--width", type=int, default=16, help="channels of the first stage")
    parser.add_argument(
        "--start", type=Path, metavar="FILE", help="begin with this body and a new last layer"
    )
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--lr", type=float, default=0.1, help="at first; it falls to 0 along a cosine")
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the trained state_dict here")
    args = parser.parse_args()

    data = load_classes(args.classes, args.pool)
    torch.manual_seed(args.seed)
    model = ResNet(args.width, len(args.classes))
    if args.start is not None:
        load_body(model, args.start)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=args.lr, momentum=args.momentum, weight_decay=args.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    order = torch.randperm(len(data.x_train))
    for _ in range(args.steps):
        if len(order) < args.batch_size:
            order = torch.randperm(len(data.x_train))
        batch, order = order[: args.batch_size], order[args.batch_size :]
        loss = F.cross_entropy(model(augment(data.x_train[batch])), data.y_train[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    print(f"loss {loss.item():.4f}  test accuracy {accuracy(model, data.x_test, data.y_test):.4f}")
    if args.save is not None:
        torch.save(model.state_dict(), args.save)


if __name__ == "__main__":
    main()
