"""What other packages read of our shards, and write for us, in an environment of theirs without Forebay.

python peers.py mds READ WRITE
python peers.py litdata WRITE
"""

from __future__ import annotations

import json
import sys
from typing import Any


def plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return value.tolist() if hasattr(value, "tolist") else value


def read_mds(directory: str) -> Any:
    from streaming import StreamingDataset  # type: ignore[import-not-found]

    dataset = StreamingDataset(local=directory, shuffle=False, batch_size=1)
    return [{name: plain(value) for name, value in dataset[number].items()} for number in range(dataset.num_samples)]


def write_mds(directory: str) -> None:
    import numpy as np
    from streaming import MDSWriter

    columns = {"b": "bytes", "n": "int", "t": "str", "a": "ndarray"}
    for name, compression in (("plain", None), ("zstd", "zstd"), ("gz", "gz"), ("br", "br:5")):
        with MDSWriter(
            out=f"{directory}/{name}", columns=columns, compression=compression, size_limit=2000, hashes=["sha1"]
        ) as writer:
            for i in range(30):
                writer.write({"b": bytes([i]) * i, "n": i, "t": f"t{i}", "a": np.arange(i + 1)})


def litdata_record(i: int) -> dict[str, Any]:
    import numpy as np

    return {"b": bytes([i]) * i, "n": i, "t": f"t{i}", "a": np.arange(i + 1)}


def write_litdata(directory: str) -> None:
    import litdata

    litdata.optimize(litdata_record, list(range(30)), f"{directory}/plain", chunk_bytes="2KB", num_workers=1)


if __name__ == "__main__":
    found = None
    if sys.argv[1] == "mds":  # both in one process: the import takes ten seconds
        found = read_mds(sys.argv[2])
        write_mds(sys.argv[3])
    else:
        write_litdata(sys.argv[2])
    print("\n" + json.dumps(found), flush=True)
