"""The store: a folder per key, whole or absent; locks; here or elsewhere.

Takes what a thing is made from (its identity) and how to make it, gives the thing. Whatever could
change it is in the key, so nothing made for one model is ever served for another. Knows nothing
of models, questions or statistics.

The rooms, from the ground up: `keys` (identity to address), `faults` (what a disk may refuse),
`contents` (JSON, JSON lines, arrays), `manifest` (is it whole?), `readers` (who uses what),
`layout` (folders and locks), `upkeep` (list, verify, prune), `remote` (a store elsewhere),
`entry` and `store` (the face), `location` (where it lies). `docs/store.md` says what is
guaranteed.
"""

from __future__ import annotations

from emotest.store.contents import (
    read_arrays,
    read_json,
    read_jsonl,
    read_metadata,
    write_arrays,
    write_json,
    write_jsonl,
)
from emotest.store.entry import Entry, Notice
from emotest.store.faults import readable_bytes
from emotest.store.keys import JSON, Difference, Key, canonical_json, identity_differences, key_of
from emotest.store.location import resolve_store
from emotest.store.manifest import FileRecord, Manifest
from emotest.store.store import Store
from emotest.store.upkeep import Corruption, EntryReport, Leftover, PruneReport, VerifyReport

__all__ = [
    "JSON",
    "Corruption",
    "Difference",
    "Entry",
    "EntryReport",
    "FileRecord",
    "Key",
    "Leftover",
    "Manifest",
    "Notice",
    "PruneReport",
    "Store",
    "VerifyReport",
    "canonical_json",
    "identity_differences",
    "key_of",
    "read_arrays",
    "read_json",
    "read_jsonl",
    "read_metadata",
    "readable_bytes",
    "resolve_store",
    "write_arrays",
    "write_json",
    "write_jsonl",
]
