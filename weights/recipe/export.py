"""From a training checkpoint to `model.safetensors`: BF16, BlinkDL's names and shapes, as the engine and
other RWKV programs read them.

python -m rwkv_engine_weights.recipe.export RUN_FOLDER OUT.safetensors
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file


def export(folder: Path, out: Path) -> int:
    """Write the network of `folder`/checkpoint.pt to `out`; returns the number of parameters."""
    network = torch.load(folder / "checkpoint.pt", weights_only=True)["network"]
    tensors = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in network.items()}
    save_file(tensors, str(out), metadata={"format": "pt", "license": "Apache-2.0"})
    return sum(tensor.numel() for tensor in tensors.values())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    print(
        f"{options.out}: {export(options.folder, options.out):,} parameters, {options.out.stat().st_size:,} bytes"
    )


if __name__ == "__main__":
    main()
