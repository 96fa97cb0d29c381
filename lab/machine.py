"""What a number was measured on: the words that stand beside it."""

import platform
from pathlib import Path

import torch


def cpu_name() -> str:
    """The processor's name as Linux gives it, else what Python knows."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe_machine(device: torch.device) -> str:
    """The GPU, or the processor with its vector units."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return f"{cpu_name()}, {torch.backends.cpu.get_cpu_capability()}{' with AMX' * amx}"
