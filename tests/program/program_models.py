"""Models as people write them, with the call that trains them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3)
        self.conv2 = nn.Conv2d(4, 6, 3)
        self.dropout1 = nn.Dropout(0.25)
        self.dropout2 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(54, 16)
        self.fc2 = nn.Linear(16, 5)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(self.dropout1(x), 1)
        x = self.dropout2(F.relu(self.fc1(x)))
        return F.log_softmax(self.fc2(x), dim=1)


class Block(nn.Module):
    def __init__(self, inplanes, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = None
        if stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(inplanes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
            )

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.layers = nn.Sequential(Block(4, 4, 1), Block(4, 8, 2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.pool(self.layers(self.stem(x))).flatten(1))


class GPT(nn.Module):
    """Tied weights, causal fused attention, returns (logits, loss)."""

    def __init__(self, vocabulary=11, width=8, heads=2, context=6):
        super().__init__()
        self.heads = heads
        self.wte = nn.Embedding(vocabulary, width)
        self.wpe = nn.Embedding(context, width)
        self.ln1, self.ln2, self.lnf = (nn.LayerNorm(width) for _ in range(3))
        self.attn = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Linear(16, width), nn.Dropout(0.1))
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, idx, targets=None):
        b, t = idx.size()
        pos = torch.arange(0, t, dtype=torch.long, device=idx.device)
        x = self.wte(idx) + self.wpe(pos)
        q, k, v = self.attn(self.ln1(x)).split(x.shape[2], dim=2)
        q, k, v = (z.view(b, t, self.heads, -1).transpose(1, 2) for z in (q, k, v))
        dropout = 0.1 if self.training else 0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=None, dropout_p=dropout, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).contiguous().view(b, t, -1))
        x = self.lnf(x + self.mlp(self.ln2(x)))
        if targets is None:
            return self.lm_head(x[:, [-1], :]), None
        logits = self.lm_head(x)
        loss = F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1)
        return logits, loss


class Encoder(nn.Module):
    """nn.TransformerEncoder with a mask and padding, and positions as a buffer."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 8, padding_idx=0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.pooling = nn.MultiheadAttention(8, 2, batch_first=True)
        self.register_buffer("positions", torch.randn(1, 6, 8), persistent=False)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens):
        x = self.embedding(tokens) + self.positions[:, : tokens.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        x = self.encoder(x, mask=mask, src_key_padding_mask=(tokens == 12).to(x.dtype))
        x, _ = self.pooling(x, x, x, need_weights=False)
        return self.head(x.mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.rnn = kind(6, 5, num_layers=2, batch_first=True, dropout=0.3, bidirectional=True)
        self.fc = nn.Linear(10, 3)

    def forward(self, x):
        out, _ = self.rnn(self.embedding(x))
        return self.fc(out[:, -1])


class Deep(nn.Module):
    def __init__(self, depth=120):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(depth))

    def forward(self, x):
        for layer in self.layers:
            x = x + 0.1 * torch.tanh(layer(x))
        return x


class Norms(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(3, 8, 3, padding=1)
        self.group = nn.GroupNorm(2, 8)
        self.instance = nn.InstanceNorm1d(8, affine=True)
        self.layer = nn.LayerNorm((8, 7))
        self.weighted = nn.utils.parametrizations.weight_norm(nn.Linear(56, 4))
        self.out = nn.Linear(4, 2)

    def forward(self, x):
        x = F.silu(self.layer(self.instance(self.group(self.conv(x)))))
        x = F.gelu(self.weighted(x.flatten(1)), approximate="tanh")
        return self.out(x)


@dataclass
class Out:
    hidden: Tensor
    logits: Tensor
    loss: Tensor | None = None


class ModelOutput(OrderedDict):
    """As in transformers: a dataclass that is a dict too."""

    def __post_init__(self):
        for field in fields(self):
            if getattr(self, field.name) is not None:
                self[field.name] = getattr(self, field.name)


@dataclass
class LMOutput(ModelOutput):
    loss: Tensor | None = None
    logits: Tensor | None = None


class Returning(nn.Module):
    def __init__(self, shape: Callable[[Tensor, Tensor], Any]):
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)
        self.shape = shape

    def forward(self, x, *, scale=1.0, mask=None):
        h = torch.relu(self.first(x)) * scale
        if mask is not None:
            h = h.masked_fill(~mask, 0.0)
        return self.shape(h, self.second(h))


class InPlace(nn.Module):
    """Assignments to slices, counters in buffers, unregistered constants, a detached branch."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.scale = torch.arange(1.0, 5.0)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        self.calls += 1
        h = self.a(x) * self.scale * torch.tensor([1.0, 2.0, 3.0, 4.0])
        h[:, 0] = 0
        with torch.no_grad():
            gate = torch.sigmoid(self.b(h))
        return self.b(h) * gate + x.detach().sort(1).values


def mlp():
    return nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 3))


def tokens(rows, length=6):
    return torch.randint(1, 11, (rows, length))


def _floats(*shape):
    return lambda rows: (torch.randn(rows, *shape),)


# name → (model, arguments for a number of rows)
MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], tuple[Any, ...]]]] = {
    "mlp": (mlp, _floats(6)),
    "cnn": (Cnn, _floats(1, 10, 10)),
    "resnet": (ResNet, _floats(3, 8, 8)),
    "gpt": (GPT, lambda rows: (tokens(rows), tokens(rows))),
    "encoder": (Encoder, lambda rows: (tokens(rows),)),
    "lstm": (lambda: Recurrent(nn.LSTM), lambda rows: (tokens(rows),)),
    "gru": (lambda: Recurrent(nn.GRU), lambda rows: (tokens(rows),)),
    "rnn": (lambda: Recurrent(nn.RNN), lambda rows: (tokens(rows),)),
    "deep": (Deep, _floats(6)),
    "norms": (Norms, _floats(3, 7)),
    "tuple": (lambda: Returning(lambda h, z: (z, h)), _floats(4)),
    "dict": (lambda: Returning(lambda h, z: {"logits": z, "hidden": h}), _floats(4)),
    "in place": (InPlace, _floats(4)),
}


def build(name: str, rows: int = 5) -> tuple[nn.Module, tuple[Any, ...]]:
    """Return a model with moved statistics, so that no buffer is at its initial value, and its arguments."""
    torch.manual_seed(0)
    make, arguments = MODELS[name]
    module = make()
    module.train()
    with torch.no_grad():
        module(*arguments(rows))
    return module, arguments(rows)
