"""The trees that a power cut may leave, derived from the system calls that made them.

`strace` records the system calls of the program; for everything below one folder, `Disk` tracks which changes are on
stable storage and which may be lost. POSIX guarantees only this:

- bytes of a file are there when an fdatasync, fsync or syncfs that began after their write has returned;
- attributes of a file, when an fsync or syncfs has;
- an entry of a folder, when an fsync of that folder or a syncfs has. A folder's own entry is part of its parent.

All later changes may be lost independently: a name without its bytes, bytes without their name. Only changes of one
entry, or of one file's bytes, are ordered if a test asks for it. A `Fate` selects one of the possible trees.
"""

import os
import random
import re
from collections import namedtuple

KEPT, LOST, DATA_LOST, ANY = "all kept", "all unsynced lost", "names kept, bytes lost", "any of it lost"

# Calls that change the store, and those that show requests and responses.
CHANGES = ("write pwrite64 writev pwritev pwritev2 ftruncate truncate fallocate copy_file_range splice sendfile "
           "fsetxattr setxattr lsetxattr fremovexattr link linkat rename renameat renameat2 unlink unlinkat rmdir "
           "mkdir mkdirat symlink symlinkat mknodat").split()
OPENS = "open openat openat2 creat close dup dup2 dup3 fcntl".split()
SYNCS = "fdatasync fsync syncfs sync sync_file_range".split()
TALK = "recvfrom sendto sendmsg".split()
CALLS = CHANGES + OPENS + SYNCS + TALK

# Longer than any buffer that the tests read or write.
LONGEST = 1 << 20


def strace(output, *more):
    """The command line prefix that records a command. The command keeps its own process ID."""
    return ["strace", "-D", "-f", "-xx", "-s", str(LONGEST), "-e", "trace=" + ",".join(CALLS), *more, "-o", output]


# The trace -----------------------------------------------------------------------------------------------------------

Call = namedtuple("Call", "name arguments result")
BEGIN, END = "begin", "end"
WORD = re.compile(r'\s*((?:"[^"]*"(?:\.\.\.)?|\{[^}]*\}|\[[^\]]*\]|[^,"{\[])*)(?:,|$)')
STRING = re.compile(r'^"((?:\\x[0-9a-f]{2})*)"$')


def argument(word):
    """Bytes for a string, an integer for a number, else the word itself."""
    if string := STRING.match(word):
        return bytes.fromhex(string[1].replace("\\x", ""))
    return int(word) if re.fullmatch(r"-?\d+", word) else word


def arguments(text):
    return [argument(found[1].strip()) for found in WORD.finditer(text) if found[0].strip()]


def read_trace(path):
    """All calls in order, each twice: (BEGIN, call with result None) and (END, call). A call that was running when the
    process ended has no END."""
    begun = {}
    for line in path.read_text().splitlines():
        pid, text = line.split(None, 1)
        if text.startswith(("+++", "---")):
            continue
        if resumed := re.match(r"<\.\.\. \w+ resumed>", text):
            name, head = begun.pop(pid)
            text = f"{name}({head}{text[resumed.end():]}"
        else:
            name, rest = re.match(r"(\w+)\((.*)", text).groups()
            if rest.endswith("<unfinished ...>"):
                head = rest.removesuffix("<unfinished ...>").rstrip()
                begun[pid] = (name, head)
                yield BEGIN, Call(name, arguments(head), None)
                continue
            yield BEGIN, Call(name, arguments(rest[:rest.rindex(")")]), None)
        name, rest, result = re.match(r"(\w+)\((.*)\)\s+= (-?\d+|\?|0x[0-9a-f]+)", text).groups()
        if result != "?":
            yield END, Call(name, arguments(rest), int(result, 0))


# The disk ------------------------------------------------------------------------------------------------------------

class Versions:
    """A value that changes; the newest versions may not be on stable storage."""

    def __init__(self, durable):
        self.durable, self.pending, self.settled = durable, [], 0

    def set(self, value):
        self.pending.append(value)

    def newest(self):
        return self.pending[-1] if self.pending else self.durable

    def mark(self):
        return self.settled + len(self.pending)

    def settle(self, mark):
        """Everything up to this mark is on stable storage."""
        if mark > self.settled:
            self.durable = self.pending[mark - self.settled - 1]
            del self.pending[:mark - self.settled]
            self.settled = mark


class Folder:
    def __init__(self):
        self.entries = {}

    def enter(self, name, node):
        self.entries.setdefault(name, Versions(None)).set(node)

    def find(self, name):
        versions = self.entries.get(name)
        return versions.newest() if versions else None

    def marks(self, kind):
        return [(versions, versions.mark()) for versions in self.entries.values()] if kind == "fsync" else []


class File:
    """Its content is the result of its changes; the first `durable` of them are on stable storage."""

    def __init__(self, content=None):
        self.changes = [] if content is None else [(0, content)]
        self.durable = len(self.changes)
        self.attributes = {}
        self._cache = {}

    def size(self):
        return len(self.bytes(len(self.changes)))

    def bytes(self, count):
        """The content after the first `count` changes."""
        if count not in self._cache:
            self._cache = {self.durable: self._cache[self.durable]} if self.durable in self._cache else {}
            self._cache[count] = patched(self.changes[:count])
        return self._cache[count]

    def marks(self, kind):
        marks = [(self, len(self.changes))]
        if kind == "fsync":
            marks += [(versions, versions.mark()) for versions in self.attributes.values()]
        return marks

    def settle(self, mark):
        self.durable = max(self.durable, mark)


class Link:
    def __init__(self, text):
        self.text = text

    def marks(self, kind):
        return []


def patched(changes):
    content = bytearray()
    for offset, data in changes:
        if data is None:
            del content[offset:]
            content.extend(bytes(max(0, offset - len(content))))
        else:
            content.extend(bytes(max(0, offset - len(content))))
            content[offset:offset + len(data)] = data
    return bytes(content)


class Fate:
    """Which of the changes that are not on stable storage a power cut loses."""

    def __init__(self, rule, seed=0):
        self.rule, self.random = rule, random.Random(seed)

    def __str__(self):
        return self.rule

    def of_entry(self, versions):
        if self.rule == ANY:
            return self.random.choice([versions.durable, *versions.pending])
        return versions.durable if self.rule == LOST else versions.newest()

    def of_attribute(self, versions):
        if self.rule == ANY:
            return self.random.choice([versions.durable, *versions.pending])
        return versions.newest() if self.rule == KEPT else versions.durable

    def of_bytes(self, file):
        later = file.changes[file.durable:]
        if self.rule != ANY or not later:
            return file.bytes(len(file.changes) if self.rule == KEPT else file.durable)
        some = [change for change in later if self.random.random() < 0.5]
        content = patched(file.changes[:file.durable] + some)
        # The size may be stored without the bytes, which are zeros then.
        if self.random.random() < 0.3:
            content = content.ljust(file.size(), b"\0")
        return content


# An entry of a tree is ("folder",), ("file", content, attributes) or ("link", text).

# An open descriptor.
Opened = namedtuple("Opened", "node append offset")


class TraceError(AssertionError):
    """The trace cannot be replayed, so the model says nothing about the disk."""


class Disk:
    """Everything below `base`; what is there at first is on stable storage."""

    def __init__(self, base):
        self.base = os.fsencode(base)
        self.root = self._found(self.base)
        self.opened, self.syncing = {}, []

    def _found(self, path):
        if os.path.islink(path):
            return Link(os.readlink(path))
        if os.path.isfile(path):
            with open(path, "rb") as file:
                found = File(file.read())
            found.attributes = {os.fsencode(name): Versions(os.getxattr(path, name)) for name in os.listxattr(path)}
            return found
        folder = Folder()
        for name in os.listdir(path):
            folder.entries[name] = Versions(self._found(os.path.join(path, name)))
        return folder

    def rebooted(self):
        """The process has ended, but not the kernel: nothing is open, and unsynced changes stay unsynced."""
        self.opened, self.syncing = {}, []

    def follow(self, phase, call):
        """Replays one step; whether the possible trees may have changed. Only a call that has returned has an effect; a
        sync covers the calls that had returned when it began."""
        if call.name in SYNCS:
            self._follow_sync(phase, call)
        elif phase == BEGIN or call.result < 0:
            return False
        elif step := getattr(self, "_" + call.name, None):
            step(call.arguments, call.result)
        elif call.name in CHANGES and (call.name.startswith("rename") or any(map(self._at, call.arguments))):
            raise TraceError(f"no model of {call}")
        return phase == END and call.name in CHANGES + SYNCS + OPENS

    def tree(self, fate):
        """The tree after a power cut with this fate, by path below the base."""
        found = {}

        def visit(path, node):
            if isinstance(node, Folder):
                found[path] = ("folder",)
                for name, versions in node.entries.items():
                    if (inner := fate.of_entry(versions)) is not None:
                        visit(os.path.join(path, name), inner)
            elif isinstance(node, Link):
                found[path] = ("link", node.text)
            else:
                attributes = {name: value for name, versions in node.attributes.items()
                              if (value := fate.of_attribute(versions)) is not None}
                found[path] = ("file", fate.of_bytes(node), attributes)

        visit(b"", self.root)
        return found

    # Syncs

    def _follow_sync(self, phase, call):
        if call.name == "sync_file_range":
            return
        if phase == BEGIN:
            self.syncing.append((call.name, call.arguments, self._marks(call)))
            return
        for number, (name, arguments, marks) in enumerate(self.syncing):
            if (name, arguments) == (call.name, call.arguments):
                del self.syncing[number]
                break
        else:
            raise TraceError(f"{call} never began")
        if call.result == 0:
            for versions, mark in marks:
                versions.settle(mark)

    def _marks(self, call):
        if call.name in ("syncfs", "sync"):
            seen, marks, left = set(), [], [self.root, *(opened.node for opened in self.opened.values())]
            while left:
                node = left.pop()
                if id(node) in seen:
                    continue
                seen.add(id(node))
                marks += node.marks("fsync")
                if isinstance(node, Folder):
                    left += [inner for versions in node.entries.values()
                             for inner in [versions.durable, *versions.pending] if inner is not None]
            return marks
        node = self._at(call.arguments[0])
        return node.marks(call.name) if node else []

    # Paths and descriptors

    def _at(self, number):
        opened = self.opened.get(number) if isinstance(number, int) else None
        return opened and opened.node

    def _walk(self, node, path):
        for segment in path.split(b"/"):
            if segment in (b"", b"."):
                continue
            if not isinstance(node, Folder):
                return None
            node = node.find(segment)
        return node

    def _place(self, at, path):
        """The folder and the name of a path; None if it is not below the base."""
        if isinstance(path, bytes) and path.startswith(b"/"):
            if not path.startswith(self.base + b"/"):
                return None
            start, path = self.root, path[len(self.base) + 1:]
        else:
            start = self._at(at)
        if start is None:
            return None
        outer, _, name = path.rstrip(b"/").rpartition(b"/")
        folder = self._walk(start, outer)
        if not isinstance(folder, Folder):
            raise TraceError(f"no folder for {path}")
        return folder, name

    def _enter(self, at, path, flags, number):
        self.opened.pop(number, None)
        if not isinstance(path, bytes):
            raise TraceError(f"opened {path}")
        if path.rstrip(b"/") == self.base:
            self.opened[number] = Opened(self.root, False, [0])
            return
        place = self._place(at, path)
        if place is None:
            return
        folder, name = place
        if "O_TMPFILE" in flags:
            node = File()
        else:
            node = folder if name in (b"", b".") else folder.find(name)
            if node is None:
                if "O_CREAT" not in flags:
                    raise TraceError(f"opened a file that does not exist: {path}")
                node = File()
                folder.enter(name, node)
            elif "O_TRUNC" in flags:
                node.changes.append((0, None))
        self.opened[number] = Opened(node, "O_APPEND" in flags, [0])

    def _openat(self, arguments, result):
        self._enter(arguments[0], arguments[1], arguments[2], result)

    _openat2 = _openat

    def _open(self, arguments, result):
        self._enter("AT_FDCWD", arguments[0], arguments[1], result)

    def _close(self, arguments, _):
        self.opened.pop(arguments[0], None)

    def _fcntl(self, arguments, result):
        if str(arguments[1]).startswith("F_DUPFD"):
            self._dup(arguments, result)

    def _dup(self, arguments, result):
        self.opened.pop(result, None)
        if arguments[0] in self.opened:
            self.opened[result] = self.opened[arguments[0]]

    _dup2 = _dup3 = _dup

    # Changes

    def _write(self, arguments, result):
        opened = self.opened.get(arguments[0])
        if opened is None:
            return
        if not isinstance(arguments[1], bytes):
            raise TraceError("a buffer was not recorded completely")
        offset = opened.node.size() if opened.append else opened.offset[0]
        opened.node.changes.append((offset, arguments[1][:result]))
        opened.offset[0] = offset + result

    def _pwrite64(self, arguments, result):
        if node := self._at(arguments[0]):
            node.changes.append((arguments[3], arguments[1][:result]))

    def _ftruncate(self, arguments, _):
        if node := self._at(arguments[0]):
            node.changes.append((arguments[1], None))

    def _fsetxattr(self, arguments, _):
        if node := self._at(arguments[0]):
            node.attributes.setdefault(arguments[1], Versions(None)).set(arguments[2])

    def _linkat(self, arguments, _):
        old_at, old, new_at, new = arguments[:4]
        through = re.fullmatch(rb"/proc/self/fd/(\d+)", old)
        if through or not old:
            node = self._at(int(through[1]) if through else old_at)
        else:
            node = (place := self._place(old_at, old)) and place[0].find(place[1])
        place = self._place(new_at, new)
        if (node is None) != (place is None):
            raise TraceError(f"a link from or to a path outside: {arguments}")
        if place:
            place[0].enter(place[1], node)

    def _symlinkat(self, arguments, _):
        if place := self._place(arguments[1], arguments[2]):
            place[0].enter(place[1], Link(arguments[0]))

    def _mkdirat(self, arguments, _):
        if place := self._place(arguments[0], arguments[1]):
            place[0].enter(place[1], Folder())

    def _mkdir(self, arguments, _):
        self._mkdirat(["AT_FDCWD", *arguments], 0)

    def _unlinkat(self, arguments, _):
        if place := self._place(arguments[0], arguments[1]):
            if place[0].find(place[1]) is None:
                raise TraceError(f"removed a file that does not exist: {arguments}")
            place[0].enter(place[1], None)

    def _unlink(self, arguments, _):
        self._unlinkat(["AT_FDCWD", *arguments], 0)

    _rmdir = _unlink

    def _renameat(self, arguments, _):
        old, new = self._place(*arguments[:2]), self._place(*arguments[2:4])
        if (old is None) != (new is None):
            raise TraceError(f"a rename from or to a path outside: {arguments}")
        if old:
            # Either of the two changes may be lost alone.
            node = old[0].find(old[1])
            old[0].enter(old[1], None)
            new[0].enter(new[1], node)

    _renameat2 = _renameat


def create_tree(tree, folder):
    """Creates the files of a tree in an empty folder."""
    for path, (kind, *rest) in sorted(tree.items()):
        real = os.path.join(os.fsencode(folder), path)
        if kind == "folder":
            os.makedirs(real, exist_ok=True)
        elif kind == "link":
            os.symlink(rest[0], real)
        else:
            with open(real, "wb") as file:
                file.write(rest[0])
            for name, value in rest[1].items():
                os.setxattr(real, name, value)


def read_tree(folder):
    """The tree of the files on disk."""
    return Disk(folder).tree(Fate(KEPT))
