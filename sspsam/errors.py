"""The exceptions of the project, as one tree.

::

    SSPSAMError                    anything this project raises on purpose; `kind` names it in rows
    ├── ConfigError                a flag or field has a value that cannot work     config
    ├── CheckpointError            weights cannot be used                           checkpoint
    │   ├── UnknownModelError      no such bundled model, file or URL               unknown_model
    │   ├── ArchitectureError      tensors missing, extra or misshapen              architecture
    │   └── ChecksumError          the file is not the one that was requested       checksum
    ├── ImageError                 one image cannot be used                         image
    │   ├── NotAnImageError        bytes that no decoder knows                      not_an_image
    │   ├── TruncatedImageError    the file ends early or is damaged inside         truncated_image
    │   ├── ZeroSizeError          no bytes, or a side of 0 pixels                  zero_size
    │   └── DecompressionBombError more pixels than the limit                       decompression_bomb
    ├── PhraseError                one phrase cannot be used                        phrase
    │   └── EmptyPhraseError       nothing in it that means anything                empty_phrase
    ├── DataError                  a dataset, shard or row is not as it should be   data
    ├── DivergedError              training met a loss or gradient that is no number diverged
    └── OutOfMemoryError           one phrase of one image does not fit             out_of_memory

`kind` is stable: it is what `error.kind` holds in the annotation rows.
"""

from __future__ import annotations

_LONGEST_CHARACTERS = 4000
_KEPT_FIRST = 3000  # of them: names of files and flags stand there


def one_line(error: BaseException) -> str:
    """What an error of a library says, as part of a message: on one line, its kind where it says nothing."""
    return " ".join(str(error).split())[:400] or type(error).__name__


class SSPSAMError(Exception):
    """Base of every error raised on purpose. The message names the file or flag and the mend."""

    kind = "error"

    def __str__(self) -> str:
        """The message; of one that repeats a vast value from a file or flag its beginning and its end."""
        text = super().__str__()
        left_out = len(text) - _LONGEST_CHARACTERS
        if left_out <= 0:
            return text
        last = text[left_out + _KEPT_FIRST :]
        return f"{text[:_KEPT_FIRST]} ... ({left_out:,} characters left out) ... {last}"


class ConfigError(SSPSAMError, ValueError):
    kind = "config"


class CheckpointError(SSPSAMError):
    kind = "checkpoint"


class UnknownModelError(CheckpointError):
    kind = "unknown_model"


class ArchitectureError(CheckpointError):
    kind = "architecture"


class ChecksumError(CheckpointError):
    kind = "checksum"


class ImageError(SSPSAMError):
    kind = "image"


class NotAnImageError(ImageError):
    kind = "not_an_image"


class TruncatedImageError(ImageError):
    kind = "truncated_image"


class ZeroSizeError(ImageError):
    kind = "zero_size"


class DecompressionBombError(ImageError):
    kind = "decompression_bomb"


class PhraseError(SSPSAMError):
    kind = "phrase"


class EmptyPhraseError(PhraseError):
    kind = "empty_phrase"


class DataError(SSPSAMError):
    kind = "data"


class DivergedError(SSPSAMError):
    kind = "diverged"


class OutOfMemoryError(SSPSAMError):
    kind = "out_of_memory"
