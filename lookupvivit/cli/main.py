"""The command ``lookupvivit``: one subcommand per tool. Its help lists them without importing torch."""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS = {  # subcommand: its module, and what it does
    "train": ("lookupvivit.cli.train", "train a model"),
    "test": ("lookupvivit.cli.test", "test a model on several views of every video"),
    "predict": ("lookupvivit.cli.predict", "predict the classes of videos and images"),
    "attention": ("lookupvivit.cli.attention", "draw attention maps"),
    "features": ("lookupvivit.cli.features", "store features of videos and images"),
    "probe": ("lookupvivit.cli.probe", "fit probes to stored features"),
    "caption": ("lookupvivit.cli.caption", "write and score captions"),
    "study": ("lookupvivit.cli.study", "train and test variants with several seeds"),
    "summarize": ("lookupvivit.cli.summarize", "summarize a run"),
    "aggregate": ("lookupvivit.cli.aggregate", "score stored predictions in other ways"),
    "cost-accuracy": ("lookupvivit.cli.cost_accuracy", "accuracy against GFLOPs and speed at many compressed sizes"),
    "camera-motion": ("lookupvivit.cli.camera_motion", "test camera motion models"),
    "object-attention": ("lookupvivit.cli.object_attention", "measure the attention to moving objects"),
    "static-footage": ("lookupvivit.cli.static_footage", "measure token keeping before a still camera"),
    "robustness": ("lookupvivit.cli.robustness", "test on ImageNet-A, -C, -O and -R"),
    "few-shot": ("lookupvivit.cli.few_shot", "linear probes with few examples per class"),
    "prepare": ("lookupvivit.cli.prepare", "scan a dataset; write copies or shards"),
    "export": ("lookupvivit.cli.export", "export a model to ONNX"),
    "doctor": ("lookupvivit.cli.doctor.program", "check this machine and a dataset"),
    "flops": ("lookupvivit.cli.flops", "print the GFLOPs of the paper's models"),
    "benchmark": ("lookupvivit.cli.benchmark", "measure speed and memory of models"),
    "gpu-report": ("lookupvivit.cli.gpu_report", "measure kernels and models on a GPU"),
    "benchmark-loader": ("lookupvivit.cli.benchmark_loader", "measure decoding and augmentation"),
    "benchmark-start": ("lookupvivit.cli.benchmark_start", "measure the start of tools, and predict on short videos"),
    "benchmark-stream": ("lookupvivit.cli.benchmark_stream", "measure predict on long videos, and streams"),
}


def main() -> None:
    """Run the subcommand in ``sys.argv[1]`` with the remaining arguments."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(help_text())
        return
    if name == "--version":
        from lookupvivit import __version__

        print(__version__)
        return
    if name not in COMMANDS:
        print(f"error: found the command {name!r}, expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    module, _ = COMMANDS[name]
    sys.argv = [f"lookupvivit {name}", *sys.argv[2:]]
    import_module(module).main()


def help_text() -> str:
    """All subcommands with their purpose."""
    lines = ["usage: lookupvivit COMMAND [options]      lookupvivit COMMAND --help describes the options", ""]
    return "\n".join([*lines, *(f"  {name:17} {purpose}" for name, (_, purpose) in COMMANDS.items())])


if __name__ == "__main__":
    main()
