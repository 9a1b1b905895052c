"""Train the networks of the detector of burned-in text: schemas/pixels/text_heat.onnx and text_look.onnx.

Needs jax, optax, onnx and sympy, and fonts.

    python tools/train_text_heat.py {first,second} --fonts FOLDER [--seed 1] [--frames N] [--steps N] [--out FILE]

A fully convolutional network gives, for each 8 x 8 block of an 8-bit picture, how likely it belongs to a line of text. The first stage
looks at whole frames and has 74,425 weights; the second looks again at what the first pointed at, brought to the size at which lines are
some 36 pixels high, and has 180,321. Both are trained on drawn frames only (`pictures_spark.synthetic.frames`, no real image), half of the
steps on random patches and then also on those clean ones that the network takes for text. About 9 minutes on one core for the first, 20
for the second. What they were trained on and how they did is in the cards beside them, schemas/pixels/text_heat.yaml and text_look.yaml.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
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

from pictures_spark.pixels.heat import looked_at_size, suspects
from pictures_spark.synthetic import frames

CELL, BATCH = 8, 32
_RESIDUAL = ("c3", "c5", "c6", "c7", "c8")
_LAST = "c9"
Patches = Iterator[tuple[np.ndarray, np.ndarray]]
# Lead letters of the side count neither as text nor as none.
_HARD = tuple(draw for draw in frames.HARD if draw is not frames.side_letter)
STYLE = frames.Style(heights=(7, 46), contrast=(28, 200), rotation=8.0, lines=(2, 6), jpeg_share=0.25)


def patches(rng: frames.Rng, fonts: list[str], number: int) -> Patches:
    """Patches of one frame with text and one without, each with its target: 1 text, 0 none, 2 does not count."""
    modality, planted, target = _planted(rng, fonts, number)
    side = FIRST.side
    for line in planted.lines:
        for _ in range(3):
            y = line.top + line.ink.shape[0] // 2 - int(rng.integers(20, side - 20))
            x = line.left + int(rng.integers(0, line.ink.shape[1])) - int(rng.integers(20, side - 20))
            yield _cut(planted.pixels, target, y, x, side)
    clean = frames.clean_frame(rng, modality, STYLE, real_share=0.0)
    empty = np.zeros(clean.pixels.shape, np.uint8)
    for _ in range(5):
        y, x = (int(rng.integers(0, max(1, size - side + 1))) for size in clean.pixels.shape)
        yield _cut(clean.pixels, empty, y, x, side)


def look_patches(rng: frames.Rng, fonts: list[str], number: int) -> Patches:
    """The same, for the second stage: what the first points at, or might, at the size at which the second looks at it."""
    modality, planted, target = _planted(rng, fonts, number)
    for line in planted.lines:
        rows, columns = line.ink.shape
        for _ in range(2):
            # As the first stage sees it: not quite in place, and of another height.
            moved = rng.integers(-6, 7, 4)
            sides = line.left + moved[0], line.top + moved[1], line.left + columns + moved[2], line.top + rows + moved[3]
            yield _looked_at(rng, planted.pixels, target, sides, line.height * float(rng.uniform(0.7, 2.0)))
    for place in suspects(planted.pixels, _EAGER):
        yield _looked_at(rng, planted.pixels, target, place.sides, place.line)
    clean = frames.clean_frame(rng, modality, STYLE, real_share=0.0)
    empty = np.zeros(clean.pixels.shape, np.uint8)
    places = [(place.sides, height) for place in suspects(clean.pixels, _EAGER) for height in {place.line, place.core}]
    for _ in range(2):
        y, x, height = (int(rng.integers(0, size - 16)) for size in (*clean.pixels.shape, 60))
        places.append(((x, y, x + 40, y + 16), height + 12))
    for sides, height in [places[n] for n in rng.permutation(len(places))[:10]]:
        yield _looked_at(rng, clean.pixels, empty, sides, height)


def _planted(rng: frames.Rng, fonts: list[str], number: int) -> tuple[str, frames.Frame, np.ndarray]:
    """A modality, a frame with text, and where that is."""
    modality = list(frames.SIZES)[number % len(frames.SIZES)]
    planted = frames.planted_frame(rng, modality, fonts, STYLE, real_share=0.0)
    target = np.zeros(planted.pixels.shape, np.uint8)
    for line in planted.lines:
        reach = max(3, line.height // 2)
        ink = np.pad(line.ink.astype(np.uint8), reach)
        area = cv2.morphologyEx(ink, cv2.MORPH_CLOSE, np.ones((reach, 2 * reach + 1), np.uint8))[reach:-reach, reach:-reach]
        rows, columns = area.shape
        target[line.top : line.top + rows, line.left : line.left + columns] |= area
    return modality, planted, target


def _looked_at(
    rng: frames.Rng, pixels: np.ndarray, target: np.ndarray, sides: tuple[int, int, int, int], line: float
) -> tuple[np.ndarray, np.ndarray]:
    """A patch of a place with its margin (`pictures_spark.pixels.text`), as large as `second_look` makes it."""
    margin = max(12, int(0.8 * line))
    x0, y0 = max(0, sides[0] - margin), max(0, sides[1] - margin)
    part, truth = (whole[y0 : sides[3] + margin, x0 : sides[2] + margin] for whole in (pixels, target))
    shape = looked_at_size(part.shape, round(line))
    part, truth = (
        cv2.resize(np.ascontiguousarray(p), shape, interpolation=how) for p, how in ((part, cv2.INTER_LINEAR), (truth, cv2.INTER_AREA))
    )
    side = SECOND.side
    y, x = (int(rng.integers(0, max(0, size - side) + 1)) for size in part.shape)
    return _cut(part, truth, y, x, side)


def _cut(pixels: np.ndarray, target: np.ndarray, y: int, x: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = pixels.shape
    y, x = min(max(0, y), max(0, rows - side)), min(max(0, x), max(0, columns - side))
    part, truth = pixels[y : y + side, x : x + side], target[y : y + side, x : x + side]
    missing = ((0, side - part.shape[0]), (0, side - part.shape[1]))
    return np.pad(part, missing, mode="reflect" if min(part.shape) > side // 2 else "edge"), np.pad(truth, missing)


@dataclass(frozen=True)
class Stage:
    """What tells one network from the other: channels after the first, second and third reduction, the side of a patch, and defaults.

    ``layers``: name, kernel, stride, dilation, channels in, channels out; those in `_RESIDUAL` add their input to their output.
    """

    widths: tuple[int, int, int]
    side: int
    patches: Callable[[frames.Rng, list[str], int], Patches]
    frames: int
    steps: int
    file: str

    @property
    def layers(self) -> tuple[tuple[str, int, int, int, int, int], ...]:
        """Of the network, in order."""
        a, b, c = self.widths
        first = (("c1", 3, 2, 1, 1, a), ("c2", 3, 2, 1, a, b), ("c3", 3, 1, 1, b, b), ("c4", 3, 2, 1, b, c))
        return (*first, *((f"c{n}", 3, 1, reach, c, c) for n, reach in ((5, 1), (6, 2), (7, 4), (8, 1))), ("c9", 1, 1, 1, c, 1))


FIRST = Stage((12, 24, 40), 160, patches, 1200, 3600, "schemas/pixels/text_heat.onnx")
SECOND = Stage((16, 32, 64), 128, look_patches, 1200, 4000, "schemas/pixels/text_look.onnx")
# The second stage is trained on what the first takes for text with this share of its thresholds.
_EAGER = 0.6


def cells(target: np.ndarray) -> np.ndarray:
    """Targets of blocks: text where a third of the block is, none where nothing is, else 2."""
    blocks = target.shape[1] // CELL
    share = target.reshape(len(target), blocks, CELL, blocks, CELL).mean(axis=(2, 4))
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


def start(seed: int, stage: Stage) -> dict[str, tuple[Any, Any]]:
    """Weights before training, in ONNX's order: out, in, rows, columns."""
    keys = jax.random.split(jax.random.PRNGKey(seed), len(stage.layers))
    made = {}
    for key, (name, size, _, _, wide_in, wide_out) in zip(keys, stage.layers, strict=True):
        scale = np.sqrt(2 / (size * size * wide_in)) * (0.3 if name in _RESIDUAL else 1.0)
        made[name] = (jax.random.normal(key, (wide_out, wide_in, size, size)) * scale, jnp.zeros(wide_out))
    return made


def logits(weights: dict[str, tuple[Any, Any]], pictures: Any, stage: Stage) -> Any:
    """(n, rows, columns) of 0 to 255 -> (n, rows / 8, columns / 8)."""
    x = (pictures[:, None] - 128.0) / 64.0
    for name, size, stride, dilation, _, _ in stage.layers:
        kernel, bias = weights[name]
        pad = dilation * (size // 2)
        y = jax.lax.conv_general_dilated(x, kernel, (stride, stride), ((pad, pad), (pad, pad)), rhs_dilation=(dilation, dilation))
        y = y + bias[None, :, None, None]
        if name == _LAST:
            return y[:, 0]
        x = x + jax.nn.relu(y) if name in _RESIDUAL else jax.nn.relu(y)
    raise AssertionError


def loss(weights: dict[str, tuple[Any, Any]], pictures: Any, targets: Any, stage: Stage) -> Any:
    """Mean cross entropy of the blocks that count, text weighing as much as none; the worst blocks weigh most."""
    given = logits(weights, pictures, stage)
    text, none = targets == 1, targets == 0
    entropy = jnp.maximum(given, 0) - given * text + jnp.log1p(jnp.exp(-jnp.abs(given)))
    chance = jax.nn.sigmoid(given)
    focus = jnp.where(text, 1 - chance, chance) ** 1.5
    weighed = entropy * focus
    return (weighed * text).sum() / (text.sum() + 1) + 2 * (weighed * none).sum() / (text.sum() + 1 + 0.1 * none.sum())


def to_onnx(weights: dict[str, tuple[Any, Any]], path: Path, stage: Stage) -> None:
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
    for name, size, stride, dilation, _, _ in stage.layers:
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
    """Patches, from which the ranges of the activations are told."""

    def __init__(self, parts: np.ndarray) -> None:
        self._inputs = iter([{"frame": np.ascontiguousarray(part)[None, None]} for part in parts])

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


def first_in_floats(path: Path) -> None:
    """Let the first convolution of a quantised network work in floats on the bytes of a frame: a quarter of the time less.

    With one channel in, gathering its inputs takes integers longer than floats take for everything. What the network gives stays the same:
    bytes are what quantising (x - 128) / 64 gives anyway, and the weights are those that quantising left.
    """
    model = onnx.load(str(path))
    graph = model.graph
    constants = {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}
    scale, middle = constants["x_scale"], constants["x_zero_point"]
    if (float(scale), int(middle)) != (1 / 64, 128):
        raise SystemExit(f"bytes are quantised by {scale} and {middle}, not by 1/64 and 128")
    made = {name: node for node in graph.node for name in node.output}
    (conv,) = [node for node in graph.node if node.op_type == "Conv" and "c1" in node.input[1]]
    # What lies between the frame and the first convolution, with its constants.
    taken, ask = [conv], list(conv.input)
    while ask:
        node = made.get(ask.pop())
        if node is not None:
            taken.append(node)
            ask += node.input
    kernel, bias = (_real(made[name], constants) for name in conv.input[1:3])
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value, np.float32), name)
        for name, value in (("middle_byte", 128), ("c1_kernel", kernel / 64), ("c1_bias", bias))
    )
    sides = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    first = [
        helper.make_node("Cast", ["frame"], ["bytes"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["bytes", "middle_byte"], ["bytes_around"]),
        helper.make_node("Conv", ["bytes_around", "c1_kernel", "c1_bias"], list(conv.output), **sides),
    ]
    kept = first + [node for node in graph.node if node not in taken]
    del graph.node[:]
    graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    constants_kept = [constant for constant in graph.initializer if constant.name in used]
    del graph.initializer[:]
    graph.initializer.extend(constants_kept)
    del graph.value_info[:]
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _real(node: Any, constants: dict[str, np.ndarray]) -> np.ndarray:
    """The values of quantised weights, with a scale for each channel out."""
    values, scales = (constants[name].astype(np.float32) for name in node.input[:2])
    return values * scales.reshape(-1, *[1] * (values.ndim - 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("first", "second"))
    parser.add_argument("--fonts", type=Path, required=True, help="folder with outline fonts, searched through")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path)
    wanted = parser.parse_args()
    stage = FIRST if wanted.stage == "first" else SECOND
    count, steps, out = wanted.frames or stage.frames, wanted.steps or stage.steps, wanted.out or Path(stage.file)
    frames.HARD = _HARD
    outlines = sorted(str(path) for ending in ("ttf", "otf") for path in wanted.fonts.rglob(f"*.{ending}"))
    # As many lines in stroke and bitmap letters, and in pillow's own, as in all outline fonts together.
    fonts = outlines + ["stroke", "bitmap", ""] * (1 + len(outlines) // 3)
    rng = np.random.default_rng([wanted.seed, 0])
    began = time.monotonic()

    def made(kind: int, frames_wanted: int) -> list[tuple[np.ndarray, np.ndarray]]:
        return [patch for n in range(frames_wanted) for patch in stage.patches(np.random.default_rng([wanted.seed, kind, n]), fonts, n)]

    drawn = made(1, count)
    parts, targets = np.stack([part for part, _ in drawn]), np.stack([target for _, target in drawn])
    random_ones = len(parts)
    del drawn
    with_text = int(targets.any(axis=(1, 2)).sum())
    taken = time.monotonic() - began
    print(f"{len(parts)} patches, {with_text} with text, of {len(outlines)} fonts, {taken:.0f} s", file=sys.stderr, flush=True)
    weights = start(wanted.seed, stage)
    schedule = optax.cosine_onecycle_schedule(steps, 4e-3, 0.1)
    tuner = optax.adamw(schedule, weight_decay=1e-4)
    state = tuner.init(weights)
    run = jax.jit(lambda w, x: jax.nn.sigmoid(logits(w, x, stage)))

    @jax.jit
    def step(weights: Any, state: Any, pictures: Any, targets: Any) -> tuple[Any, Any, Any]:
        value, slope = jax.value_and_grad(partial(loss, stage=stage))(weights, pictures, targets)
        updates, state = tuner.update(slope, state, weights)
        return optax.apply_updates(weights, updates), state, value

    hard = np.zeros(0, np.int64)
    recent = []
    for number in range(steps):
        if number in (steps // 2, steps * 3 // 4):
            found = np.stack([part for part, target in made(2 + number, count // 2) if not target.any()])
            heat = np.concatenate(
                [np.asarray(run(weights, found[n : n + 64].astype(np.float32))).max(axis=(1, 2)) for n in range(0, len(found), 64)]
            )
            worst = np.argsort(-heat)[: max(64, int((heat > 0.2).sum()))]
            hard = np.concatenate([hard, len(parts) + np.arange(len(worst))])
            parts = np.concatenate([parts, found[worst]])
            targets = np.concatenate([targets, np.zeros((len(worst), stage.side, stage.side), np.uint8)])
            print(f"step {number}: {len(worst)} of {len(found)} new clean patches look like text", file=sys.stderr, flush=True)
        chosen = rng.integers(0, len(parts), BATCH)
        if len(hard):
            chosen[: BATCH // 5] = rng.choice(hard, BATCH // 5)
        pictures, truth = varied(rng, parts[chosen], targets[chosen].copy())
        weights, state, value = step(weights, state, pictures, cells(truth))
        recent.append(float(value))
        if number % 200 == 199:
            print(f"step {number + 1}: loss {np.mean(recent[-200:]):.4f}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            to_onnx(weights, out, stage)
    to_onnx(weights, out, stage)
    quantise(out, _Calibration(parts[rng.integers(0, random_ones, 120)]))
    first_in_floats(out)
    print(f"{out}: {sum(w.size + b.size for w, b in weights.values()):,} weights, {time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
