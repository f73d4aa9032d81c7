"""What is refused before anybody is dialled; the rest is tested with real sockets."""

import ssl
from pathlib import Path

import pytest

from commserver.errors import ConfigError
from commserver.gateways import tls


def test_without_files_this_machine_says_whom_to_trust() -> None:
    context = tls.client_context()

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone.pem"

    with pytest.raises(ConfigError, match=r"gone\.pem: No such file"):
        tls.client_context(gone)
    with pytest.raises(ConfigError, match=r"gone\.pem: No such file"):
        tls.client_context(None, gone)
    with pytest.raises(ConfigError, match=r"gone\.pem: No such file"):
        tls.server_context(gone)


def test_a_file_with_something_else_in_it_is_named(tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_text("hello")

    with pytest.raises(ConfigError, match=r"other\.pem: no certificates to trust"):
        tls.client_context(other)
    with pytest.raises(ConfigError, match=r"other\.pem: no certificate with its key"):
        tls.server_context(other)
    with pytest.raises(ConfigError, match=r"other\.pem and .*other\.pem: no certificate"):
        tls.client_context(None, other, other)
