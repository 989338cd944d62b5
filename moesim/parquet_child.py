"""Run by path, as a child of ``moesim.parquet_file``: reads one Parquet file within limits, writes an Arrow stream.

It stands alone, so that it starts fast and knows nothing that a crafted file could use. What the footer announces is
compared with the file's size before any data is read.
"""

import json
import os
import resource
import sys

MAX_ROWS = 100_000_000
# What values may take in memory, of the file's size; a small file's may be all alike.
_SMALL_BYTES, _RATIO = 64 << 20, 200
_LARGE_BYTES, _LARGE_RATIO = 256 << 20, 20
_MEMORY_BYTES, _CPU_S = 16 << 30, 120


def _read(path: str, numbers: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def is_number(kind: pa.DataType) -> bool:
        if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            kind = kind.value_type
        return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))

    limits = {"thrift_string_size_limit": 100_000_000, "thrift_container_size_limit": 1_000_000}
    with pq.ParquetFile(path, page_checksum_verification=True, **limits) as file:
        groups = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
        # The total and the parts are announced apart; a reader allocates for the parts.
        rows = max(file.metadata.num_rows, sum(group.num_rows for group in groups))
        values = sum(group.column(i).num_values for group in groups for i in range(group.num_columns))
        size, held = max(8 * values, sum(max(group.total_byte_size, 0) for group in groups)), os.path.getsize(path)
        if rows > MAX_ROWS or size > max(_SMALL_BYTES, _RATIO * held) or size > max(_LARGE_BYTES, _LARGE_RATIO * held):
            sys.exit(f"{rows} rows of {size} bytes announced in a file of {held}")
        if len(set(file.schema_arrow.names)) < len(file.schema_arrow.names):
            sys.exit("two columns have one name")
        names = [field.name for field in file.schema_arrow if not numbers or is_number(field.type)]
        left_out = [name for name in file.schema_arrow.names if name not in set(names)]
        if not names:
            sys.exit(f"the columns are {str(file.schema_arrow.names)[:200]}: store numbers")
        table = file.read(columns=names, use_threads=False).replace_schema_metadata({"left out": json.dumps(left_out)})
    with pa.ipc.new_stream(sys.stdout.buffer, table.schema) as stream:
        stream.write_table(table)


if __name__ == "__main__":
    for kind, most in ((resource.RLIMIT_AS, _MEMORY_BYTES), (resource.RLIMIT_CPU, _CPU_S), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, least))
    try:
        _read(sys.argv[1], sys.argv[2] == "numbers")
    except Exception as error:  # pyarrow has many; each is one line
        sys.exit(" ".join(str(error).split())[:300] or type(error).__name__)
