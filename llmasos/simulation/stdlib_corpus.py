"""The demo's text: the sources that ship with every CPython build, as four institutions and some public text.

Non-IID by nature: each institution holds another kind of program. Lists name files and packages of CPython 3.11 to 3.14;
those that the running interpreter has are copied, so that the demo needs no download. Debian and slim images leave out
`test`, `idlelib` and `tkinter`, so nothing here counts on them.

The public text, on which the demo's tokenizer is trained, is the rest of the standard library, that no institution holds.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path

from common.errors import TooLittleData

MIN_BYTES = 300_000
"""A group below this is no real institution's text."""

NETWORKING = """
    asyncio http urllib xmlrpc wsgiref socket.py socketserver.py ssl.py selectors.py ftplib.py smtplib.py imaplib.py
    poplib.py nntplib.py telnetlib.py smtpd.py asynchat.py asyncore.py cgi.py cgitb.py ipaddress.py webbrowser.py netrc.py
    mailbox.py mailcap.py uuid.py nturl2path.py hmac.py secrets.py
"""
TEXT_AND_EMAIL = """
    email html json xml re sre_compile.py sre_constants.py sre_parse.py textwrap.py difflib.py csv.py configparser.py
    string string.py gettext.py locale.py codecs.py quopri.py base64.py mimetypes.py plistlib.py tomllib shlex.py
    stringprep.py _markupbase.py pprint.py reprlib.py uu.py xdrlib.py calendar.py _strptime.py cmd.py fnmatch.py glob.py
    linecache.py traceback.py
"""
DATA_AND_NUMBERS = """
    collections _collections_abc.py statistics.py decimal.py _pydecimal.py fractions.py numbers.py random.py datetime.py
    _pydatetime.py sqlite3 dbm shelve.py pickle.py pickletools.py _compat_pickle.py copy.py copyreg.py heapq.py bisect.py
    queue.py zoneinfo dataclasses.py enum.py typing.py annotationlib.py functools.py operator.py weakref.py _weakrefset.py
    graphlib.py types.py abc.py _py_abc.py struct.py hashlib.py colorsys.py wave.py contextvars.py _pylong.py _pyio.py io.py
"""
TOOLS = """
    argparse.py optparse.py getopt.py unittest doctest.py pdb.py bdb.py logging multiprocessing concurrent importlib
    inspect.py ast.py _ast_unparse.py dis.py opcode.py _opcode_metadata.py tokenize.py token.py trace.py profile.py
    cProfile.py pstats.py timeit.py tracemalloc.py venv zipfile zipfile.py zipapp.py tarfile.py shutil.py tempfile.py
    subprocess.py pydoc.py ensurepip threading.py sched.py py_compile.py compileall.py pyclbr.py modulefinder.py pkgutil.py
    runpy.py symtable.py tabnanny.py site.py sysconfig sysconfig.py code.py codeop.py
"""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "networking": tuple(NETWORKING.split()),
    "text-and-email": tuple(TEXT_AND_EMAIL.split()),
    "data-and-numbers": tuple(DATA_AND_NUMBERS.split()),
    "tools": tuple(TOOLS.split()),
}

SKIPPED_FOLDERS = frozenset(
    {"__pycache__", "test", "tests", "idle_test", "idlelib", "tkinter", "turtledemo", "site-packages", "dist-packages"}
    | {"lib-dynload", "_bundled", "encodings"}
)
"""Not on every machine, not CPython's own, or (encodings) tables without language."""
SKIPPED_FILES = frozenset({"html/entities.py"})
"""Generated tables, of which a language model learns nothing."""


def stdlib_folder() -> Path:
    """Where the running interpreter's standard library lies."""
    return Path(sysconfig.get_paths()["stdlib"])


def copy_institution(name: str, target: Path, *, stdlib: Path | None = None) -> Path:
    """Copy one group's sources to `target`/, keeping their paths.

    Raises:
        TooLittleData: the interpreter has less than MIN_BYTES of them; names the folder searched.
    """
    source = stdlib or stdlib_folder()
    return _copy(name, _files_of(source, GROUPS[name]), source, target)


def copy_public_text(target: Path, *, stdlib: Path | None = None) -> Path:
    """Copy what no institution holds to `target`/.

    Raises:
        TooLittleData: as above.
    """
    source = stdlib or stdlib_folder()
    taken = {name for names in GROUPS.values() for name in names}
    free = sorted(path.name for path in source.iterdir() if path.name not in taken) if source.is_dir() else []
    public = tuple(name for name in free if not name.startswith(("_sysconfigdata", "config-")))
    return _copy("public", _files_of(source, public), source, target)


def _files_of(source: Path, names: tuple[str, ...]) -> Iterator[Path]:
    """The .py files of these modules and packages that exist, in a fixed order."""
    for name in names:
        path = source / name
        if name.endswith(".py") and path.is_file():
            yield path
        elif path.is_dir():
            yield from (file for file in sorted(path.rglob("*.py")) if _wanted(file.relative_to(source)))


def _wanted(relative: Path) -> bool:
    return not SKIPPED_FOLDERS & set(relative.parts) and relative.as_posix() not in SKIPPED_FILES


def _copy(name: str, files: Iterator[Path], source: Path, target: Path) -> Path:
    total = 0
    for file in files:
        text = file.read_bytes()
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(text)
        total += len(text)
    if total < MIN_BYTES:
        raise TooLittleData(
            f"The demo's text {name!r} has {total:,} bytes in {source}, at least {MIN_BYTES:,} are needed.",
            "This Python came without the sources of its standard library: use another build, or `llmasos simulate` "
            "with folders of your own.",
        )
    return target
