"""Services whose own program can be replaced, for the tests of upgrades.

Another version is a copy of the program with other digits in its version.
"""
import os
import shutil

import pytest

from client import get
from harness import BATON, worker_ini

VERSION = b"0.1.0"


def versioned(source, target, version):
    """Puts a copy of `source` that calls itself `version` at `target`, the way a careful deploy does."""
    data = source.read_bytes()
    assert VERSION in data and len(version) == len(VERSION)
    put(target, data.replace(VERSION, version.encode()))


def put(target, data):
    temporary = target.with_name(target.name + ".new")
    temporary.write_bytes(data)
    temporary.chmod(0o755)
    os.replace(temporary, target)


class Upgradable:
    """A service with a baton of its own, which can be replaced."""

    def __init__(self, new_service, program=None, **settings):
        self.service = new_service(worker_ini(**settings))
        self.program = self.service.folder / "baton"
        shutil.copy(BATON, self.program)
        if BATON.stat().st_size < 200000:
            pytest.skip("this baton is linked to a shared library")
        self.service.program = [str(program or self.program), "-c", str(self.service.folder / "baton.ini")]

    def start(self):
        self.service.start()
        return self.service

    def install(self, version):
        versioned(BATON, self.program, version)


def version_of(service):
    return service.status()["version"]


def fails(service, *words, code=1):
    """An upgrade that is refused with these words; nothing has changed."""
    before = (version_of(service), service.pids())
    result = service.command("upgrade")
    assert result.returncode == code, (result.stdout, result.stderr)
    for word in words:
        assert word in result.stderr, result.stderr
    assert (version_of(service), service.pids()) == before
    assert get(service.port).status == 200
    return result
