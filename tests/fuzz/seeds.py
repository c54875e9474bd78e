"""Intact files of every kind that a reader accepts, which `fuzz_readers` mutates."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from support.paths import ROOT
from support.saved_models import save_random_model
from support.videos import encode


@dataclass(frozen=True)
class Seed:
    """One input of a reader.

    Attributes:
        kind: which readers it is for.
        files: content by name.
        main: the name of the file that the reader is given.
        mutated: names of the files of which one is mutated.
    """

    kind: str
    files: dict[str, bytes]
    main: str
    mutated: tuple[str, ...]


def single(kind: str, name: str, content: bytes) -> Seed:
    """A seed of one file."""
    return Seed(kind, {name: content}, name, (name,))


def create_seeds(folder: Path) -> list[Seed]:
    """All seeds; ``folder`` is for temporary files."""
    folder.mkdir(parents=True)
    return [*_videos(folder), *_images(), *_text(), *_tars(), *_weights(folder)]


def _videos(folder: Path) -> list[Seed]:
    settings = {
        "a.mp4": {},
        "b.mp4": {"faststart": True, "bframes": 2},
        "c.mkv": {},
        "d.avi": {"codec": "mpeg4"},
        "e.webm": {"codec": "libvpx-vp9"},
        "f.ts": {},
        "g.mov": {"codec": "mjpeg", "pixels": "yuvj420p"},
    }
    return [
        single("video", name, encode(folder / name, frames=12, **options).read_bytes())
        for name, options in settings.items()
    ]


def _images() -> list[Seed]:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((64, 48))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned
    formats = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "tif": "TIFF"}
    seeds = []
    for suffix, name in formats.items():
        file = io.BytesIO()
        coarse.save(file, name, **({"exif": exif} if suffix == "jpg" else {}))
        seeds.append(single("image", f"a.{suffix}", file.getvalue()))
    deep = io.BytesIO()
    Image.fromarray(rng.integers(0, 2**16, (20, 30), dtype=np.uint16)).save(deep, "PNG")
    gif = io.BytesIO()
    coarse.save(gif, "GIF")
    return [*seeds, single("image", "b.png", deep.getvalue()), single("image", "c.jpg", gif.getvalue())]


def _text() -> list[Seed]:
    header = "label,youtube_id,time_start,time_end,split\n"
    rows = "".join(f'"dancing, {n}",abcdefghij{n},{n},{n + 10},train\n' for n in range(8))
    lines = "".join(f"videos/é {n}.mp4 {n % 3}\n" for n in range(8))
    table = "path,labels,group\n" + "".join(f'"a, {n}.mp4",dog; cat,{n // 2}\n' for n in range(8))
    sentences = [{"raw": f"a dog {n}"} for n in range(3)]
    karpathy = {"images": [{"filename": "1.jpg", "filepath": "v", "split": "test", "sentences": sentences}] * 3}
    captions = [{"image": f"{n}.jpg", "captions": ["a dog", "ein Hund"]} for n in range(3)]
    caption_lines = "".join(json.dumps(entry) + "\n" for entry in captions)
    configs = [(path.name, path.read_bytes()) for path in sorted((ROOT / "configs").glob("*.yaml"))]
    entries = [{"id": str(n), "template": f"Moving [{n}]"} for n in range(3)]
    something = {
        "train.json": json.dumps(entries).encode(),
        "labels.json": json.dumps({f"Moving {n}": str(n) for n in range(3)}).encode(),
        "videos/0.mp4": b"",
    }
    return [
        Seed("something", something, "train.json", ("train.json", "labels.json")),
        single("csv", "train.csv", (header + rows).encode()),
        single("csv", "table.csv", table.encode()),
        single("list", "train.txt", lines.encode()),
        single("json", "labels.json", json.dumps(captions, ensure_ascii=False, indent=1).encode()),
        single("karpathy", "dataset_coco.json", json.dumps(karpathy).encode()),
        single("captions", "captions.json", json.dumps(captions).encode()),
        single("captions", "captions.jsonl", caption_lines.encode()),
        *(Seed("yaml", dict(configs), name, (name,)) for name, _ in configs),
    ]


def _tars() -> list[Seed]:
    image = io.BytesIO()
    Image.new("RGB", (8, 8)).save(image, "PNG")
    seeds = []
    sparse = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "1"}
    for format, headers in ((tarfile.GNU_FORMAT, {}), (tarfile.PAX_FORMAT, {}), (tarfile.PAX_FORMAT, sparse)):
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w", format=format) as tar:
            for number in range(4):
                for suffix, content in (("png", image.getvalue()), ("cls", b"1"), ("json", b'{"label": 1}')):
                    member = tarfile.TarInfo(f"n01/{number}.{suffix}")
                    member.size = len(content)
                    if number == 2:
                        member.name, member.pax_headers = f"{'é' * 70}.{suffix}", dict(headers)  # in an extended header
                    tar.addfile(member, io.BytesIO(content))
        seeds.append(single("tar", "train-0.tar", archive.getvalue()))
    return seeds


def _weights(folder: Path) -> list[Seed]:
    run = save_random_model(folder / "run")
    files = {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()}
    tensors = {"head.weight": torch.ones(3, 4), "blocks.0.attn.qkv.weight": torch.ones(12, 4)}
    checkpoint, arrays = io.BytesIO(), io.BytesIO()
    torch.save(tensors, checkpoint)
    np.savez_compressed(arrays, **{name: tensor.numpy() for name, tensor in tensors.items()})
    return [
        *(Seed("model", files, "model.safetensors", (name,)) for name in files),
        single("weights", "a.safetensors", save(tensors)),
        single("weights", "a.pth", checkpoint.getvalue()),
        single("weights", "a.npz", arrays.getvalue()),
        single("npz", "a.npz", arrays.getvalue()),
    ]
