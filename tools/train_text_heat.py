"""Train the first stage of the detector of burned-in text: schemas/pixels/text_heat.onnx. Needs jax, optax, onnx and sympy, and fonts.

    python tools/train_text_heat.py --fonts FOLDER [--seed 1] [--frames 1200] [--steps 3600] [--out schemas/pixels/text_heat.onnx]

A fully convolutional network of 74,425 weights gives, for each 8 x 8 block of an 8-bit frame, how likely it belongs to a line of text. It
is trained on drawn frames only (`pictures_spark.synthetic.frames`, no real image), half of the steps on random patches and then also on
those clean ones that the network takes for text. About 9 minutes on one core. What it was trained on and how it did is in the card
beside it, schemas/pixels/text_heat.yaml.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import optax
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from pictures_spark.synthetic import frames

SIDE, CELL, BATCH = 160, 8, 32
# name, kernel, stride, dilation, channels in, channels out; `_RESIDUAL`: the input is added to the output.
LAYERS = (
    ("c1", 3, 2, 1, 1, 12),
    ("c2", 3, 2, 1, 12, 24),
    ("c3", 3, 1, 1, 24, 24),
    ("c4", 3, 2, 1, 24, 40),
    ("c5", 3, 1, 1, 40, 40),
    ("c6", 3, 1, 2, 40, 40),
    ("c7", 3, 1, 4, 40, 40),
    ("c8", 3, 1, 1, 40, 40),
    ("c9", 1, 1, 1, 40, 1),
)
_RESIDUAL = ("c3", "c5", "c6", "c7", "c8")
_LAST = LAYERS[-1][0]
# Lead letters of the side count neither as text nor as none.
_HARD = tuple(draw for draw in frames.HARD if draw is not frames.side_letter)
STYLE = frames.Style(heights=(7, 46), contrast=(28, 200), rotation=8.0, lines=(2, 6), jpeg_share=0.25)


def patches(rng: frames.Rng, fonts: list[str], number: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Patches of one frame with text and one without, each with its target: 1 text, 0 none, 2 does not count."""
    modality = list(frames.SIZES)[number % len(frames.SIZES)]
    planted = frames.planted_frame(rng, modality, fonts, STYLE, real_share=0.0)
    target = np.zeros(planted.pixels.shape, np.uint8)
    for line in planted.lines:
        reach = max(3, line.height // 2)
        ink = np.pad(line.ink.astype(np.uint8), reach)
        area = cv2.morphologyEx(ink, cv2.MORPH_CLOSE, np.ones((reach, 2 * reach + 1), np.uint8))[reach:-reach, reach:-reach]
        rows, columns = area.shape
        target[line.top : line.top + rows, line.left : line.left + columns] |= area
    for line in planted.lines:
        for _ in range(3):
            y = line.top + line.ink.shape[0] // 2 - int(rng.integers(20, SIDE - 20))
            x = line.left + int(rng.integers(0, line.ink.shape[1])) - int(rng.integers(20, SIDE - 20))
            yield _cut(planted.pixels, target, y, x)
    clean = frames.clean_frame(rng, modality, STYLE, real_share=0.0)
    empty = np.zeros(clean.pixels.shape, np.uint8)
    for _ in range(5):
        y, x = (int(rng.integers(0, max(1, size - SIDE + 1))) for size in clean.pixels.shape)
        yield _cut(clean.pixels, empty, y, x)


def _cut(pixels: np.ndarray, target: np.ndarray, y: int, x: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = pixels.shape
    y, x = min(max(0, y), max(0, rows - SIDE)), min(max(0, x), max(0, columns - SIDE))
    part, truth = pixels[y : y + SIDE, x : x + SIDE], target[y : y + SIDE, x : x + SIDE]
    missing = ((0, SIDE - part.shape[0]), (0, SIDE - part.shape[1]))
    return np.pad(part, missing, mode="reflect" if min(part.shape) > SIDE // 2 else "edge"), np.pad(truth, missing)


def cells(target: np.ndarray) -> np.ndarray:
    """Targets of blocks: text where a third of the block is, none where nothing is, else 2."""
    share = target.reshape(len(target), SIDE // CELL, CELL, SIDE // CELL, CELL).mean(axis=(2, 4))
    return np.where(share > 0.33, 1, np.where(share > 0, 2, 0)).astype(np.uint8)


def varied(rng: frames.Rng, parts: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Patches turned by right angles, mirrored in brightness, with less contrast and noise."""
    parts = parts.astype(np.float32)
    for number in range(len(parts)):
        if rng.random() < 0.25:
            quarter = int(rng.integers(1, 4))
            parts[number], targets[number] = np.rot90(parts[number], quarter), np.rot90(targets[number], quarter)
        if rng.random() < 0.35:
            parts[number] = 255 - parts[number]
        if rng.random() < 0.5:
            gain = rng.uniform(0.75, 1.4)
            parts[number] = (parts[number] - 128) * gain + 128 + rng.uniform(-30, 30)
        if rng.random() < 0.2:
            parts[number] = cv2.GaussianBlur(parts[number], (0, 0), float(rng.uniform(0.3, 0.8)))
        if rng.random() < 0.3:
            parts[number] += rng.normal(0, rng.uniform(1, 6), parts[number].shape)
    return np.clip(np.rint(parts), 0, 255), targets


def start(seed: int) -> dict[str, tuple[Any, Any]]:
    """Weights before training, in ONNX's order: out, in, rows, columns."""
    keys = jax.random.split(jax.random.PRNGKey(seed), len(LAYERS))
    made = {}
    for key, (name, size, _, _, wide_in, wide_out) in zip(keys, LAYERS, strict=True):
        scale = np.sqrt(2 / (size * size * wide_in)) * (0.3 if name in _RESIDUAL else 1.0)
        made[name] = (jax.random.normal(key, (wide_out, wide_in, size, size)) * scale, jnp.zeros(wide_out))
    return made


def logits(weights: dict[str, tuple[Any, Any]], pictures: Any) -> Any:
    """(n, rows, columns) of 0 to 255 -> (n, rows / 8, columns / 8)."""
    x = (pictures[:, None] - 128.0) / 64.0
    for name, size, stride, dilation, _, _ in LAYERS:
        kernel, bias = weights[name]
        pad = dilation * (size // 2)
        y = jax.lax.conv_general_dilated(x, kernel, (stride, stride), ((pad, pad), (pad, pad)), rhs_dilation=(dilation, dilation))
        y = y + bias[None, :, None, None]
        if name == _LAST:
            return y[:, 0]
        x = x + jax.nn.relu(y) if name in _RESIDUAL else jax.nn.relu(y)
    raise AssertionError


def loss(weights: dict[str, tuple[Any, Any]], pictures: Any, targets: Any) -> Any:
    """Mean cross entropy of the blocks that count, text weighing as much as none; the worst blocks weigh most."""
    given = logits(weights, pictures)
    text, none = targets == 1, targets == 0
    entropy = jnp.maximum(given, 0) - given * text + jnp.log1p(jnp.exp(-jnp.abs(given)))
    chance = jax.nn.sigmoid(given)
    focus = jnp.where(text, 1 - chance, chance) ** 1.5
    weighed = entropy * focus
    return (weighed * text).sum() / (text.sum() + 1) + 2 * (weighed * none).sum() / (text.sum() + 1 + 0.1 * none.sum())


def to_onnx(weights: dict[str, tuple[Any, Any]], path: Path) -> None:
    """The network: ``frame`` (1, 1, rows, columns) uint8, sides multiples of 8 -> ``heat`` (1, 1, rows / 8, columns / 8), 255 is sure."""
    nodes = [helper.make_node("Cast", ["frame"], ["real"], to=TensorProto.FLOAT)]
    constants = []

    def constant(name: str, value: Any) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    # (x - 128) / 64 is done before the first convolution, so that the border of zeros means mid-grey as in training.
    nodes.append(helper.make_node("Sub", ["real", constant("middle", 128)], ["centred"]))
    nodes.append(helper.make_node("Div", ["centred", constant("spread", 64)], ["x"]))
    last = "x"
    for name, size, stride, dilation, _, _ in LAYERS:
        kernel, bias = (np.asarray(part) for part in weights[name])
        pad = dilation * (size // 2)
        inputs = [last, constant(f"{name}_w", kernel), constant(f"{name}_b", bias)]
        nodes.append(
            helper.make_node(
                "Conv", inputs, [f"{name}_y"], strides=[stride] * 2, dilations=[dilation] * 2, pads=[pad] * 4, kernel_shape=[size] * 2
            )
        )
        if name == _LAST:
            break
        nodes.append(helper.make_node("Relu", [f"{name}_y"], [f"{name}_r"]))
        if name in _RESIDUAL:
            nodes.append(helper.make_node("Add", [last, f"{name}_r"], [f"{name}_a"]))
        last = f"{name}_a" if name in _RESIDUAL else f"{name}_r"
    nodes.append(helper.make_node("Sigmoid", [f"{_LAST}_y"], ["chance"]))
    nodes.append(helper.make_node("Mul", ["chance", constant("full", 255)], ["scaled"]))
    nodes.append(helper.make_node("Round", ["scaled"], ["rounded"]))
    nodes.append(helper.make_node("Cast", ["rounded"], ["heat"], to=TensorProto.UINT8))
    frame = helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, 1, "rows", "columns"])
    heat = helper.make_tensor_value_info("heat", TensorProto.UINT8, [1, 1, "block_rows", "block_columns"])
    graph = helper.make_graph(nodes, "text_heat", [frame], [heat], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


class _Calibration(CalibrationDataReader):
    """Frames with text, from which the ranges of the activations are told."""

    def __init__(self, seed: int, fonts: list[str]) -> None:
        style = replace(STYLE, lines=(2, 6))
        made = [
            frames.planted_frame(np.random.default_rng([seed, 9, number]), list(frames.SIZES)[number % 10], fonts, style, 0.0)
            for number in range(60)
        ]
        self._inputs = iter([{"frame": np.ascontiguousarray(frame.pixels[:128, :128])[None, None]} for frame in made])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next input, or None."""
        return next(self._inputs, None)


def quantise(path: Path, calibration: CalibrationDataReader) -> None:
    """Weights of 7 bits and activations of 8 instead of floats: half the time, and the same numbers with and without VNNI."""
    plain = path.with_suffix(".float.onnx")
    quant_pre_process(str(path), str(plain), skip_symbolic_shape=True)
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "reduce_range": True}
    quantize_static(str(plain), str(path), calibration, quant_format=QuantFormat.QDQ, per_channel=True, **kinds)
    plain.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fonts", type=Path, required=True, help="folder with outline fonts, searched through")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--frames", type=int, default=1200)
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--out", type=Path, default=Path("schemas/pixels/text_heat.onnx"))
    wanted = parser.parse_args()
    frames.HARD = _HARD
    outlines = sorted(str(path) for ending in ("ttf", "otf") for path in wanted.fonts.rglob(f"*.{ending}"))
    # As many lines in stroke and bitmap letters, and in pillow's own, as in all outline fonts together.
    fonts = outlines + ["stroke", "bitmap", ""] * (1 + len(outlines) // 3)
    rng = np.random.default_rng([wanted.seed, 0])
    began = time.monotonic()
    made = [patch for number in range(wanted.frames) for patch in patches(np.random.default_rng([wanted.seed, 1, number]), fonts, number)]
    parts, targets = np.stack([part for part, _ in made]), np.stack([target for _, target in made])
    print(f"{len(parts)} patches of {len(outlines)} fonts, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    weights = start(wanted.seed)
    schedule = optax.cosine_onecycle_schedule(wanted.steps, 4e-3, 0.1)
    tuner = optax.adamw(schedule, weight_decay=1e-4)
    state = tuner.init(weights)
    run = jax.jit(lambda w, x: jax.nn.sigmoid(logits(w, x)))

    @jax.jit
    def step(weights: Any, state: Any, pictures: Any, targets: Any) -> tuple[Any, Any, Any]:
        value, slope = jax.value_and_grad(loss)(weights, pictures, targets)
        updates, state = tuner.update(slope, state, weights)
        return optax.apply_updates(weights, updates), state, value

    hard = np.zeros(0, np.int64)
    recent = []
    for number in range(wanted.steps):
        if number in (wanted.steps // 2, wanted.steps * 3 // 4):
            fresh = [
                patch
                for n in range(wanted.frames // 2)
                for patch in patches(np.random.default_rng([wanted.seed, 2 + number, n]), fonts, n)
                if not patch[1].any()
            ]
            found = np.stack([part for part, _ in fresh])
            heat = np.concatenate(
                [np.asarray(run(weights, found[n : n + 64].astype(np.float32))).max(axis=(1, 2)) for n in range(0, len(found), 64)]
            )
            worst = np.argsort(-heat)[: max(64, int((heat > 0.2).sum()))]
            hard = np.concatenate([hard, len(parts) + np.arange(len(worst))])
            parts = np.concatenate([parts, found[worst]])
            targets = np.concatenate([targets, np.zeros((len(worst), SIDE, SIDE), np.uint8)])
            print(f"step {number}: {len(worst)} of {len(found)} new clean patches look like text", file=sys.stderr, flush=True)
        chosen = rng.integers(0, len(parts), BATCH)
        if len(hard):
            chosen[: BATCH // 5] = rng.choice(hard, BATCH // 5)
        pictures, truth = varied(rng, parts[chosen], targets[chosen].copy())
        weights, state, value = step(weights, state, pictures, cells(truth))
        recent.append(float(value))
        if number % 200 == 199:
            print(f"step {number + 1}: loss {np.mean(recent[-200:]):.4f}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            to_onnx(weights, wanted.out)
    to_onnx(weights, wanted.out)
    quantise(wanted.out, _Calibration(wanted.seed, fonts))
    print(f"{wanted.out}: {sum(w.size + b.size for w, b in weights.values()):,} weights, {time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
