"""Text to training batches: sources, token shards, sample order, batches.

Names load on first use, so that making text ready never waits for PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from linnet.first_use import on_first_use

if TYPE_CHECKING:
    from linnet.data.batches import Batch, StepBatches, TrainingBatches, get_batch, validation_batches
    from linnet.data.order import SampleOrder
    from linnet.data.prefetch import PrefetchedBatches
    from linnet.data.preparation import find_prepared, prepare, train_tokenizer
    from linnet.data.prepared import PreparedData, load_prepared
    from linnet.data.sources import Source, open_source
    from linnet.data.stream import TokenStream

__all__ = [
    "Batch",
    "PrefetchedBatches",
    "PreparedData",
    "SampleOrder",
    "Source",
    "StepBatches",
    "TokenStream",
    "TrainingBatches",
    "find_prepared",
    "get_batch",
    "load_prepared",
    "open_source",
    "prepare",
    "train_tokenizer",
    "validation_batches",
]

_HOME = {
    "Batch": "linnet.data.batches",
    "PrefetchedBatches": "linnet.data.prefetch",
    "PreparedData": "linnet.data.prepared",
    "SampleOrder": "linnet.data.order",
    "Source": "linnet.data.sources",
    "StepBatches": "linnet.data.batches",
    "TokenStream": "linnet.data.stream",
    "TrainingBatches": "linnet.data.batches",
    "find_prepared": "linnet.data.preparation",
    "get_batch": "linnet.data.batches",
    "load_prepared": "linnet.data.prepared",
    "open_source": "linnet.data.sources",
    "prepare": "linnet.data.preparation",
    "train_tokenizer": "linnet.data.preparation",
    "validation_batches": "linnet.data.batches",
}

__getattr__, __dir__ = on_first_use(__name__, _HOME)
