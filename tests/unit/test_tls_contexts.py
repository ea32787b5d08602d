"""TLS contexts: from the contents that were read with the configuration, one for equal settings, off the loop."""

from __future__ import annotations

import asyncio
import gc
import ssl
import weakref
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from lb.config.diff import diff
from lb.config.load import load_text
from lb.config.renewed import renewed
from lb.config.resolve import World
from lb.config.tls_files import check_renewed, load_world
from lb.config.tls_values import tls_paths, with_tls
from lb.config.yaml.problems import ConfigError
from lb.core.targets import TlsClient
from lb.net.tls.contexts import Contexts, client_context, server_context


class Folder:
    """A folder with the files of one authority, which can be renewed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.renew()

    def renew(self) -> None:
        """Everything by another authority."""
        self.authority = trustme.CA()
        self.renew_authority()
        self.renew_pair()

    def renew_authority(self) -> None:
        self.authority.cert_pem.write_to_path(self.path / "ca.pem")

    def renew_pair(self) -> None:
        issued = self.authority.issue_cert("localhost")
        (self.path / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(self.path / "key.pem")

    def world(self, more: str = "") -> World:
        """What a configuration that names them resolves to."""
        text = f"""
listeners: [{{bind: '127.0.0.1:1', tls: {{cert_file: cert.pem, key_file: key.pem}}}}]
services:
  s:
    pools: {{blue: ['https://a.test:1', 'https://a.test:2'], plain: ['http://a.test:3']}}
    active: blue
    readiness: {{path: /r, tls: {{ca_file: ca.pem}}}}
    tls: {{ca_file: ca.pem, cert_file: cert.pem, key_file: key.pem}}
{more}"""
        return load_world(load_text(text, base=str(self.path)))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
async def contexts() -> AsyncIterator[Contexts]:
    made = Contexts()
    yield made
    made.close()


def authorities(context: ssl.SSLContext) -> list[bytes]:
    return [bytes(each) for each in context.get_ca_certs(binary_form=True)]


def changes(before: World, after: World, folder: Folder) -> list[str]:
    return [str(change).replace(f"{folder.path}/", "") for change in renewed(before, after)]


def test_a_context_is_made_from_what_was_read_not_from_what_is_on_the_disk_now(folder: Folder) -> None:
    world = folder.world()
    tls = world.targets["s/blue/a.test:1"].tls
    [listener] = world.snapshot.listeners
    assert tls is not None and listener.tls is not None
    before = authorities(client_context(tls, (), world.files))
    folder.renew()
    assert authorities(client_context(tls, (), world.files)) == before
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (folder.path / name).write_text("broken")
    assert authorities(client_context(tls, (), world.files)) == before
    server_context(listener.tls.certificates, listener.tls.policy(), world.files)


def test_nothing_that_was_not_renewed_is_said_to_be(folder: Folder) -> None:
    before = folder.world()
    (folder.path / "ca.pem").write_bytes((folder.path / "ca.pem").read_bytes())  # touched
    after = folder.world()
    assert changes(before, after, folder) == [] and after.targets == before.targets


def test_what_was_renewed_is_said_once_for_each_pool(folder: Folder) -> None:
    before = folder.world()
    folder.renew_pair()
    assert changes(before, folder.world(), folder) == [
        "~ listener 127.0.0.1:1: cert.pem, key.pem renewed, for new connections",
        "~ 2 targets of s/blue: cert.pem, key.pem renewed, for new connections once the check has passed with it",
    ]


def test_a_difference_tells_what_was_renewed_and_no_other_setting_of_it(folder: Folder) -> None:
    before = folder.world()
    folder.renew()
    after = folder.world()
    plan = diff(before, after)
    assert plan.changes == tuple(renewed(before, after)) and len(plan.changes) == 2
    assert plan.kept == ("s/plain/a.test:3",)


def test_renewed_authorities_of_targets_and_of_a_check_alone_are_told_apart(folder: Folder) -> None:
    own = trustme.CA()
    own.cert_pem.write_to_path(folder.path / "own.pem")
    more = "    liveness: {path: /l, protocol: https, tls: {ca_file: own.pem}}\n"
    before = folder.world(more)
    trustme.CA().cert_pem.write_to_path(folder.path / "own.pem")
    between = folder.world(more)
    assert changes(before, between, folder) == ["~ own.pem: renewed, for checks"]
    folder.renew_authority()
    assert changes(between, folder.world(more), folder) == []
    folder.renew()
    assert "2 targets of s/blue: ca.pem, cert.pem, key.pem renewed" in changes(between, folder.world(more), folder)[1]


def test_contents_that_cannot_be_used_are_refused(folder: Folder) -> None:
    before = folder.world()
    folder.authority.issue_cert("localhost").private_key_pem.write_to_path(folder.path / "key.pem")
    with pytest.raises(ConfigError, match="a TLS file changed while it was read"):
        check_renewed(before, folder.world(), "lb.yaml")
    folder.renew()
    check_renewed(before, folder.world(), "lb.yaml")


def test_the_paths_of_all_files(folder: Folder) -> None:
    assert [Path(path).name for path in tls_paths(folder.world())] == ["ca.pem", "cert.pem", "key.pem"]


def test_targets_can_keep_their_former_settings_in_a_snapshot(folder: Folder) -> None:
    before = folder.world()
    folder.renew()
    after = folder.world()
    one = "s/blue/a.test:1"
    held = with_tls(after.snapshot, lambda t: before.targets[one].tls if t.id == one else t.tls)
    [service] = held.services
    assert service.pools[0].targets == (before.targets[one], after.targets["s/blue/a.test:2"])
    assert service.pools[1] == after.snapshot.services[0].pools[1]


async def test_equal_settings_share_a_context_and_renewed_ones_get_another(folder: Folder, contexts: Contexts) -> None:
    world = folder.world()
    tls = world.targets["s/blue/a.test:1"].tls
    assert tls is not None
    contexts.use({tls}, world.files)
    same = replace(tls)
    made = await asyncio.gather(*(contexts.get(each) for each in (tls, same, tls)))
    assert len({id(each) for each in made}) == 1
    assert await contexts.get(tls, ("h2",)) is not made[0]
    folder.renew()
    renewed_world = folder.world()
    new = renewed_world.targets["s/blue/a.test:1"].tls
    assert new is not None and new != tls
    contexts.use({new}, renewed_world.files)
    assert authorities(await contexts.get(new)) != authorities(made[0])
    former = weakref.ref(made[0])
    del made
    gc.collect()
    assert former() is None, "contexts that are needed no more are dropped"


async def test_a_context_that_cannot_be_built_is_an_error_each_time_and_tried_again(
    folder: Folder, contexts: Contexts
) -> None:
    tls = TlsClient(ca_file=str(folder.path / "later.pem"))
    for _ in range(2):
        with pytest.raises(OSError, match="No such file"):
            await contexts.get(tls)
    folder.authority.cert_pem.write_to_path(folder.path / "later.pem")
    assert authorities(await contexts.get(tls))


async def test_the_loop_goes_on_while_a_context_is_built(contexts: Contexts, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from lb.net.tls import contexts as module

    go = threading.Event()
    build = module.client_context

    def slow(*arguments: object) -> ssl.SSLContext:
        assert go.wait(10)
        return build(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "client_context", slow)
    waiting = asyncio.ensure_future(contexts.get(TlsClient(verify=False)))
    await asyncio.sleep(0.01)
    assert not waiting.done(), "this line would not be reached"
    go.set()
    await waiting


def test_without_the_systems_store_verification_can_be_off() -> None:
    context = client_context(TlsClient(verify=False))
    assert context.verify_mode == ssl.CERT_NONE and not context.get_ca_certs()
