"""Opening a benchmark's TSV without holding it in memory.

One pass over the file writes a small sqlite index: where each row stands, the digests of its images, its other cells,
and the file's MD5. Rows and images are read by seeking when their turn comes. The index is kept in the cache
folder (storage.py), in `index/`, and serves as long as the file has the same path, size and time of change.

Cells stay exactly the text they are. Upstream reads with pandas, to which the cells `None`, `NA`, `N/A`, `n/a`, `nan`
and `null` are missing (an option `None` disappears from prompt and choices), `007` is 7, and `3` in a column with holes
is `3.0`; what the `vlmevalkit` protocol would lose that way is not lost here.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from vlmeval.dataset import image_cells
from vlmeval.dataset.index_pass import IndexPass
from vlmeval.dataset.tsv_rows import parse_record
from vlmeval.errors import DatasetError, ImageError, nearest_names
from vlmeval.storage import cache_folder

FORMAT = 1
"""Part of the key of a stored index: raise it when what the pass writes changes."""

SCHEMA = """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT);
    CREATE TABLE rows (position INTEGER PRIMARY KEY, line INTEGER, name TEXT, offset INTEGER, length INTEGER,
                       parts TEXT, image_error TEXT, cells TEXT);
"""
NEEDED = ("index", "question")


class IndexedRow(NamedTuple):
    """One row without its images. `name` is the text of its index cell, `cells` all columns but `image`.

    `length` is that of the whole row in the file, in bytes.
    """

    position: int
    line: int
    name: str
    parts: tuple[image_cells.Part, ...]
    image_error: str
    cells: tuple[str, ...]
    length: int = 0


class TsvIndex:
    """A TSV opened by its index. Safe to use from several threads; another process opens its own."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._lock = threading.Lock()
        self._close = weakref.finalize(self, connection.close)
        meta = dict(connection.execute("SELECT key, value FROM meta"))
        self.key: str = meta["key"]
        self.md5: str = meta["md5"]
        self.columns: tuple[str, ...] = tuple(json.loads(meta["columns"]))
        self.blank_counts: dict[str, int] = json.loads(meta["blank_counts"])
        self.integer_names: bool = json.loads(meta["integer_names"])
        self._length: int = json.loads(meta["length"])

    def __len__(self) -> int:
        return self._length

    def close(self) -> None:
        self._close()

    @property
    def text_columns(self) -> tuple[str, ...]:
        """All columns but `image`, in the file's order: the names of a row's `cells`."""
        return tuple(column for column in self.columns if column != "image")

    def row(self, position: int) -> IndexedRow:
        return self.rows(position, 1)[0]

    def rows(self, start: int, count: int) -> list[IndexedRow]:
        """At most `count` rows in file order."""
        return self._query("position >= ? ORDER BY position LIMIT ?", start, count)

    def find(self, name: str) -> IndexedRow | None:
        """The row whose index cell is `name`."""
        rows = self._query("name = ?", name)
        return rows[0] if rows else None

    def names(self) -> list[str]:
        """The index cells in file order."""
        with self._lock:
            return [name for (name,) in self._connection.execute("SELECT name FROM rows ORDER BY position")]

    def rows_with_blank(self, column: str, limit: int = 3) -> list[str]:
        """The first names of rows whose cell in `column` is empty."""
        at = self.text_columns.index(column)
        query = f"SELECT name FROM rows WHERE json_extract(cells, '$[{at}]') = '' ORDER BY position LIMIT ?"
        with self._lock:
            return [name for (name,) in self._connection.execute(query, (limit,))]

    def distinct(self, column: str, limit: int) -> set[str]:
        """At most `limit` different texts of a column."""
        at = self.text_columns.index(column)
        query = f"SELECT DISTINCT json_extract(cells, '$[{at}]') FROM rows LIMIT ?"
        with self._lock:
            return {text for (text,) in self._connection.execute(query, (limit,))}

    def first_images(self) -> dict[str, str]:
        """For each row with an image, by name, what identifies its first image: rows of one image share it."""
        with self._lock:
            found = self._connection.execute("SELECT name, parts FROM rows WHERE parts != '[]'").fetchall()
        first = {name: json.loads(parts)[0] for name, parts in found}
        named = {name: text for name, (kind, text) in first.items() if kind == "row"}
        return {name: first.get(named.get(name, ""), part)[1] for name, part in first.items()}

    def column(self, column: str) -> dict[str, str]:
        """The cells of a column, by the rows' names."""
        at = self.text_columns.index(column)
        with self._lock:
            return dict(self._connection.execute(f"SELECT name, json_extract(cells, '$[{at}]') FROM rows"))

    def image_bytes(self, position: int, number: int) -> bytes:
        """The encoded image at place `number` of the row's image cell, read from the file now."""
        return image_cells.decode_base64(self.image_text(position, number))

    def image_text(self, position: int, number: int) -> str:
        """The same as the file has it, in base64."""
        with self._lock:
            found = self._connection.execute("SELECT offset, length FROM rows WHERE position = ?", (position,))
            offset, length = found.fetchone()
        try:
            with self.path.open("rb") as file:
                if file_key(self.path, os.fstat(file.fileno())) != self.key:
                    raise ImageError(f"{self.path} has changed since it was opened; start again to index it anew")
                file.seek(offset)
                raw = file.read(length)
        except OSError as error:
            raise ImageError(f"{self.path} cannot be read: {error.strerror}") from error
        cell = parse_record(raw, self.path)[self.columns.index("image")]
        return image_cells.elements(cell)[number]

    def _query(self, where: str, *values: int | str) -> list[IndexedRow]:
        query = f"SELECT position, line, name, parts, image_error, cells, length FROM rows WHERE {where}"
        with self._lock:
            found = self._connection.execute(query, values).fetchall()
        return [
            IndexedRow(
                position=position,
                line=line,
                name=name,
                parts=tuple((kind, text) for kind, text in json.loads(parts)),
                image_error=image_error,
                cells=tuple(json.loads(cells)),
                length=length,
            )
            for position, line, name, parts, image_error, cells, length in found
        ]


def open_index(
    path: Path, *, needed: Sequence[str] = NEEDED, progress: Callable[[int], None] | None = None
) -> TsvIndex:
    """Open a TSV, by its stored index or by one pass that stores it (in memory where it cannot be stored).

    Raises DatasetError for a file that is no benchmark: see `index_pass`.
    """
    path = Path(os.path.abspath(path))
    key = file_key(path, check_file(path))
    store = store_path(path)
    index = _open_stored(path, key, store) or _build_stored(path, key, store, needed, progress)
    if index is None:
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        index = _filled(path, key, connection, needed, progress)
    IndexPass.check_columns(path, index.columns, needed)
    return index


def stored_md5(path: Path) -> str | None:
    """The MD5 of a file that was indexed as it is now, without reading the file."""
    path = Path(os.path.abspath(path))
    index = _open_stored(path, file_key(path, check_file(path)), store_path(path))
    if index is None:
        return None
    index.close()
    return index.md5


def file_key(path: Path, stat: os.stat_result) -> str:
    return f"{FORMAT}|{path}|{stat.st_size}|{stat.st_mtime_ns}"


def check_file(path: Path) -> os.stat_result:
    """Raises DatasetError for a file that is not there, a folder, or an empty file."""
    try:
        stat = path.stat()
    except OSError as error:
        raise DatasetError(_not_found(path, error)) from error
    if path.is_dir():
        raise DatasetError(f"{path} is a folder; give the .tsv file inside it")
    if not stat.st_size:
        raise DatasetError(f"{path} is empty (0 bytes); fetch or write it again")
    return stat


def _not_found(path: Path, error: OSError) -> str:
    if not path.parent.is_dir():
        return f"{path}: no such file; its folder {path.parent} does not exist"
    try:
        near = nearest_names(path.name, (entry.name for entry in path.parent.iterdir()))
    except OSError:
        near = []
    return f"{path}: {error.strerror}" + (f"; nearest in that folder: {', '.join(near)}" if near else "")


def store_path(path: Path) -> Path:
    """Where the index of a file is kept."""
    return cache_folder("index") / f"{path.stem[:40]}-{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.sqlite"


def _open_stored(path: Path, key: str, store: Path) -> TsvIndex | None:
    """The stored index, or None if there is none, it is of another file, or it is damaged."""
    if not store.is_file():
        return None
    uri = f"{store.absolute().as_uri()}?mode=ro&immutable=1"
    try:
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
    except sqlite3.DatabaseError:
        return None  # it cannot be read
    try:
        found = connection.execute("SELECT value FROM meta WHERE key = 'key'").fetchone()
        if found == (key,) and connection.execute("PRAGMA quick_check").fetchone() == ("ok",):
            return TsvIndex(path, connection)
    except (sqlite3.DatabaseError, ValueError, KeyError):
        pass  # damaged: it is built again
    connection.close()
    return None


def _build_stored(
    path: Path, key: str, store: Path, needed: Sequence[str], progress: Callable[[int], None] | None
) -> TsvIndex | None:
    """Write the index under a name of our own and put it in place at once; None where that folder cannot be written."""
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        name = store.with_name(f"{store.stem}.{os.getpid()}-{threading.get_ident()}.tmp")
        name.unlink(missing_ok=True)
        name.touch(exist_ok=False)
    except OSError:
        return None
    try:
        connection = sqlite3.connect(name, check_same_thread=False)
        _filled(path, key, connection, needed, progress).close()
        with name.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(name, store)
    except (OSError, sqlite3.OperationalError):
        return None  # the disk of the cache is full: the index is built in memory
    finally:
        name.unlink(missing_ok=True)
    return _open_stored(path, key, store)


def _filled(
    path: Path,
    key: str,
    connection: sqlite3.Connection,
    needed: Sequence[str],
    progress: Callable[[int], None] | None,
) -> TsvIndex:
    with ExitStack() as on_failure:
        on_failure.callback(connection.close)
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        connection.executescript(SCHEMA)
        with path.open("rb", buffering=2**20) as file:
            one_pass = IndexPass(path, file, needed, progress)
            connection.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?)", one_pass.records())
            if file_key(path, os.fstat(file.fileno())) != key:
                raise DatasetError(f"{path} changed while it was read; start again when it is complete")
        connection.execute("CREATE INDEX rows_by_name ON rows (name)")
        _check_names(path, connection)
        connection.executemany("INSERT INTO meta VALUES (?, ?)", {"key": key, **one_pass.summary()}.items())
        connection.commit()
        on_failure.pop_all()
    return TsvIndex(path, connection)


def _check_names(path: Path, connection: sqlite3.Connection) -> None:
    """Raises DatasetError for rows that share an index."""
    found = connection.execute(
        "SELECT name, group_concat(line, ', ') FROM rows GROUP BY name HAVING count(*) > 1 ORDER BY min(position)"
    ).fetchall()
    if not found:
        return
    shown = "; ".join(f"{name!r} on lines {lines}" for name, lines in found[:5])
    more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
    raise DatasetError(
        f"{path}: column 'index': {len(found)} value{'s are' if len(found) > 1 else ' is'} used more than once: "
        f"{shown}{more}; every row needs an index of its own"
    )
