"""The released weights and label map, from the Hugging Face hub or its cache on this machine."""

from __future__ import annotations

from pathlib import Path

from mvptr_data.errors import InputError, MissingDependencyError

REPOSITORY = "michelecafagna26/vinvl_vg_x152c4"
#: The commit that uploaded both files; none has changed them since.
REVISION = "6491424f0b13085e733300fef2ee0e24ea2258df"
WEIGHTS_FILE, LABEL_MAP_FILE = "vinvl_vg_x152c4.pth", "VG-SGG-dicts-vgoi6-clipped.json"


def fetch(name: str, option: str) -> Path:
    """The file `name` of the pinned commit, fetched unless the hub's cache holds it.

    Raises `MissingDependencyError` where huggingface_hub is not installed and `InputError` where the file cannot be had;
    both name `option`, which takes a path instead.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise MissingDependencyError(
            f"fetching {name} needs huggingface_hub, not installed here",
            f"Install with: pip install 'mvptr-data[extract]', or give the option {option} a path of the file.",
        ) from error
    try:
        return Path(hf_hub_download(REPOSITORY, name, revision=REVISION))
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"cannot fetch {name} of {REPOSITORY} from the Hugging Face hub: {reason}",
            f"Try again with a network, or give the option {option} a path of the file.",
        ) from error
