"""Which share of the videos is this machine's."""

from collections.abc import Mapping

from lab.errors import InputError

TORCHRUN = ("RANK", "WORLD_SIZE")
SLURM = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP")
Shard = tuple[int, int]  # number from 0, and how many there are


def find_shard(text: str | None, environment: Mapping[str, str]) -> Shard | None:
    """The shard that `text`, such as "2/8", names, else that of torchrun or of a Slurm array; None is the whole.

    Both ways to count are understood, 0/8 to 7/8 and 1/8 to 8/8: the last is the first. Raises InputError.
    """
    if text is not None:
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and int(count) > 0 and int(number) <= int(count)):
            raise InputError(f"the shard is '{text}'; expected I/N, as in 0/8 to 7/8 or 1/8 to 8/8")
        return None if int(count) == 1 else (int(number) % int(count), int(count))
    if all(name in environment for name in TORCHRUN) and environment["WORLD_SIZE"] != "1":
        number, count = environment["RANK"], environment["WORLD_SIZE"]
        if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
            raise InputError(f"RANK is '{number}' and WORLD_SIZE '{count}', as torchrun sets them; give --shard I/N")
        return int(number), int(count)
    if environment.get("SLURM_ARRAY_TASK_COUNT", "1") == "1":
        return None
    try:
        task, count, first, step = (int(environment.get(name, "1")) for name in SLURM)
    except ValueError as error:
        raise InputError(f"Slurm's array variables are not numbers ({error}); give --shard I/N") from error
    number = (task - first) // step
    if (task - first) % step or not 0 <= number < count:
        raise InputError(
            f"task {task} of a Slurm array of {count} from {first} in steps of {step} has no place in a row; give --shard I/N"
        )
    return number, count
